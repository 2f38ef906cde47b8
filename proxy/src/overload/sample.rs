//! What a refusal costs: measured by the thread that does all of it at once, from reading the request to writing the answer.

use std::cell::Cell;
use std::time::Duration;

use parking_lot::Mutex;
use rustix::time::ClockId;

use super::processor_time;

/// One of so many times that a connection goes on is measured. A prime number: requests take the same number of times each,
/// and always another of these shall be the one.
const EVERY: u32 = 17;

thread_local! {
    static TIMES: Cell<u32> = const { Cell::new(0) };
    /// Whose requests were decided upon on this thread since it began to measure.
    static DECIDED: Cell<Decided> = const { Cell::new(Decided { refused: 0, let_in: 0 }) };
}

#[derive(Debug, Clone, Copy, Default)]
struct Decided {
    refused: u32,
    let_in: u32,
}

/// One is refused on this thread.
pub(super) fn refuses() {
    let before = DECIDED.get();
    DECIDED.set(Decided { refused: before.refused.saturating_add(1), ..before });
}

/// One is let in.
pub(super) fn lets_in() {
    let before = DECIDED.get();
    DECIDED.set(Decided { let_in: before.let_in.saturating_add(1), ..before });
}

/// Processor time of some refusals.
#[derive(Debug, Default)]
pub(super) struct Samples {
    all: Mutex<(Duration, u32)>,
}

impl Samples {
    /// Lets a connection go on, and now and then measures it. It is one of these where it did nothing but refuse.
    pub(super) fn around<T>(&self, goes_on: impl FnOnce() -> T) -> T {
        let times = TIMES.get().wrapping_add(1);
        TIMES.set(times);
        if !times.is_multiple_of(EVERY) {
            return goes_on();
        }
        DECIDED.set(Decided::default());
        let began = thread_time();
        let outcome = goes_on();
        if let Decided { refused: refused @ 1.., let_in: 0 } = DECIDED.get() {
            let took = thread_time().saturating_sub(began);
            let (time, many) = &mut *self.all.lock();
            *time += took;
            *many += refused;
        }
        outcome
    }

    /// What one took of those since the last time.
    pub(super) fn take(&self) -> Option<Duration> {
        let (time, many) = std::mem::take(&mut *self.all.lock());
        time.checked_div(many)
    }
}

fn thread_time() -> Duration {
    processor_time(ClockId::ThreadCPUTime)
}

#[cfg(test)]
mod tests {
    use std::iter::repeat_n;

    use super::*;

    fn works() {
        let began = thread_time();
        while thread_time() - began < Duration::from_micros(100) {}
    }

    #[test]
    fn only_what_does_nothing_but_refuse_is_one_of_these() {
        let samples = Samples::default();
        let does = |what: &[fn()], times| {
            for () in repeat_n((), times) {
                samples.around(|| what.iter().for_each(|one| one()));
            }
            samples.take()
        };
        let all = EVERY as usize;
        assert_eq!(does(&[works], all), None);
        assert_eq!(does(&[works, lets_in], all), None);
        assert_eq!(does(&[refuses, lets_in, works], all), None);
        // Somebody was let in before.
        lets_in();
        let one = does(&[refuses, works], all * 3).expect("some refusals");
        assert!(one >= Duration::from_micros(100), "{one:?}");
        let of_two = does(&[refuses, works, refuses], all).expect("some refusals");
        assert!(of_two >= Duration::from_micros(50), "{of_two:?}");
        assert_eq!(does(&[refuses], all - 1), None);
    }
}
