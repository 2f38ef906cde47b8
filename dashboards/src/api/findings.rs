//! What needs a look, and the sentence that says so. Pure: sums in, words out.

use std::collections::BTreeMap;

use tollgate_proto::reason::Outcome;

use super::rows::{clock_time, outcome_of};
use super::types::{
    Change, ChangeKind, Finding, FindingKind, Level, OutcomeName, ReasonCount, Series, ServiceRow, Totals,
    Verdict,
};
use super::words::{requests, things, thousands};
use crate::query::{Range, Tally};
use crate::store::{Rollup, Sums};

/// Findings shown at once.
const MAX_FINDINGS: usize = 8;
/// Refusals of one caller that are worth a line.
const MANY_DENIED: u64 = 10;
const MANY_LIMITED: u64 = 10;
/// Requests of a version before its durations are compared.
const ENOUGH_TO_COMPARE: u64 = 50;
/// A version is slower when its 99th percentile is this many times another's.
const SLOWER: f64 = 1.5;
/// A tenth of the range counts as "now".
const NOW_SHARE: usize = 10;
/// More than this share of requests failing now is "failing".
const FAILING_SHARE: f64 = 0.01;
const MAX_CHANGES: usize = 26;

/// A count, and what it is made of.
type Split<'a> = (u64, BTreeMap<&'a str, u64>);

pub(super) fn findings(
    whole: &Sums,
    tally: &Tally,
    services: &[ServiceRow],
    range: &Range,
    lost: u64,
) -> Vec<Finding> {
    let when = format!("{}–{}", clock_time(range.from), clock_time(range.to));
    let mut findings = Vec::new();
    failed(services, &when, &mut findings);
    by_caller(whole, tally, Outcome::Denied, &when, &mut findings);
    by_caller(whole, tally, Outcome::Limited, &when, &mut findings);
    slower(whole, tally, &when, &mut findings);
    plaintext(whole, &when, &mut findings);
    if lost > 0 {
        findings.push(Finding {
            kind: FindingKind::Lost,
            title: format!("{} records were lost in the last hour.", thousands(lost)),
            detail: "They reached this dashboard and could not be kept; every count of that time is too low."
                .to_owned(),
            when: "last hour".to_owned(),
            link: "/fleet".to_owned(),
        });
    }
    findings.truncate(MAX_FINDINGS);
    findings
}

fn failed(services: &[ServiceRow], when: &str, findings: &mut Vec<Finding>) {
    for service in services.iter().filter(|service| service.failed_percent > 0.0) {
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_sign_loss,
            clippy::cast_possible_truncation,
            reason = "a count"
        )]
        let count = (service.failed_percent / 100.0 * service.requests as f64).round() as u64;
        findings.push(Finding {
            kind: FindingKind::Failed,
            title: format!("{} failed {}.", service.name, requests(count.max(1))),
            detail: format!("{} % of {}.", service.failed_percent, requests(service.requests)),
            when: when.to_owned(),
            link: format!("/requests?q={}", encode(&format!("outcome:failed dest:{}", service.name))),
        });
    }
}

fn by_caller(whole: &Sums, tally: &Tally, outcome: Outcome, when: &str, findings: &mut Vec<Finding>) {
    let mut callers: BTreeMap<&str, Split<'_>> = BTreeMap::new();
    for (key, count) in &whole.stops {
        if key.class.outcome == outcome as u8 && tally.in_totals(&key.class) {
            let entry = callers.entry(&key.caller).or_default();
            entry.0 += count;
            *entry.1.entry(&key.reason).or_default() += count;
        }
    }
    let (kind, least, word) = match outcome {
        Outcome::Limited => (FindingKind::Limited, MANY_LIMITED, "limited"),
        _ => (FindingKind::Denied, MANY_DENIED, "denied"),
    };
    let mut callers: Vec<_> = callers.into_iter().filter(|(_, (count, _))| *count >= least).collect();
    callers.sort_by_key(|(_, (count, _))| std::cmp::Reverse(*count));
    for (caller, (count, reasons)) in callers.into_iter().take(3) {
        let who = if caller.is_empty() { "Somebody unknown" } else { caller };
        let mut reasons: Vec<_> = reasons.into_iter().collect();
        reasons.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        let listed: Vec<String> =
            reasons.iter().take(3).map(|(reason, count)| format!("{reason} {}", thousands(*count))).collect();
        let title = if outcome == Outcome::Limited {
            format!("{who} met a full limit {} times.", thousands(count))
        } else {
            format!("{who} was refused {} times.", thousands(count))
        };
        findings.push(Finding {
            kind,
            title,
            detail: format!("{}.", listed.join(", ")),
            when: when.to_owned(),
            link: format!("/requests?q={}", encode(&format!("outcome:{word} caller:{caller}"))),
        });
    }
}

fn slower(whole: &Sums, tally: &Tally, when: &str, findings: &mut Vec<Finding>) {
    let mut versions: BTreeMap<&str, BTreeMap<&str, crate::query::Counts>> = BTreeMap::new();
    for (key, sum) in &whole.routes {
        if !key.version.is_empty() && tally.in_service(&key.dest, &key.class) {
            versions.entry(&key.dest).or_default().entry(&key.version).or_default().add(&key.class, sum);
        }
    }
    for (service, versions) in versions {
        let measured: Vec<(&str, u64, f64)> = versions
            .iter()
            .filter(|(_, counts)| counts.all() >= ENOUGH_TO_COMPARE)
            .filter_map(|(version, counts)| {
                Some((*version, counts.all(), counts.durations.percentile_ms(0.99)?))
            })
            .collect();
        let fastest = measured.iter().min_by(|a, b| a.2.total_cmp(&b.2));
        let slowest = measured.iter().max_by(|a, b| a.2.total_cmp(&b.2));
        if let (Some(fast), Some(slow)) = (fastest, slowest)
            && slow.2 > fast.2 * SLOWER
        {
            findings.push(Finding {
                kind: FindingKind::Slow,
                title: format!("{service} {} is slower than {}.", slow.0, fast.0),
                detail: format!("p99 {} ms against {} ms over {}.", slow.2, fast.2, requests(slow.1)),
                when: when.to_owned(),
                link: format!("/services/{}", encode(service)),
            });
        }
    }
}

fn plaintext(whole: &Sums, when: &str, findings: &mut Vec<Finding>) {
    let mut services: BTreeMap<&str, u64> = BTreeMap::new();
    for (key, sum) in &whole.edges {
        if key.security == "none" && key.class.reporter == "destination" {
            *services.entry(&key.dest).or_default() += sum.count;
        }
    }
    let count: u64 = services.values().sum();
    if count > 0 {
        let names: Vec<&str> = services.keys().copied().take(4).collect();
        findings.push(Finding {
            kind: FindingKind::Plaintext,
            title: format!("{} reached without encryption.", names_are(&names)),
            detail: format!("{} in plaintext.", requests(count)),
            when: when.to_owned(),
            link: format!("/requests?q={}", encode("tollgate.connection_security_policy:none")),
        });
    }
}

fn names_are(names: &[&str]) -> String {
    match names {
        [one] => format!("{one} was"),
        [first @ .., last] => format!("{} and {last} were", first.join(", ")),
        [] => String::new(),
    }
}

fn encode(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

pub(super) fn verdict(totals: &Totals, series: &Series, findings: &[Finding]) -> Verdict {
    if totals.requests == 0 {
        return Verdict { text: "No requests in this range.".to_owned(), level: Level::Quiet };
    }
    let (failing, recent) = now(series);
    #[expect(clippy::cast_precision_loss, reason = "a share")]
    if failing > 0 && failing as f64 > recent as f64 * FAILING_SHARE {
        let text = format!("{} of the newest {} failed.", thousands(failing), requests(recent));
        return Verdict { text, level: Level::Failing };
    }
    if findings.is_empty() {
        let text = format!(
            "Nothing is failing now. {}: {} passed, {} stopped by rule.",
            requests(totals.requests),
            thousands(totals.passed),
            thousands(totals.denied + totals.limited)
        );
        return Verdict { text, level: Level::Quiet };
    }
    Verdict { text: format!("Nothing is failing now. {}", things(findings.len())), level: Level::Look }
}

/// Failed and all requests of the newest tenth of the range.
fn now(series: &Series) -> (u64, u64) {
    let steps = series.passed.len();
    let from = steps - (steps / NOW_SHARE).clamp(1.min(steps), steps);
    let sum = |list: &[u64]| list[from..].iter().sum::<u64>();
    let failing = sum(&series.failed);
    (failing, failing + sum(&series.passed) + sum(&series.denied) + sum(&series.limited))
}

/// Why requests were stopped, most frequent first.
pub(super) fn reasons(whole: &Sums, tally: &Tally) -> Vec<ReasonCount> {
    let mut counts: BTreeMap<(&str, u8), Split<'_>> = BTreeMap::new();
    for (key, count) in whole.stops.iter().filter(|(key, _)| tally.in_totals(&key.class)) {
        let entry = counts.entry((&key.reason, key.class.outcome)).or_default();
        entry.0 += count;
        *entry.1.entry(&key.caller).or_default() += count;
    }
    let mut reasons: Vec<ReasonCount> = counts
        .into_iter()
        .map(|((reason, outcome), (count, callers))| ReasonCount {
            reason: reason.to_owned(),
            outcome: outcome_name(outcome),
            count,
            mostly: callers
                .into_iter()
                .max_by_key(|(_, count)| *count)
                .map_or("", |(caller, _)| caller)
                .to_owned(),
        })
        .collect();
    reasons.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.reason.cmp(&b.reason)));
    reasons
}

pub(super) fn outcome_name(number: u8) -> OutcomeName {
    [Outcome::Passed, Outcome::Denied, Outcome::Limited, Outcome::Failed]
        .into_iter()
        .find(|outcome| *outcome as u8 == number)
        .map_or(OutcomeName::Failed, outcome_of)
}

/// Policy epochs that began in the range, and versions that appeared in it.
pub(super) fn changes(steps: &Rollup, whole: &Sums, (start, step, _): (i64, i64, usize)) -> Vec<Change> {
    let mut changes: Vec<(i64, ChangeKind, String, String)> = Vec::new();
    // What was there from the first record on did not change in this range.
    for (epoch, at) in whole.epochs.iter().skip(1) {
        changes.push((
            *at,
            ChangeKind::Policy,
            format!("Policy epoch {epoch}"),
            "First decision with it.".to_owned(),
        ));
    }
    let mut first_seen: BTreeMap<(&str, &str), i64> = BTreeMap::new();
    let mut service_seen: BTreeMap<&str, i64> = BTreeMap::new();
    for (number, sums) in &steps.0 {
        for key in sums.routes.keys().filter(|key| !key.version.is_empty()) {
            first_seen.entry((&key.dest, &key.version)).or_insert(*number);
            service_seen.entry(&key.dest).or_insert(*number);
        }
    }
    for ((service, version), number) in first_seen {
        if service_seen.get(service).is_some_and(|first| *first < number) {
            let at = start + number * step;
            let title = format!("{service} {version} appears");
            changes.push((at, ChangeKind::Deploy, title, "First request to this version.".to_owned()));
        }
    }
    changes.sort();
    changes.truncate(MAX_CHANGES);
    changes
        .into_iter()
        .zip('A'..='Z')
        .map(|((at, kind, title, detail), letter)| Change {
            at_ms: u64::try_from(at / 1_000_000).unwrap_or(0),
            letter: letter.to_string(),
            title,
            detail,
            kind,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn totals(requests: u64) -> Totals {
        Totals { requests, passed: requests, ..Totals::default() }
    }

    #[test]
    fn verdicts() {
        let quiet = Series {
            passed: vec![10; 20],
            denied: vec![0; 20],
            limited: vec![0; 20],
            failed: vec![0; 20],
            ..Series::default()
        };
        let check = |totals: &Totals, series: &Series, findings: &[Finding], text: &str, level| {
            assert_eq!(verdict(totals, series, findings), Verdict { text: text.to_owned(), level });
        };
        check(&totals(0), &Series::default(), &[], "No requests in this range.", Level::Quiet);
        check(
            &totals(200),
            &quiet,
            &[],
            "Nothing is failing now. 200 requests: 200 passed, 0 stopped by rule.",
            Level::Quiet,
        );
        let finding = Finding {
            kind: FindingKind::Denied,
            title: String::new(),
            detail: String::new(),
            when: String::new(),
            link: String::new(),
        };
        check(
            &totals(200),
            &quiet,
            std::slice::from_ref(&finding),
            "Nothing is failing now. One thing needs a look.",
            Level::Look,
        );
        let mut failing = quiet.clone();
        failing.failed[19] = 5;
        check(&totals(205), &failing, &[finding], "5 of the newest 25 requests failed.", Level::Failing);
        let mut past = quiet.clone();
        past.failed[0] = 5;
        assert_eq!(verdict(&totals(205), &past, &[]).level, Level::Quiet);
    }
}
