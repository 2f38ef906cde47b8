//! Sentences: who, what and why, in that order. Pure.

use tollgate_proto::Reason;

use super::types::OutcomeName;

/// What a headline is made of; empty where nobody said.
#[derive(Debug, Clone, Default)]
pub(super) struct Story {
    pub(super) caller: String,
    pub(super) method: String,
    pub(super) path: String,
    pub(super) dest: String,
    pub(super) reason: String,
    pub(super) rule: String,
    pub(super) limit: String,
    pub(super) missing: Vec<String>,
    pub(super) status: u16,
    pub(super) duration_ms: Option<f64>,
}

/// "reader may not GET /policies/POL-1: the token has no scope policies:read."
pub(super) fn headline(outcome: OutcomeName, story: &Story) -> String {
    let who = if story.caller.is_empty() { "somebody unknown" } else { &story.caller };
    let what = format!("{} {}", story.method, story.path);
    match outcome {
        OutcomeName::Passed => match story.duration_ms {
            Some(ms) => format!("{who} passed: {what} answered {} in {ms} ms.", story.status),
            None => format!("{who} passed: {what} answered {}.", story.status),
        },
        OutcomeName::Denied => format!("{who} may not {what}: {}.", why_denied(story)),
        OutcomeName::Limited => format!("{who} must wait with {what}: {}.", why_limited(story)),
        OutcomeName::Failed => format!("{what} of {who} failed: {}.", why_failed(story)),
    }
}

fn why_denied(story: &Story) -> String {
    let scopes: Vec<&str> = story.missing.iter().filter_map(|m| m.strip_prefix("scope:")).collect();
    let roles: Vec<&str> = story.missing.iter().filter_map(|m| m.strip_prefix("role:")).collect();
    let rule = if story.rule.is_empty() { String::new() } else { format!(" ({})", story.rule) };
    match story.reason.parse::<Reason>() {
        Ok(Reason::ScopeMissing) if !scopes.is_empty() => {
            format!("the token has no scope {}", scopes.join(", "))
        }
        Ok(Reason::RoleMissing | Reason::DefaultDeny) if !roles.is_empty() => {
            format!("no role allows it; {} would", roles.join(" or "))
        }
        Ok(Reason::ScopeMissing) => "the token lacks a scope".to_owned(),
        Ok(Reason::RoleMissing) => "no role allows it".to_owned(),
        Ok(Reason::DefaultDeny) => "no rule allows it".to_owned(),
        Ok(Reason::RuleDeny) => format!("a denial names it{rule}"),
        Ok(Reason::CallerDenied) => format!("this caller may not talk to {}", story.dest),
        Ok(Reason::TokenAbsent) => "there is no token".to_owned(),
        Ok(Reason::TokenExpired) => "the token has expired".to_owned(),
        Ok(Reason::TokenNotYet) => "the token is not valid yet".to_owned(),
        Ok(Reason::TokenMalformed) => "the token cannot be read".to_owned(),
        Ok(Reason::TokenSignature) => "the token's signature does not hold".to_owned(),
        Ok(Reason::TokenKeyUnknown) => "the token's key is not known".to_owned(),
        Ok(Reason::TokenAlgorithm) => "the token's algorithm is not accepted".to_owned(),
        Ok(Reason::TokenIssuer) => "the token's issuer is not accepted here".to_owned(),
        Ok(Reason::TokenAudience) => "the token is for another audience".to_owned(),
        Ok(Reason::TokenClaims) => "a claim of the token is missing or wrong".to_owned(),
        Ok(Reason::TokenRevoked) => "the token is revoked".to_owned(),
        Ok(Reason::TokenBinding) => "the token belongs to another certificate".to_owned(),
        Ok(Reason::TokenAmbiguous) => "there is more than one token".to_owned(),
        Ok(Reason::MtlsRequired) => "it needs a client certificate".to_owned(),
        Ok(Reason::CertificateExpired) => "the client certificate has expired".to_owned(),
        Ok(Reason::CertificateRevoked) => "the client certificate is revoked".to_owned(),
        Ok(Reason::AmbiguousRequest) => "its path can be read in more than one way".to_owned(),
        Ok(Reason::EgressUnregistered) => format!("the destination {} is not registered", story.dest),
        Ok(Reason::PortRefused) => format!("this port of {} is not open to others", story.dest),
        Ok(Reason::NotRedirected) => "it was sent to the sidecar itself, not to a workload".to_owned(),
        Ok(Reason::UpgradeRefused) => "the route does not let it switch protocols".to_owned(),
        _ => or_unknown(&story.reason),
    }
}

fn why_limited(story: &Story) -> String {
    let limit = if story.limit.is_empty() { String::new() } else { format!(" {}", story.limit) };
    match story.reason.parse::<Reason>() {
        Ok(Reason::LimitAddress) => "the limit of its address is full".to_owned(),
        Ok(Reason::LimitLocal) => format!("the proxy's own limit{limit} is full"),
        _ => format!("the limit{limit} is full"),
    }
}

fn why_failed(story: &Story) -> String {
    let dest = if story.dest.is_empty() { "the upstream" } else { &story.dest };
    match story.reason.parse::<Reason>() {
        Ok(Reason::Ok | Reason::UpstreamStatus) => format!("{dest} answered {}", story.status),
        Ok(Reason::UpstreamConnect) => format!("{dest} cannot be reached"),
        Ok(Reason::UpstreamReset) => format!("{dest} broke off"),
        Ok(Reason::UpstreamTimeout) => format!("{dest} did not answer in time"),
        Ok(Reason::UpstreamProtocol) => format!("{dest} answered what is not HTTP"),
        Ok(Reason::NoHealthyUpstream) => format!("no instance of {dest} is healthy"),
        Ok(Reason::BreakerOpen) => format!("the breaker of {dest} is open"),
        Ok(Reason::AuthzUnavailable) => "the authorization service did not answer".to_owned(),
        Ok(Reason::AuthzError) => "the authorization service could not decide".to_owned(),
        Ok(Reason::RatelimitUnavailable) => "the rate limit service did not answer".to_owned(),
        Ok(Reason::IssuerUnavailable) => "the token issuer's keys cannot be fetched".to_owned(),
        Ok(Reason::NoRoute) => "no route takes it".to_owned(),
        Ok(Reason::RequestMalformed) => "the request is malformed".to_owned(),
        Ok(Reason::RequestTooLarge) => "the request is too large".to_owned(),
        Ok(Reason::RequestTimeout) => "the client did not send it in time".to_owned(),
        Ok(Reason::ClientGone) => "the client went away".to_owned(),
        Ok(Reason::LoopDetected) => "the proxy's own connection came back to it".to_owned(),
        Ok(Reason::Overloaded) => "the proxy had too much to do".to_owned(),
        Ok(Reason::Draining) => "the proxy was stopping".to_owned(),
        Ok(Reason::FaultInjected) => "the proxy was told to fail it, as a trial".to_owned(),
        Ok(Reason::Internal) => "the proxy itself failed".to_owned(),
        _ if story.status >= 500 => format!("{dest} answered {}", story.status),
        _ => or_unknown(&story.reason),
    }
}

fn or_unknown(reason: &str) -> String {
    if reason.is_empty() { "no reporter said why".to_owned() } else { reason.to_owned() }
}

/// `73,878`.
pub(super) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// "1 request", "2 requests".
pub(super) fn requests(number: u64) -> String {
    if number == 1 { "1 request".to_owned() } else { format!("{} requests", thousands(number)) }
}

/// "One thing needs a look", up to twelve in words.
pub(super) fn things(number: usize) -> String {
    const WORDS: [&str; 9] = ["Nothing", "One", "Two", "Three", "Four", "Five", "Six", "Seven", "Eight"];
    match (number, WORDS.get(number)) {
        (1, _) => "One thing needs a look.".to_owned(),
        (_, Some(word)) => format!("{word} things need a look."),
        _ => format!("{number} things need a look."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(outcome: OutcomeName, reason: &str, missing: &[&str], expected: &str) {
        let story = Story {
            caller: "reader".to_owned(),
            method: "GET".to_owned(),
            path: "/policies/POL-1".to_owned(),
            dest: "policies".to_owned(),
            reason: reason.to_owned(),
            limit: "subject-per-second".to_owned(),
            missing: missing.iter().map(|m| (*m).to_owned()).collect(),
            status: 502,
            duration_ms: Some(6.2),
            ..Story::default()
        };
        assert_eq!(headline(outcome, &story), expected);
    }

    #[test]
    fn headlines_say_who_what_and_why() {
        check(
            OutcomeName::Denied,
            "scope_missing",
            &["scope:policies:read"],
            "reader may not GET /policies/POL-1: the token has no scope policies:read.",
        );
        check(
            OutcomeName::Denied,
            "default_deny",
            &["role:policy-reader"],
            "reader may not GET /policies/POL-1: no role allows it; policy-reader would.",
        );
        check(
            OutcomeName::Denied,
            "token_expired",
            &[],
            "reader may not GET /policies/POL-1: the token has expired.",
        );
        check(OutcomeName::Denied, "new_reason", &[], "reader may not GET /policies/POL-1: new_reason.");
        check(
            OutcomeName::Limited,
            "limit_exceeded",
            &[],
            "reader must wait with GET /policies/POL-1: the limit subject-per-second is full.",
        );
        check(
            OutcomeName::Failed,
            "upstream_status",
            &[],
            "GET /policies/POL-1 of reader failed: policies answered 502.",
        );
        check(OutcomeName::Passed, "ok", &[], "reader passed: GET /policies/POL-1 answered 502 in 6.2 ms.");
    }

    #[test]
    fn no_reason_is_without_words() {
        for reason in Reason::ALL {
            let story = Story { reason: reason.as_str().to_owned(), status: 400, ..Story::default() };
            let why = match reason.outcome() {
                tollgate_proto::reason::Outcome::Denied => why_denied(&story),
                tollgate_proto::reason::Outcome::Failed => why_failed(&story),
                _ => continue,
            };
            assert_ne!(why, reason.as_str(), "{reason}");
        }
    }

    #[test]
    fn numbers_read_well() {
        assert_eq!(
            (thousands(73_878), thousands(999), thousands(1_000_000)),
            ("73,878".into(), "999".into(), "1,000,000".into())
        );
        assert_eq!((requests(1), requests(2000)), ("1 request".into(), "2,000 requests".into()));
        assert_eq!(
            (things(1), things(3), things(12)),
            (
                "One thing needs a look.".into(),
                "Three things need a look.".into(),
                "12 things need a look.".into()
            )
        );
    }
}
