//! Test cases for a policy: who does what, and what shall come of it. Pure but for reading the file.
//!
//! ```yaml
//! cases:
//!   - name: a reader reads
//!     who: {issuer: demo, subject: reader, scopes: ["policies:read"]}
//!     what: {service: insurance/policies, method: GET, path: /policies/POL-1}
//!     expect: allow
//!   - name: but does not write
//!     who: {issuer: demo, subject: reader, scopes: ["policies:write"]}
//!     what: {service: insurance/policies, method: POST, path: /policies}
//!     expect: deny
//!     reason: role_missing
//! ```

use std::path::Path;

use serde::{Deserialize, Serialize};
use tollgate_proto::Reason;
use tollgate_runtime::config::{ConfigError, parse_yaml};
use utoipa::ToSchema;

use super::hypothetical::{Hypothetical, Judged, What, Who};
use super::snapshot::Snapshot;
use crate::decisions::VerdictName;

/// A file with more cases than these is no set of cases.
pub const MAX_CASES: usize = 10_000;

/// One case.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// What it shows, for whoever reads that it failed.
    pub name: String,
    /// Who.
    #[serde(default)]
    pub who: Who,
    /// What.
    pub what: What,
    /// What shall come of it.
    pub expect: VerdictName,
    /// And why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub reason: Option<Reason>,
}

/// A file of cases.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CaseFile {
    cases: Vec<Case>,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CaseResult {
    /// The case's name.
    pub name: String,
    /// Whether it is as it shall be.
    pub passed: bool,
    /// What was expected: `allow`, or `deny (role_missing)`.
    pub expected: String,
    /// What policy says; absent where the case itself is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub judged: Option<Judged>,
    /// What is wrong with the case.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// Reads a file of cases.
pub fn load(file: &Path) -> Result<Vec<Case>, ConfigError> {
    let unreadable = |error: std::io::Error| ConfigError::new(file, "", format!("cannot be read: {error}"));
    parse(file, &std::fs::read_to_string(file).map_err(unreadable)?)
}

/// Reads a text of cases; `file` names it in errors.
pub fn parse(file: &Path, text: &str) -> Result<Vec<Case>, ConfigError> {
    let CaseFile { cases } = parse_yaml(file, text)?;
    if cases.is_empty() {
        return Err(ConfigError::new(file, "", "holds no cases"));
    }
    if cases.len() > MAX_CASES {
        return Err(ConfigError::new(file, "", format!("holds more than {MAX_CASES} cases")));
    }
    Ok(cases)
}

/// Runs cases against a policy; `now` is in Unix seconds.
pub fn run(snapshot: &Snapshot, cases: &[Case], now: i64) -> Vec<CaseResult> {
    cases.iter().map(|case| case.run(snapshot, now)).collect()
}

impl Case {
    fn run(&self, snapshot: &Snapshot, now: i64) -> CaseResult {
        let request = Hypothetical { who: self.who.clone(), what: self.what.clone() };
        let word = match self.expect {
            VerdictName::Allow => "allow",
            VerdictName::Deny => "deny",
        };
        let expected = self.reason.map_or_else(|| word.to_owned(), |reason| format!("{word} ({reason})"));
        let (judged, problem) = match request.judge(snapshot, now) {
            Ok(judged) => (Some(judged), None),
            Err(problem) => (None, Some(problem)),
        };
        let passed = judged.as_ref().is_some_and(|judged| {
            judged.verdict == self.expect && self.reason.is_none_or(|reason| reason.as_str() == judged.reason)
        });
        CaseResult { name: self.name.clone(), passed, expected, judged, problem }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::hypothetical::snapshot_of;
    use crate::policy::object::{Document, policy_set};

    fn shop() -> Snapshot {
        let documents = [
            serde_json::json!({"kind": "Service", "namespace": "a", "name": "s", "hosts": ["s.a"],
                "callers": ["external"], "issuers": ["demo"]}),
            serde_json::json!({"kind": "Role", "namespace": "a", "name": "reader", "permissions": [
                {"name": "read", "service": "s", "methods": ["GET"], "paths": ["/o/{id}"], "scopes": {"all": ["r"]},
                 "when": {"claim": "tier", "equals": "gold"}}]}),
            serde_json::json!({"kind": "Binding", "namespace": "a", "name": "b", "role": "reader",
                "who": {"issuer": "demo", "subject": "u"}, "not_after": "2030-01-01T00:00:00Z"}),
        ];
        let documents = documents.map(|one| serde_json::from_value::<Document>(one).unwrap());
        snapshot_of(&policy_set(documents).unwrap(), 7).unwrap()
    }

    #[test]
    fn cases_pass_or_say_what_came_instead() {
        let text = r#"cases:
- name: a reader reads
  who: {issuer: demo, subject: u, scopes: [r], claims: {tier: gold}}
  what: {service: a/s, path: /o/1}
  expect: allow
- name: by host
  who: {issuer: demo, subject: u, scopes: [r], claims: {tier: gold}}
  what: {host: s.a, path: "/o/1?x=y"}
  expect: allow
- name: without the scope
  who: {issuer: demo, subject: u, claims: {tier: gold}}
  what: {service: a/s, path: /o/1}
  expect: deny
  reason: scope_missing
- name: silver
  who: {issuer: demo, subject: u, scopes: [r], claims: {tier: silver}}
  what: {service: a/s, path: /o/1}
  expect: deny
- name: nobody
  what: {service: a/s, path: /o/1}
  expect: deny
  reason: token_absent
- name: too late
  who: {issuer: demo, subject: u, scopes: [r], claims: {tier: gold}}
  what: {service: a/s, path: /o/1, at: 2031-01-01T00:00:00Z}
  expect: deny
- name: another issuer
  who: {issuer: other, subject: u}
  what: {service: a/s, path: /o/1}
  expect: deny
  reason: token_issuer
- name: from a workload that is no caller
  who: {workload: "spiffe://d/ns/a/sa/w"}
  what: {service: a/s, path: /o/1, from: inside}
  expect: deny
  reason: caller_denied
- name: wrong on purpose
  who: {issuer: demo, subject: u, scopes: [r], claims: {tier: gold}}
  what: {service: a/s, path: /o/1}
  expect: deny
- name: no path
  what: {service: a/s, path: "*"}
  expect: deny
"#;
        let cases = parse(Path::new("cases.yaml"), text).unwrap();
        let results = run(&shop(), &cases, 1_800_000_000);
        let failed: Vec<_> =
            results.iter().filter(|result| !result.passed).map(|one| one.name.as_str()).collect();
        assert_eq!(failed, ["wrong on purpose", "no path"], "{results:#?}");
        assert_eq!(results[8].judged.as_ref().unwrap().rule, "a/b → reader.read");
        assert!(results[9].problem.as_ref().unwrap().starts_with("what.path: "));
        let why = results[2].judged.as_ref().unwrap().explanation.clone().unwrap();
        assert_eq!(why, "role reader: scope needs r, token has none");
    }

    #[test]
    fn a_mistake_in_a_file_is_named_with_its_line() {
        for (text, line) in [
            ("cases:\n- name: x\n  what: {path: /}\n  expct: allow\n", ":4"),
            ("cases:\n- name: x\n  what: {pth: /}\n  expect: allow\n", ":3"),
            ("cases:\n- name: x\n  what: {path: /}\n  expect: maybe\n", ":4"),
            ("cases: []\n", ""),
        ] {
            let error = parse(Path::new("cases.yaml"), text).unwrap_err().to_string();
            assert!(error.contains(&format!("cases.yaml{line}")), "{error}");
        }
    }
}
