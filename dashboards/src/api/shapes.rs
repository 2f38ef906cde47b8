//! Answers put together: series from sums or records, and one record in full.

use tollgate_proto::attributes as a;

use super::ApiState;
use super::problem::ApiError;
use super::rows::{key, millis, outcome, rfc3339, status};
use super::types::{AttributeGroup, KeyValue, OutcomeName, RequestRecord, Series, Stage};
use super::words::{Story, headline};
use crate::query::{Filter, Loaded, Range, Tally, load, select, steps_over, units};
use crate::record::{Kind, Outcome};
use crate::store::{Cell, Rollup, names};

/// An empty series over steps.
pub(super) fn blank(start: i64, step: i64, count: usize) -> Series {
    let zeros = || vec![0; count];
    Series {
        from: unsigned(start / 1_000_000),
        step_ms: unsigned(step / 1_000_000),
        passed: zeros(),
        denied: zeros(),
        limited: zeros(),
        failed: zeros(),
        unmatched: None,
        lost: None,
    }
}

pub(super) fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

/// A series of requests, each counted once.
pub(super) fn traffic(steps: &Rollup, tally: &Tally, (start, step, count): (i64, i64, usize)) -> Series {
    let mut series = blank(start, step, count);
    for (number, sums) in &steps.0 {
        let Some(at) = usize::try_from(*number).ok().filter(|at| *at < count) else { continue };
        let counts = tally.totals(sums);
        series.passed[at] += counts.of(Outcome::Passed);
        series.denied[at] += counts.of(Outcome::Denied);
        series.limited[at] += counts.of(Outcome::Limited);
        series.failed[at] += counts.of(Outcome::Failed);
    }
    series
}

/// Adds what was lost, minute by minute, where anything was.
pub(super) fn add_lost(state: &ApiState, series: &mut Series) {
    let lost = state.store.metrics().lost_by_minute();
    let mut steps = vec![0; series.passed.len()];
    for (minute, count) in lost {
        let since = (minute * 60_000).saturating_sub(series.from);
        if minute * 60_000 + 60_000 > series.from
            && let Some(step) =
                steps.get_mut(usize::try_from(since / series.step_ms.max(1)).unwrap_or(usize::MAX))
        {
            *step += count;
        }
    }
    if steps.iter().any(|n| *n > 0) {
        series.lost = Some(steps);
    }
}

/// A series of records, one for each reporter, as the requests table counts them.
pub(super) async fn record_series(
    state: &ApiState,
    range: Range,
    filter: &Filter,
    steps: usize,
) -> Result<Series, ApiError> {
    let (start, step, count) = steps_over(range, steps);
    let mut series = blank(start, step, count);
    let mut unmatched = vec![0; count];
    let mut wanted = filter.columns();
    wanted.extend([names::TIME, names::OUTCOME]);
    for unit in units(&state.store, Kind::Access, range) {
        let Some(loaded) = load(&state.store, &unit, &wanted).await? else { continue };
        let selected = select(&loaded, filter, range);
        for (row, at) in loaded.times().iter().enumerate().filter(|(_, at)| range.holds(**at)) {
            let Some(at) = usize::try_from((at - start).div_euclid(step)).ok().filter(|at| *at < count)
            else {
                continue;
            };
            if !selected[row] {
                unmatched[at] += 1;
                continue;
            }
            let word = match loaded.cell(names::OUTCOME, row) {
                Some(Cell::Word(word)) => word.as_str().unwrap_or_default(),
                _ => "",
            };
            match outcome(word) {
                OutcomeName::Passed => series.passed[at] += 1,
                OutcomeName::Denied => series.denied[at] += 1,
                OutcomeName::Limited => series.limited[at] += 1,
                OutcomeName::Failed => series.failed[at] += 1,
            }
        }
        tokio::task::yield_now().await;
    }
    series.unmatched = Some(unmatched);
    add_lost(state, &mut series);
    Ok(series)
}

/// One reporter's record in full.
pub(super) fn record(loaded: &Loaded, row: usize) -> RequestRecord {
    let text = |name: &str| loaded.text(name, row);
    let time_ns = loaded.times().get(row).copied().unwrap_or_default();
    let outcome = outcome(&text(names::OUTCOME));
    let missing = match loaded.cell(a::TOLLGATE_AUTHZ_MISSING, row).map(Cell::json) {
        Some(serde_json::Value::Array(list)) => {
            list.iter().filter_map(|one| one.as_str().map(str::to_owned)).collect()
        }
        Some(serde_json::Value::String(one)) => one.split(',').map(|m| m.trim().to_owned()).collect(),
        _ => Vec::new(),
    };
    let story = Story {
        caller: text(names::CALLER),
        method: text(a::HTTP_REQUEST_METHOD),
        path: text(a::URL_PATH),
        dest: text(names::DEST),
        reason: text(a::TOLLGATE_REASON),
        rule: text(a::SECURITY_RULE_NAME),
        limit: text(a::TOLLGATE_RATELIMIT_RULE),
        missing,
        status: status(loaded, row),
        duration_ms: millis(loaded, row),
    };
    let (stages, stopped_at) = stages(loaded, row, outcome);
    RequestRecord {
        key: key(loaded, row),
        service: text(a::SERVICE_NAME),
        reporter: text(a::TOLLGATE_REPORTER),
        time: rfc3339(time_ns),
        time_ns: time_ns.to_string(),
        outcome,
        status: story.status,
        headline: headline(outcome, &story),
        body: text(names::BODY),
        trace_id: text(names::TRACE),
        span_id: text(names::SPAN),
        duration_ms: story.duration_ms,
        stages,
        stopped_at,
        groups: groups(loaded, row),
    }
}

/// The way through a proxy, in the order of `proxy`'s pipeline.
const STAGES: [(&str, &str); 5] = [
    ("accept", a::TOLLGATE_ACCEPT_US),
    ("route", a::TOLLGATE_ROUTE_US),
    ("authorize", a::TOLLGATE_AUTHZ_US),
    ("limit", a::TOLLGATE_RATELIMIT_US),
    ("upstream", a::TOLLGATE_UPSTREAM_US),
];

fn stages(loaded: &Loaded, row: usize, outcome: OutcomeName) -> (Vec<Stage>, Option<String>) {
    let micros = |name: &str| loaded.cell(name, row).and_then(Cell::int).map(unsigned);
    let reason = loaded.text(a::TOLLGATE_REASON, row);
    let stopped_at = match outcome {
        OutcomeName::Passed => None,
        OutcomeName::Denied => Some("authorize"),
        OutcomeName::Limited => Some("limit"),
        OutcomeName::Failed => Some(match reason.as_str() {
            "authz_unavailable" | "authz_error" | "issuer_unavailable" => "authorize",
            "ratelimit_unavailable" => "limit",
            "no_route" => "route",
            "request_malformed" | "request_too_large" | "request_timeout" | "draining" => "accept",
            _ => "upstream",
        }),
    };
    let mut after_stop = false;
    let mut stages = Vec::new();
    for (name, attribute) in STAGES {
        let us = micros(attribute);
        let stops = stopped_at == Some(name);
        if us.is_some() || stops || after_stop {
            let outcome = match (stops, after_stop, name) {
                (true, _, "authorize") if outcome == OutcomeName::Denied => Some("deny"),
                (true, _, "limit") if outcome == OutcomeName::Limited => Some("limited"),
                (true, ..) => Some("failed"),
                (_, true, _) => Some("not_reached"),
                (_, _, "authorize" | "limit") => Some("allow"),
                _ => None,
            };
            stages.push(Stage { name: name.to_owned(), us, outcome: outcome.map(str::to_owned) });
        }
        after_stop |= stops;
    }
    if let Some(total) = micros(a::TOLLGATE_DURATION_US)
        && stopped_at.is_none()
    {
        let known: u64 = stages.iter().filter_map(|stage| stage.us).sum();
        stages.push(Stage {
            name: "respond".to_owned(),
            us: Some(total.saturating_sub(known)),
            outcome: None,
        });
    }
    (stages, stopped_at.map(str::to_owned))
}

const GROUPS: [&str; 8] =
    ["Decision", "Token", "Caller", "Request", "Limit", "Upstream", "Connection", "Other"];

fn group_of(name: &str) -> &'static str {
    let is = |prefixes: &[&str]| prefixes.iter().any(|prefix| name.starts_with(prefix));
    if is(&["tollgate.authz.", "security_rule.", "tollgate.reason", "tollgate.watch."]) {
        "Decision"
    } else if is(&["tollgate.token."]) {
        "Token"
    } else if is(&["enduser.", "user.", "tollgate.source.", "client.", "user_agent."]) {
        "Caller"
    } else if is(&["tollgate.ratelimit."]) {
        "Limit"
    } else if is(&[
        "tollgate.upstream",
        "tollgate.destination.",
        "tollgate.circuit",
        "tollgate.ejected",
        "tollgate.subset",
        "network.peer.",
    ]) {
        "Upstream"
    } else if is(&["tls.", "tollgate.connection_security_policy", "network.", "server."]) {
        "Connection"
    } else if is(&[
        "http.",
        "url.",
        "rpc.",
        "tollgate.request.",
        "tollgate.response.",
        "tollgate.duration_us",
        "tollgate.ttfb_us",
        "error.type",
    ]) {
        "Request"
    } else {
        "Other"
    }
}

fn groups(loaded: &Loaded, row: usize) -> Vec<AttributeGroup> {
    let mut groups: Vec<AttributeGroup> = GROUPS
        .iter()
        .map(|title| AttributeGroup { title: (*title).to_owned(), attributes: Vec::new() })
        .collect();
    for (key, value) in loaded.attributes(row) {
        let title = group_of(&key);
        if let Some(group) = groups.iter_mut().find(|group| group.title == title) {
            group.attributes.push(KeyValue { key, value });
        }
    }
    groups.retain(|group| !group.attributes.is_empty());
    groups
}
