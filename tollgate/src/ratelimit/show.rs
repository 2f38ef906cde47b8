//! The service's answers as lines for people. Pure.

use serde_json::Value;

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or("-")
}

fn number(value: &Value, key: &str) -> u64 {
    value[key].as_u64().unwrap_or_default()
}

fn list<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    value[key].as_array().into_iter().flatten()
}

pub(super) fn usage(usage: &Value) -> Vec<String> {
    let failing = if usage["failing"].as_bool().unwrap_or_default() { ", which does not answer" } else { "" };
    let mut lines = vec![format!(
        "counting in {}{failing}; {} replicas; {} counters here, {} KiB",
        text(usage, "store"),
        number(usage, "replicas"),
        number(usage, "counters"),
        number(usage, "counter_bytes") / 1024,
    )];
    for limit in list(usage, "limits") {
        lines.push(format!(
            "{}  {} of {} in {} s, {}, {}: {} calls, {} over, {} near  ({})",
            text(limit, "domain"),
            text(limit, "rule"),
            number(limit, "requests"),
            number(limit, "window_seconds"),
            text(limit, "algorithm"),
            text(limit, "mode"),
            number(limit, "calls"),
            number(limit, "over"),
            number(limit, "near"),
            text(limit, "source"),
        ));
        for caller in list(limit, "top") {
            let limited = number(caller, "limited_until");
            let refused = number(caller, "refused");
            let limited = if limited > 0 { format!(", limited until {limited}") } else { String::new() };
            lines.push(format!(
                "    {}: {} hits (at most {} too many), {refused} refused{limited}",
                text(caller, "caller"),
                number(caller, "hits"),
                number(caller, "error"),
            ));
        }
    }
    lines
}

pub(super) fn quota(quota: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    for limit in quota.as_array().into_iter().flatten() {
        let entries = list(limit, "entries").map(|pair| {
            format!("{}={}", pair[0].as_str().unwrap_or_default(), pair[1].as_str().unwrap_or_default())
        });
        lines.push(format!(
            "{}  {} ({}): {:.1} a second, burst {}, {:.0} admitted beyond it",
            text(limit, "domain"),
            text(limit, "rule"),
            entries.collect::<Vec<_>>().join(", "),
            limit["per_second"].as_f64().unwrap_or_default(),
            number(limit, "burst"),
            limit["over_admitted"].as_f64().unwrap_or_default(),
        ));
        for share in list(limit, "shares") {
            let wanted = share["wanted_per_second"].as_f64();
            let wanted = wanted.map_or_else(|| "not known yet".to_owned(), |wanted| format!("{wanted:.1}"));
            lines.push(format!(
                "    {}: {:.1} a second, burst {}; wanted {wanted}",
                text(share, "client"),
                share["per_second"].as_f64().unwrap_or_default(),
                number(share, "burst"),
            ));
        }
    }
    if lines.is_empty() {
        lines.push("no limit is divided at present".to_owned());
    }
    lines
}

pub(super) fn explanation(explained: &Value) -> Vec<String> {
    let mut lines = vec![format!("decision: {}", text(explained, "decision"))];
    if text(explained, "counters") != "counted" {
        lines.push("the store does not answer: the counters are not known".to_owned());
    }
    for descriptor in list(explained, "descriptors") {
        lines.push(format!("{}: {}", text(descriptor, "descriptor"), text(descriptor, "outcome")));
        for limit in list(descriptor, "limits") {
            let over = if limit["over"].as_bool().unwrap_or_default() { ", over" } else { "" };
            lines.push(format!(
                "    {} ({}): {} in {} s, {}, {}; {} -> {} of {}{over}, whole again in {} s",
                text(limit, "rule"),
                limit["source"].as_str().unwrap_or("the request's own limit"),
                number(limit, "requests"),
                number(limit, "window_seconds"),
                text(limit, "algorithm"),
                text(limit, "mode"),
                number(limit, "used_before"),
                number(limit, "used_after"),
                number(limit, "capacity"),
                number(limit, "resets_in_seconds"),
            ));
        }
    }
    lines
}

pub(super) fn trial(trial: &Value) -> Vec<String> {
    let mut lines = vec![format!(
        "{} calls of {} s: refused {} now, {} then; newly refused {}, newly passed {}",
        number(trial, "calls"),
        number(trial, "to").saturating_sub(number(trial, "from")),
        number(trial, "refused_now"),
        number(trial, "refused_then"),
        number(trial, "newly_refused"),
        number(trial, "newly_passed"),
    )];
    if number(trial, "one_in") > 1 {
        lines.push(format!("one in {} callers was kept; counts are of those", number(trial, "one_in")));
    }
    if number(trial, "undecidable") > 0 {
        lines.push(format!("{} calls cannot be tried", number(trial, "undecidable")));
    }
    for rule in list(trial, "rules") {
        let (now, then) = (number(rule, "over_now"), number(rule, "over_then"));
        lines.push(format!("    rule {}: over {now} times now, {then} then", text(rule, "rule")));
    }
    for caller in list(trial, "callers") {
        let (refused, passed) = (number(caller, "newly_refused"), number(caller, "newly_passed"));
        lines.push(format!("    {}: newly refused {refused}, newly passed {passed}", text(caller, "caller")));
    }
    lines
}

pub(super) fn reset(done: &Value) -> Vec<String> {
    let rules: Vec<_> = list(done, "rules").filter_map(Value::as_str).collect();
    vec![format!("reset: {}", rules.join(", "))]
}

pub(super) fn audit(audit: &Value) -> Vec<String> {
    let mut lines: Vec<_> = audit
        .as_array()
        .into_iter()
        .flatten()
        .map(|reset| {
            let entries = list(reset, "entries").map(|pair| {
                format!("{}={}", pair[0].as_str().unwrap_or_default(), pair[1].as_str().unwrap_or_default())
            });
            format!(
                "{} {}: {} {} ({})",
                number(reset, "at"),
                text(reset, "by"),
                text(reset, "domain"),
                entries.collect::<Vec<_>>().join(", "),
                text(reset, "reason"),
            )
        })
        .collect();
    if lines.is_empty() {
        lines.push("no counter was reset since the service began".to_owned());
    }
    lines
}
