//! Tables for how requests end, by PROTOCOLS' cases: modes, failures, what each status holds.

use std::borrow::Cow;
use std::num::NonZeroU32;

use super::*;
use crate::limits::Limit;
use crate::window::{self, Hits, Window};

const LIMIT: u32 = 10;

fn ruling(mode: Mode) -> Ruling<'static> {
    let limit = Limit::fixed(LIMIT, Window::of(window::Unit::Minute));
    Ruling { rule: None, name: Cow::Borrowed("rule"), limit, mode, hits: Hits::Add(1) }
}

fn tally(used: u64) -> Tally {
    Tally::of_fixed(LIMIT, used, Hits::Add(1), 9)
}

fn manner(enforcement: Enforcement) -> Manner {
    Manner { enforcement, near_ratio: 0.8, headers: None }
}

/// One step a ruling.
fn each(rulings: &[Ruling<'_>]) -> Vec<Step> {
    (0..rulings.len()).map(|place| Step::Counted(place..place + 1)).collect()
}

fn ended(modes_and_counts: &[(Mode, u64)], enforcement: Enforcement) -> (Code, Vec<Code>, Decision) {
    let rulings: Vec<_> = modes_and_counts.iter().map(|(mode, _)| ruling(*mode)).collect();
    let tallies: Vec<_> = modes_and_counts.iter().map(|(_, count)| tally(*count)).collect();
    let answer = answer(&each(&rulings), &rulings, Outcome::Tallied(&tallies), &manner(enforcement));
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
    let steps = [Step::Free, Step::Unlimited, Step::Counted(0..1)];
    let rulings = [ruling(Mode::Enforce)];
    let tallies = [Tally { used: 4, over: false, resets_in_seconds: 17 }];
    let response =
        answer(&steps, &rulings, Outcome::Tallied(&tallies), &manner(Enforcement::Enforce)).response;
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
fn of_several_limits_the_tightest_is_shown_and_a_candidate_never() {
    let minute = ruling(Mode::Enforce);
    let second = Ruling {
        name: Cow::Borrowed("second"),
        limit: Limit::fixed(5, Window::of(window::Unit::Second)),
        ..ruling(Mode::Enforce)
    };
    let candidate = ruling(Mode::Candidate);
    let rulings = [minute, second, candidate];
    let at = |used: [u64; 3]| {
        let over = [used[0] > 10, used[1] > 5, true];
        let tallies: Vec<_> = used
            .iter()
            .zip(over)
            .map(|(used, over)| Tally { used: *used, over, resets_in_seconds: 1 })
            .collect();
        let answer = answer(
            &[Step::Counted(0..3)],
            &rulings,
            Outcome::Tallied(&tallies),
            &Manner { headers: Some(HeaderNames::default()), ..manner(Enforcement::Enforce) },
        );
        let status = &answer.response.statuses[0];
        let name = status.current_limit.clone().unwrap().name;
        let headers: Vec<_> =
            answer.response.response_headers_to_add.iter().map(|header| header.value.clone()).collect();
        (name, status.limit_remaining, answer.response.overall_code(), headers.join(" "))
    };
    assert_eq!(at([3, 3, 99]), ("second".to_owned(), 2, Code::Ok, "5 2 1".to_owned()));
    assert_eq!(at([9, 1, 99]), ("rule".to_owned(), 1, Code::Ok, "10 1 1".to_owned()));
    assert_eq!(at([10, 6, 0]), ("second".to_owned(), 0, Code::OverLimit, "5 0 1".to_owned()));
}

#[test]
fn windows_of_several_units_say_so() {
    let window = Window::of_several(NonZeroU32::new(3).unwrap(), window::Unit::Week).unwrap();
    let rulings = [Ruling { limit: Limit::fixed(LIMIT, window), ..ruling(Mode::Enforce) }];
    let response =
        answer(&each(&rulings), &rulings, Outcome::Tallied(&[tally(0)]), &manner(Enforcement::Enforce))
            .response;
    let limit = response.statuses[0].current_limit.clone().unwrap();
    assert_eq!((limit.unit, limit.unit_multiplier), (7, Some(3)));
}

#[test]
fn a_failed_store_is_answered_as_configured() {
    let rulings = [ruling(Mode::Enforce)];
    let steps = [Step::Counted(0..1), Step::Free];
    let enforced = manner(Enforcement::Enforce);
    let open = answer(&steps, &rulings, Outcome::FailedOpen, &enforced);
    assert_eq!((open.response.overall_code(), open.decision), (Code::Ok, Decision::FailedOpen));
    assert_eq!(open.response.statuses, [free(0), free(0)]);

    let closed = answer(&steps, &rulings, Outcome::FailedClosed { now_seconds: 61 }, &enforced);
    assert_eq!((closed.response.overall_code(), closed.decision), (Code::OverLimit, Decision::FailedClosed));
    let status = &closed.response.statuses[0];
    assert_eq!(status.duration_until_reset, Some(Seconds { seconds: 59 }));
    assert_eq!((status.code(), status.limit_remaining), (Code::OverLimit, 0));

    // Without a limit there was nothing to ask the store.
    for outcome in [Outcome::FailedOpen, Outcome::FailedClosed { now_seconds: 0 }] {
        assert_eq!(answer(&[Step::Free], &[], outcome, &enforced).decision, Decision::Ok);
    }
    let watched = [ruling(Mode::Shadow)];
    let passed = answer(&each(&watched), &watched, Outcome::FailedClosed { now_seconds: 0 }, &enforced);
    assert_eq!(passed.response.overall_code(), Code::Ok);
}

#[test]
fn unknown_is_never_said() {
    for outcome in [Outcome::FailedOpen, Outcome::FailedClosed { now_seconds: 5 }] {
        for enforcement in [Enforcement::Enforce, Enforcement::Shadow] {
            let rulings = [ruling(Mode::Quota), ruling(Mode::Shadow)];
            let steps = [Step::Free, Step::Unlimited, Step::Counted(0..1), Step::Counted(1..2)];
            let response = answer(&steps, &rulings, outcome, &manner(enforcement)).response;
            assert_ne!(response.overall_code, Code::Unknown as i32);
            assert!(response.statuses.iter().all(|status| status.code != Code::Unknown as i32));
        }
    }
}

#[test]
fn near_is_counted() {
    let rulings = [ruling(Mode::Enforce), ruling(Mode::Enforce)];
    let tallies = [tally(9), tally(2)];
    let answer = answer(&each(&rulings), &rulings, Outcome::Tallied(&tallies), &manner(Enforcement::Enforce));
    assert_eq!(answer.near_limit, 1);
    assert!(!answer.response.dynamic_metadata.is_empty());
}
