//! Parts of the week, as a person says them: Monday and Tuesday from eight to six in Berlin.

use jiff::Timestamp;
use jiff::civil::{Date, Weekday};
use jiff::tz::TimeZone;

use super::Truth;
use crate::policy::spec::TimeSpec;

const DAYS: [(&str, Weekday); 7] = [
    ("mon", Weekday::Monday),
    ("tue", Weekday::Tuesday),
    ("wed", Weekday::Wednesday),
    ("thu", Weekday::Thursday),
    ("fri", Weekday::Friday),
    ("sat", Weekday::Saturday),
    ("sun", Weekday::Sunday),
];
/// A bit a day.
const EVERY_DAY: u8 = 0x7f;
const MINUTES_A_DAY: u16 = 24 * 60;

/// A window of each of some days. One that ends before it begins goes on past midnight.
#[derive(Debug, Clone, PartialEq)]
pub struct Week {
    /// A bit a day, Monday the lowest.
    days: u8,
    /// Minutes of the day.
    from: u16,
    /// Minutes of the day, up to 24:00; not part of the window.
    to: u16,
    zone: TimeZone,
}

impl Week {
    /// Reads what was written; a fault comes with the key that has it.
    pub fn parse(spec: &TimeSpec) -> Result<Self, (&'static str, String)> {
        let mut days = 0;
        for day in &spec.days {
            let index = DAYS.iter().position(|(name, _)| name == day);
            let index = index.ok_or_else(|| ("days", format!("`{day}` is no day; write mon, tue, … sun")))?;
            days |= 1 << index;
        }
        let time = |key, text: &str| {
            minutes(text).ok_or_else(|| (key, format!("`{text}` is no time of day; write HH:MM")))
        };
        let (from, to) = (time("from", &spec.from)?, time("to", &spec.to)?);
        if from == to || from == MINUTES_A_DAY {
            return Err(("to", "the window is empty; leave from and to out for the whole day".to_owned()));
        }
        let zone = TimeZone::get(&spec.zone).map_err(|_| {
            let problem = format!("there is no time zone `{}`; write Europe/Berlin or UTC", spec.zone);
            ("zone", problem)
        })?;
        Ok(Self { days: if days == 0 { EVERY_DAY } else { days }, from, to, zone })
    }

    /// Whether `now` (Unix seconds) lies in the window, and until when that answer surely holds.
    pub fn at(&self, now: i64) -> (Truth, i64) {
        let Ok(moment) = Timestamp::from_second(now) else { return (Truth::Error, i64::MAX) };
        let here = self.zone.to_datetime(moment);
        let minute = u16::from(here.hour().unsigned_abs()) * 60 + u16::from(here.minute().unsigned_abs());
        let today = self.has(here.weekday());
        let holds = if self.from < self.to {
            today && (self.from..self.to).contains(&minute)
        } else {
            today && minute >= self.from || self.has(here.weekday().previous()) && minute < self.to
        };
        (Truth::from(holds), self.next_change(moment, here.date()))
    }

    fn has(&self, day: Weekday) -> bool {
        self.days >> day.to_monday_zero_offset() & 1 == 1
    }

    /// The next moment at which the answer may be another one. Clocks that are put forward or back count as such,
    /// and a time of day that they skip or repeat counts both ways.
    fn next_change(&self, now: Timestamp, today: Date) -> i64 {
        let mut next =
            self.zone.following(now).next().map_or(i64::MAX, |change| change.timestamp().as_second());
        let tomorrow = today.tomorrow().unwrap_or(today);
        for (day, minute) in [(today, self.from), (today, self.to), (tomorrow, 0), (tomorrow, self.from)] {
            // 24:00 is tomorrow's first moment, which stands in the list.
            let (hour, minute) = ((minute / 60) as i8, (minute % 60) as i8);
            if hour == 24 {
                continue;
            }
            let ambiguous = self.zone.to_ambiguous_timestamp(day.at(hour, minute, 0, 0));
            for moment in [ambiguous.earlier(), ambiguous.later()].into_iter().flatten() {
                if moment > now {
                    next = next.min(moment.as_second());
                }
            }
        }
        next
    }
}

/// `mon tue 08:00-18:00 Europe/Berlin`.
impl std::fmt::Display for Week {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (name, day) in DAYS {
            if self.days != EVERY_DAY && self.has(day) {
                write!(f, "{name} ")?;
            }
        }
        let time = |minute: u16| format!("{:02}:{:02}", minute / 60, minute % 60);
        let zone = self.zone.iana_name().unwrap_or("UTC");
        write!(f, "{}-{} {zone}", time(self.from), time(self.to))
    }
}

/// `HH:MM` in minutes; `24:00` is the end of the day.
fn minutes(text: &str) -> Option<u16> {
    let (hour, minute) = text.split_once(':')?;
    let two_digits = |part: &str| -> Option<u16> {
        let is_number = part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_digit());
        is_number.then(|| part.parse().ok()).flatten()
    };
    let (hour, minute) = (two_digits(hour)?, two_digits(minute)?);
    let total = hour * 60 + minute;
    (minute < 60 && total <= MINUTES_A_DAY).then_some(total)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn week(days: &[&str], from: &str, to: &str, zone: &str) -> Week {
        let days = days.iter().map(|day| (*day).to_owned()).collect();
        Week::parse(&TimeSpec { days, from: from.into(), to: to.into(), zone: zone.into() }).unwrap()
    }

    fn second(text: &str) -> i64 {
        text.parse::<Timestamp>().unwrap().as_second()
    }

    #[test]
    fn office_hours_in_berlin() {
        let week = week(&["mon", "tue", "wed", "thu", "fri"], "08:00", "18:00", "Europe/Berlin");
        for (moment, expected) in [
            ("2026-11-20T06:59:59Z", false), // Friday, winter: an hour before UTC
            ("2026-11-20T07:00:00Z", true),
            ("2026-11-20T16:59:59Z", true),
            ("2026-11-20T17:00:00Z", false),
            ("2026-11-21T10:00:00Z", false), // Saturday
            ("2026-07-20T06:00:00Z", true),  // Monday, summer: two hours
            ("2026-07-20T16:00:00Z", false),
        ] {
            assert_eq!(week.at(second(moment)).0, Truth::from(expected), "{moment}");
        }
        assert_eq!(week.at(second("2026-11-20T10:00:00Z")).1, second("2026-11-20T17:00:00Z"));
    }

    #[test]
    fn a_night_belongs_to_the_day_on_which_it_began() {
        let week = week(&["fri"], "22:00", "06:00", "UTC");
        for (moment, expected) in [
            ("2026-11-20T21:59:59Z", false),
            ("2026-11-20T22:00:00Z", true),
            ("2026-11-21T05:59:59Z", true),
            ("2026-11-21T06:00:00Z", false),
            ("2026-11-20T05:00:00Z", false),
            ("2026-11-21T22:00:00Z", false),
        ] {
            assert_eq!(week.at(second(moment)).0, Truth::from(expected), "{moment}");
        }
    }

    #[test]
    fn what_is_no_part_of_a_week() {
        let spec = |day: &str, from: &str, to: &str, zone: &str| TimeSpec {
            days: vec![day.into()],
            from: from.into(),
            to: to.into(),
            zone: zone.into(),
        };
        for (spec, key) in [
            (spec("monday", "08:00", "18:00", "UTC"), "days"),
            (spec("mon", "8:00", "18:00", "UTC"), "from"),
            (spec("mon", "08:60", "18:00", "UTC"), "from"),
            (spec("mon", "08:00", "24:01", "UTC"), "to"),
            (spec("mon", "08:00", "08:00", "UTC"), "to"),
            (spec("mon", "24:00", "08:00", "UTC"), "to"),
            (spec("mon", "08:00", "18:00", "Mars/Base"), "zone"),
        ] {
            assert_eq!(Week::parse(&spec).unwrap_err().0, key, "{spec:?}");
        }
    }

    proptest! {
        #[test]
        fn the_answer_holds_as_long_as_it_says(
            days in prop::sample::subsequence(vec!["mon", "tue", "wed", "thu", "fri", "sat", "sun"], 0..=7),
            from in 0_u16..1440,
            length in 1_u16..1440,
            zone in prop::sample::select(vec![
                "UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu", "Pacific/Apia",
            ]),
            // Both changes of the clocks in 2026, and a skipped day (Apia, December 2011).
            start in prop::sample::select(vec![
                "2026-03-28T00:00:00Z", "2026-10-24T00:00:00Z", "2026-04-04T00:00:00Z", "2011-12-29T00:00:00Z",
            ]),
            offset in 0_i64..200_000,
            ahead in 0.0_f64..1.0,
        ) {
            let text = |minute: u16| format!("{:02}:{:02}", minute / 60, minute % 60);
            let week = week(&days, &text(from), &text((from + length) % 1440), zone);
            let now = second(start) + offset;
            let (answer, until) = week.at(now);
            prop_assert!(until > now);
            prop_assert!(until - now <= 2 * 86_400);
            let between = now + ((until - now) as f64 * ahead) as i64;
            prop_assert_eq!(week.at(between.min(until - 1)).0, answer, "{:?} at {} of {}", week, between, until);
        }
    }
}
