//! Tables for how requests end, by PROTOCOLS' cases: modes, failures, what each status holds.

use std::borrow::Cow;
use std::num::NonZeroU32;

use super::*;
use crate::limits::Limit;
use crate::window::{self, Hits, Window};

const LIMIT: u32 = 10;

fn ruling(place: usize, mode: Mode) -> Step<'static> {
    let limit = Limit { requests: LIMIT, window: Window::of(window::Unit::Minute) };
    Step::Counted(Ruling { name: Cow::Borrowed("rule"), limit, mode, hits: Hits::Add(1), place })
}

fn ended(modes_and_counts: &[(Mode, u64)], enforcement: Enforcement) -> (Code, Vec<Code>, Decision) {
    let steps: Vec<_> =
        modes_and_counts.iter().enumerate().map(|(place, (mode, _))| ruling(place, *mode)).collect();
    let tallies: Vec<_> =
        modes_and_counts.iter().map(|(_, count)| Tally { count: *count, resets_in_seconds: 9 }).collect();
    let answer = answer(&steps, Outcome::Tallied(&tallies), enforcement);
    let codes = answer.response.statuses.iter().map(|status| status.code()).collect();
    (answer.response.overall_code(), codes, answer.decision)
}

#[test]
fn overall_table() {
    use Code::{Ok, OverLimit};
    use Mode::{Enforce, Quota, Shadow};
    type Row = (&'static [(Mode, u64)], Code, &'static [Code], Decision);
    const WITHIN: u64 = LIMIT as u64;
    const OVER: u64 = WITHIN + 1;
    let table: &[Row] = &[
        (&[(Enforce, WITHIN)], Ok, &[Ok], Decision::Ok),
        (&[(Enforce, OVER)], OverLimit, &[OverLimit], Decision::OverLimit),
        (&[(Enforce, WITHIN), (Enforce, OVER)], OverLimit, &[Ok, OverLimit], Decision::OverLimit),
        (&[(Shadow, OVER)], Ok, &[Ok], Decision::Shadow),
        (&[(Shadow, OVER), (Enforce, OVER)], OverLimit, &[Ok, OverLimit], Decision::OverLimit),
        (&[(Quota, OVER), (Quota, WITHIN)], Ok, &[OverLimit, Ok], Decision::Ok),
        (&[(Quota, OVER), (Quota, OVER)], OverLimit, &[OverLimit, OverLimit], Decision::OverLimit),
        (&[(Quota, WITHIN), (Enforce, OVER)], OverLimit, &[Ok, OverLimit], Decision::OverLimit),
    ];
    for (steps, overall, codes, decision) in table {
        assert_eq!(ended(steps, Enforcement::Enforce), (*overall, codes.to_vec(), *decision), "{steps:?}");
    }
    // Where nothing is enforced the statuses still say what would have been.
    let watched = ended(&[(Enforce, OVER)], Enforcement::Shadow);
    assert_eq!(watched, (Ok, vec![OverLimit], Decision::Shadow));
}

#[test]
fn statuses_are_always_filled() {
    let steps = [Step::Free, Step::Unlimited, ruling(0, Mode::Enforce)];
    let tallies = [Tally { count: 4, resets_in_seconds: 17 }];
    let response = answer(&steps, Outcome::Tallied(&tallies), Enforcement::Enforce).response;
    assert_eq!(response.statuses[0], free(0));
    assert_eq!(response.statuses[1], free(u32::MAX));
    let limited = DescriptorStatus {
        code: Code::Ok as i32,
        current_limit: Some(CurrentLimit {
            requests_per_unit: LIMIT,
            unit: Unit::Minute as i32,
            name: "rule".into(),
            unit_multiplier: None,
        }),
        limit_remaining: 6,
        duration_until_reset: Some(Seconds { seconds: 17 }),
    };
    assert_eq!(response.statuses[2], limited);
}

#[test]
fn windows_of_several_units_say_so() {
    let window = Window::of_several(NonZeroU32::new(3).unwrap(), window::Unit::Week).unwrap();
    let limit = Limit { requests: LIMIT, window };
    let name = Cow::Borrowed("rule");
    let step = Step::Counted(Ruling { name, limit, mode: Mode::Enforce, hits: Hits::Look, place: 0 });
    let tallies = [Tally { count: 0, resets_in_seconds: 1 }];
    let response = answer(&[step], Outcome::Tallied(&tallies), Enforcement::Enforce).response;
    let limit = response.statuses[0].current_limit.clone().unwrap();
    assert_eq!((limit.unit, limit.unit_multiplier), (7, Some(3)));
}

#[test]
fn a_failed_store_is_answered_as_configured() {
    let steps = [ruling(0, Mode::Enforce), Step::Free];
    let open = answer(&steps, Outcome::FailedOpen, Enforcement::Enforce);
    assert_eq!((open.response.overall_code(), open.decision), (Code::Ok, Decision::FailedOpen));
    assert_eq!(open.response.statuses, [free(0), free(0)]);

    let closed = answer(&steps, Outcome::FailedClosed { now_seconds: 61 }, Enforcement::Enforce);
    assert_eq!((closed.response.overall_code(), closed.decision), (Code::OverLimit, Decision::FailedClosed));
    let status = &closed.response.statuses[0];
    assert_eq!(status.duration_until_reset, Some(Seconds { seconds: 59 }));
    assert_eq!((status.code(), status.limit_remaining), (Code::OverLimit, 0));

    // Without a limit there was nothing to ask the store.
    for outcome in [Outcome::FailedOpen, Outcome::FailedClosed { now_seconds: 0 }] {
        assert_eq!(answer(&[Step::Free], outcome, Enforcement::Enforce).decision, Decision::Ok);
    }
    let watched = [ruling(0, Mode::Shadow)];
    let passed = answer(&watched, Outcome::FailedClosed { now_seconds: 0 }, Enforcement::Enforce);
    assert_eq!(passed.response.overall_code(), Code::Ok);
}

#[test]
fn unknown_is_never_said() {
    for outcome in [Outcome::FailedOpen, Outcome::FailedClosed { now_seconds: 5 }] {
        for enforcement in [Enforcement::Enforce, Enforcement::Shadow] {
            let steps = [Step::Free, Step::Unlimited, ruling(0, Mode::Quota), ruling(1, Mode::Shadow)];
            let response = answer(&steps, outcome, enforcement).response;
            assert_ne!(response.overall_code, Code::Unknown as i32);
            assert!(response.statuses.iter().all(|status| status.code != Code::Unknown as i32));
        }
    }
}

#[test]
fn near_is_counted_and_the_decider_named() {
    let steps = [ruling(0, Mode::Enforce), ruling(1, Mode::Enforce)];
    let tallies = [Tally { count: 9, resets_in_seconds: 1 }, Tally { count: 2, resets_in_seconds: 1 }];
    let answer = answer(&steps, Outcome::Tallied(&tallies), Enforcement::Enforce);
    assert_eq!(answer.near_limit, 1);
    let decided = deciding(&steps, &answer.response.statuses).unwrap();
    assert_eq!((decided.remaining, decided.limit, decided.unit), (1, LIMIT, "minute"));
    assert!(deciding(&[Step::Free], &[free(0)]).is_none());
}
