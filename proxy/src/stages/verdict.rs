//! What authorization tells about its decision, in `dynamic_metadata["tollgate"]`. Pure.

use std::collections::HashMap;

use tollgate_proto::Reason;
use tollgate_proto::envoy_types::pb::google::protobuf::value::Kind;
use tollgate_proto::envoy_types::pb::google::protobuf::{Struct, Value};

/// A decision and what it was about. Everything is optional: another authorization service may say nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    /// The decision's own id.
    pub decision_id: Option<String>,
    /// Why.
    pub reason: Option<Reason>,
    /// The rule that decided.
    pub rule: Option<String>,
    /// What would have been enough.
    pub missing: Vec<String>,
    /// Why it was refused, in one line for an operator.
    pub explanation: Option<String>,
    /// What a policy on trial would have decided.
    pub dry_run: DryRun,
    /// The policy's revision.
    pub epoch: Option<i64>,
    /// The verified token's subject.
    pub subject: Option<String>,
    /// Its issuer.
    pub issuer: Option<String>,
    /// Its client.
    pub client_id: Option<String>,
    /// Its scopes.
    pub scopes: Vec<String>,
    /// Its groups.
    pub groups: Vec<String>,
    /// Further claims, by the names that authorization has for them; texts, numbers and truth values only.
    pub claims: Vec<(String, String)>,
    /// What was found out about the token itself.
    pub token: Token,
}

/// What a policy on trial would have decided.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DryRun {
    /// `allow` or `deny`.
    pub decision: Option<String>,
    /// By which rule.
    pub rule: Option<String>,
}

/// A token, as far as records show it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Token {
    /// `valid`, `expired`, …
    pub state: Option<String>,
    /// The key that signed it.
    pub kid: Option<String>,
    /// The algorithm.
    pub alg: Option<String>,
    /// Its id.
    pub jti: Option<String>,
    /// Whom it is for.
    pub audience: Vec<String>,
    /// Unix seconds.
    pub expires_at: Option<i64>,
    /// Unix seconds.
    pub issued_at: Option<i64>,
}

impl Verdict {
    /// Takes what it knows out of an answer's metadata; what has another shape is left out.
    pub fn take(metadata: Option<Struct>) -> Self {
        let Some(mut fields) = metadata.and_then(|mut metadata| map(metadata.fields.remove("tollgate")))
        else {
            return Self::default();
        };
        let mut token = map(fields.remove("token")).unwrap_or_default();
        let mut dry_run = map(fields.remove("dry_run")).unwrap_or_default();
        Self {
            decision_id: text(&mut fields, "decision_id"),
            reason: text(&mut fields, "reason").and_then(|reason| reason.parse().ok()),
            rule: text(&mut fields, "rule"),
            missing: texts(&mut fields, "missing"),
            explanation: text(&mut fields, "explanation"),
            dry_run: DryRun { decision: text(&mut dry_run, "decision"), rule: text(&mut dry_run, "rule") },
            epoch: number(&mut fields, "epoch"),
            subject: text(&mut fields, "subject"),
            issuer: text(&mut fields, "issuer"),
            client_id: text(&mut fields, "client_id"),
            scopes: texts(&mut fields, "scopes"),
            groups: texts(&mut fields, "groups"),
            claims: claims(map(fields.remove("claims"))),
            token: Token {
                state: text(&mut token, "state"),
                kid: text(&mut token, "kid"),
                alg: text(&mut token, "alg"),
                jti: text(&mut token, "jti"),
                audience: texts(&mut token, "audience"),
                expires_at: number(&mut token, "expires_at"),
                issued_at: number(&mut token, "issued_at"),
            },
        }
    }
}

type Fields = HashMap<String, Value>;

fn map(value: Option<Value>) -> Option<Fields> {
    match value?.kind? {
        Kind::StructValue(inner) => Some(inner.fields),
        _ => None,
    }
}

fn claims(fields: Option<Fields>) -> Vec<(String, String)> {
    let as_text = |value: Value| match value.kind? {
        Kind::StringValue(text) => Some(text),
        Kind::NumberValue(number) => Some(number.to_string()),
        Kind::BoolValue(truth) => Some(truth.to_string()),
        _ => None,
    };
    fields.unwrap_or_default().into_iter().filter_map(|(name, value)| Some((name, as_text(value)?))).collect()
}

fn text(fields: &mut Fields, key: &str) -> Option<String> {
    match fields.remove(key)?.kind? {
        Kind::StringValue(text) if !text.is_empty() => Some(text),
        _ => None,
    }
}

fn texts(fields: &mut Fields, key: &str) -> Vec<String> {
    match fields.remove(key).and_then(|value| value.kind) {
        Some(Kind::ListValue(list)) => list
            .values
            .into_iter()
            .filter_map(|value| match value.kind {
                Some(Kind::StringValue(text)) => Some(text),
                _ => None,
            })
            .collect(),
        _ => Vec::new(),
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the range is checked")]
fn number(fields: &mut Fields, key: &str) -> Option<i64> {
    match fields.remove(key)?.kind? {
        // JSON numbers are exact up to 2^53.
        Kind::NumberValue(number) if number.abs() <= 9_007_199_254_740_992.0 => Some(number as i64),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn explanation_and_dry_run_are_taken() {
        let text = |text: &str| Value { kind: Some(Kind::StringValue(text.into())) };
        let object =
            |fields: HashMap<String, Value>| Value { kind: Some(Kind::StructValue(Struct { fields })) };
        let trial = HashMap::from([
            ("decision".to_owned(), text("deny")),
            ("rule".to_owned(), text("shop/no-night")),
        ]);
        let inner = HashMap::from([
            ("explanation".to_owned(), text("role r: scope needs s, token has none")),
            ("dry_run".to_owned(), object(trial)),
            ("claims".to_owned(), object(HashMap::from([("tier".to_owned(), text("gold"))]))),
        ]);
        let fields = HashMap::from([("tollgate".to_owned(), object(inner))]);
        let verdict = Verdict::take(Some(Struct { fields }));
        assert_eq!(verdict.explanation.as_deref(), Some("role r: scope needs s, token has none"));
        assert_eq!(verdict.claims, [("tier".to_owned(), "gold".to_owned())]);
        assert_eq!(verdict.dry_run.decision.as_deref(), Some("deny"));
        assert_eq!(verdict.dry_run.rule.as_deref(), Some("shop/no-night"));
    }

    #[test]
    fn metadata_of_another_shape_is_nothing() {
        assert_eq!(Verdict::take(None), Verdict::default());
        let value = Value { kind: Some(Kind::StringValue("x".into())) };
        let fields = HashMap::from([("tollgate".to_owned(), value)]);
        assert_eq!(Verdict::take(Some(Struct { fields })), Verdict::default());
    }
}
