//! `x-ratelimit-*` and `retry-after` from the limiter's statuses, exactly as Envoy makes them. Pure.

use std::fmt::Write as _;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};

use super::rate_limit::wire::{DescriptorStatus, OVER_LIMIT};
use crate::error::retry_after_value;

const LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");

/// The status that a client is nearest to: the smallest remainder of those with a limit, the first on a tie.
pub fn nearest(statuses: &[DescriptorStatus]) -> Option<&DescriptorStatus> {
    statuses
        .iter()
        .filter(|status| status.current_limit.is_some())
        .min_by_key(|status| status.limit_remaining)
}

/// Adds `x-ratelimit-limit`, `-remaining` and `-reset`, if any status has a limit.
pub fn add(statuses: &[DescriptorStatus], headers: &mut HeaderMap) {
    let Some(status) = nearest(statuses) else { return };
    let Some(limit) = &status.current_limit else { return };
    let mut text = limit.requests_per_unit.to_string();
    for limit in statuses.iter().filter_map(|status| status.current_limit.as_ref()) {
        let Some(window) = window_seconds(limit.unit) else { continue };
        let window = window * u64::from(limit.unit_multiplier.unwrap_or(1).max(1));
        let _ = write!(text, ", {};w={window}", limit.requests_per_unit);
        if !limit.name.is_empty() {
            let _ = write!(text, ";name=\"{}\"", limit.name.replace(['"', '\\'], "_"));
        }
    }
    if let Ok(text) = HeaderValue::try_from(text) {
        headers.insert(LIMIT, text);
    }
    headers.insert(REMAINING, HeaderValue::from(status.limit_remaining));
    // Whole seconds, truncated as Envoy does: the limiter rounds up before.
    headers.insert(RESET, HeaderValue::from(status.reset().as_secs()));
}

/// `retry-after`: the longest wait of those that are over, at least one second.
pub fn retry_after(statuses: &[DescriptorStatus]) -> HeaderValue {
    let longest = statuses
        .iter()
        .filter(|status| status.code == OVER_LIMIT)
        .map(|status| status.reset().as_secs())
        .max()
        .unwrap_or_default();
    retry_after_value(Duration::from_secs(longest))
}

/// Units of `RateLimitResponse.RateLimit.Unit`.
fn window_seconds(unit: i32) -> Option<u64> {
    Some(match unit {
        1 => 1,
        2 => 60,
        3 => 3_600,
        4 => 86_400,
        5 => 30 * 86_400,
        6 => 365 * 86_400,
        7 => 7 * 86_400,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::super::rate_limit::wire::{RateLimit, WireDuration};
    use super::*;

    fn status(
        over: bool,
        limit: Option<(u32, i32, &str)>,
        remaining: u32,
        reset: (i64, i32),
    ) -> DescriptorStatus {
        DescriptorStatus {
            code: if over { OVER_LIMIT } else { 1 },
            current_limit: limit.map(|(requests_per_unit, unit, name)| RateLimit {
                name: name.into(),
                requests_per_unit,
                unit,
                unit_multiplier: None,
            }),
            limit_remaining: remaining,
            duration_until_reset: Some(WireDuration { seconds: reset.0, nanos: reset.1 }),
        }
    }

    #[track_caller]
    fn check(statuses: &[DescriptorStatus], expected: [Option<&str>; 3], wait: &str) {
        let mut headers = HeaderMap::new();
        add(statuses, &mut headers);
        let found = [&LIMIT, &REMAINING, &RESET].map(|name| headers.get(name).map(|v| v.to_str().unwrap()));
        assert_eq!(found, expected);
        assert_eq!(retry_after(statuses), wait);
    }

    #[test]
    fn headers_as_envoy_makes_them() {
        let named = status(false, Some((20, 1, "subject")), 5, (0, 900_000_000));
        check(std::slice::from_ref(&named), [Some("20, 20;w=1;name=\"subject\""), Some("5"), Some("0")], "1");
        // The first number is that of the smallest remainder; each limit has its window.
        let hour = status(true, Some((1000, 3, "")), 0, (1800, 999_999_999));
        check(
            &[named.clone(), hour.clone()],
            [Some("1000, 20;w=1;name=\"subject\", 1000;w=3600"), Some("0"), Some("1800")],
            "1800",
        );
        // The first on a tie.
        let tied = status(false, Some((7, 2, "")), 5, (30, 0));
        check(&[named, tied], [Some("20, 20;w=1;name=\"subject\", 7;w=60"), Some("5"), Some("0")], "1");
        // Without a limit a status is not shown, but its wait counts.
        let bare = status(true, None, 0, (42, 1));
        check(std::slice::from_ref(&bare), [None, None, None], "42");
        check(&[bare, hour], [Some("1000, 1000;w=3600"), Some("0"), Some("1800")], "1800");
        check(&[], [None, None, None], "1");
        // Months are 30 days, an unknown unit has no window.
        check(
            &[status(false, Some((9, 5, "")), 1, (1, 0))],
            [Some("9, 9;w=2592000"), Some("1"), Some("1")],
            "1",
        );
        check(&[status(false, Some((9, 0, "")), 1, (1, 0))], [Some("9"), Some("1"), Some("1")], "1");
    }

    #[test]
    fn a_multiplier_widens_the_window() {
        let mut status = status(false, Some((9, 2, "")), 1, (1, 0));
        status.current_limit.as_mut().unwrap().unit_multiplier = Some(5);
        check(&[status], [Some("9, 9;w=300"), Some("1"), Some("1")], "1");
    }
}
