//! What became of a request: passed, denied, limited or failed. Every count on every page follows from here.
//!
//! ```text
//! our reason ─ known ────────────────────────> its outcome (with "ok": failed if the upstream said 5xx)
//!            └ absent: limit decision, policy decision, Envoy's flags and details, then the status
//! ```

pub(crate) use tollgate_proto::reason::Outcome;

use tollgate_proto::{Reason, attributes as a};

use super::Row;

/// What the rollup, the search row and the filters need to know about a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) outcome: Outcome,
    /// Whether the reporter handed it on. If so, the next proxy's record tells of the same request.
    pub(crate) reached: bool,
    /// Subject, else calling workload, else address.
    pub(crate) caller: String,
    pub(crate) dest: String,
}

/// Reads the facts off a record whose names are ours already.
pub(crate) fn classify(row: &Row<'_>) -> Facts {
    let reason = row.text(a::TOLLGATE_REASON).parse::<Reason>().ok();
    let outcome = outcome(row, reason);
    Facts { outcome, reached: reached(row, outcome, reason), caller: caller(row), dest: dest(row) }
}

fn outcome(row: &Row<'_>, reason: Option<Reason>) -> Outcome {
    let status = row.int(a::HTTP_RESPONSE_STATUS_CODE).unwrap_or(0);
    match reason {
        Some(Reason::Ok) if status >= 500 => return Outcome::Failed,
        Some(reason) => return reason.outcome(),
        None => {}
    }
    match row.text(a::TOLLGATE_RATELIMIT_DECISION) {
        "deny" | "limited" | "over_limit" | "refused" => return Outcome::Limited,
        _ => {}
    }
    match row.text(a::TOLLGATE_AUTHZ_DECISION) {
        "deny" => return Outcome::Denied,
        "error" if status >= 500 => return Outcome::Failed,
        _ => {}
    }
    let details = row.text(a::TOLLGATE_RESPONSE_DETAILS);
    if flagged(row, &["RL"]) {
        return Outcome::Limited;
    }
    if flagged(row, &["UAEX"])
        || details.contains("rbac_access_denied")
        || details.contains("jwt_authn_access")
    {
        return if status >= 500 { Outcome::Failed } else { Outcome::Denied };
    }
    // Status 0 is what Envoy logs when the client left before there was an answer.
    if status >= 500 || status == 0 { Outcome::Failed } else { Outcome::Passed }
}

fn flagged(row: &Row<'_>, any_of: &[&str]) -> bool {
    row.text(a::TOLLGATE_RESPONSE_FLAGS).split(',').any(|flag| any_of.contains(&flag.trim()))
}

fn reached(row: &Row<'_>, outcome: Outcome, reason: Option<Reason>) -> bool {
    match (outcome, reason) {
        (Outcome::Passed, _) => true,
        (Outcome::Denied | Outcome::Limited, _) => false,
        // What never got a connection has reasons of its own, so these mean that the upstream had the request.
        (
            Outcome::Failed,
            Some(
                Reason::Ok
                | Reason::UpstreamStatus
                | Reason::UpstreamReset
                | Reason::UpstreamTimeout
                | Reason::UpstreamProtocol,
            ),
        ) => true,
        (Outcome::Failed, Some(Reason::ClientGone)) => row.field(a::NETWORK_PEER_ADDRESS).is_some(),
        (Outcome::Failed, Some(_)) => false,
        (Outcome::Failed, None) => !flagged(row, &["UH", "UF", "UO", "NR", "RLSE", "UAEX", "NC"]),
    }
}

/// What a gateway names as the source of everything that enters; it tells nobody from anybody.
const EXTERNAL: &str = "external";

fn caller(row: &Row<'_>) -> String {
    let workload = [a::TOLLGATE_SOURCE_WORKLOAD, a::TOLLGATE_SOURCE_PRINCIPAL, a::CLIENT_ADDRESS];
    [a::ENDUSER_ID, a::ENDUSER_PSEUDO_ID]
        .into_iter()
        .chain(workload)
        .map(|name| row.text(name))
        .find(|text| !text.is_empty() && *text != EXTERNAL)
        .unwrap_or_default()
        .to_owned()
}

fn dest(row: &Row<'_>) -> String {
    let own = if row.text(a::TOLLGATE_REPORTER) == "destination" {
        a::SERVICE_NAME
    } else {
        a::TOLLGATE_DESTINATION_WORKLOAD
    };
    [a::TOLLGATE_DESTINATION_WORKLOAD, own, a::TOLLGATE_UPSTREAM_CLUSTER, a::SERVER_ADDRESS]
        .into_iter()
        .map(|name| row.text(name))
        .find(|text| !text.is_empty())
        .unwrap_or_default()
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Value;

    fn check(fields: &[(&'static str, &'static str)], expected: (Outcome, bool)) {
        let fields = fields
            .iter()
            .map(|(name, value)| match value.parse::<i64>() {
                Ok(number) => (*name, Value::Int(number)),
                Err(_) => (*name, Value::Text((*value).into())),
            })
            .collect();
        let facts = classify(&Row::of(1, fields));
        assert_eq!((facts.outcome, facts.reached), expected, "{facts:?}");
    }

    #[test]
    fn outcomes() {
        const STATUS: &str = a::HTTP_RESPONSE_STATUS_CODE;
        check(&[(a::TOLLGATE_REASON, "ok"), (STATUS, "200")], (Outcome::Passed, true));
        check(&[(a::TOLLGATE_REASON, "ok"), (STATUS, "404")], (Outcome::Passed, true));
        check(&[(a::TOLLGATE_REASON, "ok"), (STATUS, "502")], (Outcome::Failed, true));
        check(&[(a::TOLLGATE_REASON, "scope_missing"), (STATUS, "403")], (Outcome::Denied, false));
        check(&[(a::TOLLGATE_REASON, "token_expired"), (STATUS, "401")], (Outcome::Denied, false));
        check(&[(a::TOLLGATE_REASON, "limit_exceeded"), (STATUS, "429")], (Outcome::Limited, false));
        check(&[(a::TOLLGATE_REASON, "authz_unavailable"), (STATUS, "503")], (Outcome::Failed, false));
        check(&[(a::TOLLGATE_REASON, "upstream_connect"), (STATUS, "503")], (Outcome::Failed, false));
        check(
            &[(a::TOLLGATE_REASON, "upstream_status"), (STATUS, "502"), (a::TOLLGATE_UPSTREAM_US, "10")],
            (Outcome::Failed, true),
        );
        check(&[(a::TOLLGATE_REASON, "upstream_timeout"), (STATUS, "504")], (Outcome::Failed, true));
        check(&[(a::TOLLGATE_REASON, "client_gone"), (STATUS, "499")], (Outcome::Failed, false));
        // No reason: an upstream's own 403 passed, a proxy's did not.
        check(&[(STATUS, "403")], (Outcome::Passed, true));
        check(&[(STATUS, "403"), (a::TOLLGATE_AUTHZ_DECISION, "deny")], (Outcome::Denied, false));
        check(&[(STATUS, "403"), (a::TOLLGATE_RESPONSE_FLAGS, "UAEX")], (Outcome::Denied, false));
        check(&[(STATUS, "429"), (a::TOLLGATE_RESPONSE_FLAGS, "RL")], (Outcome::Limited, false));
        check(&[(STATUS, "429"), (a::TOLLGATE_RATELIMIT_DECISION, "over_limit")], (Outcome::Limited, false));
        check(&[(STATUS, "503"), (a::TOLLGATE_RESPONSE_FLAGS, "UH")], (Outcome::Failed, false));
        check(&[(STATUS, "0"), (a::TOLLGATE_RESPONSE_FLAGS, "DC")], (Outcome::Failed, true));
    }
}
