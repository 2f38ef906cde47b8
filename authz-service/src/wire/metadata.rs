//! The dynamic metadata of every answer: one key, `tollgate`, with what logs and limits want to know.

use std::collections::HashMap;

use tollgate_proto::Reason;
use tollgate_proto::envoy_types::pb::google::protobuf::value::Kind;
use tollgate_proto::envoy_types::pb::google::protobuf::{ListValue, Struct, Value};

use crate::authorize::{Decided, Presented};
use crate::policy::evaluate::Rule;
use crate::policy::{Snapshot, Verdict};

/// Fills a struct, leaving out what is absent.
#[derive(Debug, Default)]
pub(super) struct Fields(HashMap<String, Value>);

impl Fields {
    pub(super) fn text(&mut self, key: &str, text: impl Into<String>) {
        self.0.insert(key.to_owned(), value(Kind::StringValue(text.into())));
    }

    pub(super) fn optional(&mut self, key: &str, text: Option<&str>) {
        if let Some(text) = text {
            self.text(key, text);
        }
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "protobuf's Struct has no other number; ours stay below 2^53"
    )]
    pub(super) fn number(&mut self, key: &str, number: i64) {
        self.0.insert(key.to_owned(), value(Kind::NumberValue(number as f64)));
    }

    pub(super) fn list<'t>(&mut self, key: &str, texts: impl IntoIterator<Item = &'t String>) {
        let values = texts.into_iter().map(|text| value(Kind::StringValue(text.clone()))).collect();
        self.0.insert(key.to_owned(), value(Kind::ListValue(ListValue { values })));
    }

    /// A claim, whatever it is.
    fn json(&mut self, key: &str, json: &serde_json::Value) {
        self.0.insert(key.to_owned(), of_json(json));
    }

    fn object(&mut self, key: &str, fields: Self) {
        self.0.insert(key.to_owned(), value(Kind::StructValue(Struct { fields: fields.0 })));
    }

    /// The struct under the one key.
    pub(super) fn under_tollgate(self) -> Struct {
        let mut outer = Self::default();
        outer.object("tollgate", self);
        Struct { fields: outer.0 }
    }
}

fn value(kind: Kind) -> Value {
    Value { kind: Some(kind) }
}

fn of_json(json: &serde_json::Value) -> Value {
    use serde_json::Value as Json;

    value(match json {
        Json::Null => Kind::NullValue(0),
        Json::Bool(flag) => Kind::BoolValue(*flag),
        // A number that is no double is kept as the text it was, since half of an id is another id.
        Json::Number(number) => match number.as_f64().filter(|float| float.abs() < 9e15) {
            Some(float) => Kind::NumberValue(float),
            None => Kind::StringValue(number.to_string()),
        },
        Json::String(text) => Kind::StringValue(text.clone()),
        Json::Array(items) => Kind::ListValue(ListValue { values: items.iter().map(of_json).collect() }),
        Json::Object(members) => Kind::StructValue(Struct {
            fields: members.iter().map(|(key, item)| (key.clone(), of_json(item))).collect(),
        }),
    })
}

/// The claims that an issuer has for limits and logs, by the names that the policy has for them.
pub(super) fn claims(fields: &mut Fields, snapshot: &Snapshot, presented: &Presented) {
    let Presented::Verified(token) = presented else { return };
    let Some(trusted) = snapshot.issuer(&token.issuer_url) else { return };
    let mut claims = Fields::default();
    for name in &trusted.issuer.metadata_claims {
        if let Some(claim) = token.claim(name) {
            claims.json(name, claim);
        }
    }
    if !claims.0.is_empty() {
        fields.object("claims", claims);
    }
}

const fn verdict(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Allow => "allow",
        Verdict::Deny => "deny",
    }
}

/// All that is known about a decision.
pub(super) fn of_decision(decided: &Decided<'_>, presented: &Presented, epoch: u64) -> Fields {
    let decision = &decided.decision;
    let mut fields = Fields::default();
    fields.text("decision_id", decided.id.to_string());
    fields.text("reason", decision.reason.as_str());
    fields.text("decision", verdict(decision.verdict));
    if decision.rule != Rule::Token {
        fields.text("rule", decided.rule.clone());
    }
    if !decided.missing.is_empty() {
        fields.list("missing", &decided.missing);
    }
    fields.optional("explanation", decided.explanation.as_deref());
    if let Some(reason) = decision.forgiven {
        let mut shadow = Fields::default();
        shadow.text("decision", "deny");
        shadow.text("reason", reason.as_str());
        fields.object("shadow", shadow);
    }
    if let Some(tried) = &decision.dry_run {
        let mut dry_run = Fields::default();
        dry_run.text("decision", verdict(tried.verdict));
        dry_run.text("reason", tried.reason.as_str());
        dry_run.text("rule", tried.rule.to_string());
        fields.object("dry_run", dry_run);
    }
    fields.number("epoch", epoch.cast_signed());
    fields.object("token", token(presented));
    if let Some(token) = presented.token() {
        fields.text("subject", token.subject.clone());
        fields.text("issuer", &*token.issuer);
        fields.optional("client_id", token.client_id.as_deref());
        fields.list("scopes", &token.scopes);
        fields.list("groups", &token.groups);
    }
    fields
}

/// What is known about a request that is no proper one.
pub(super) fn malformed(epoch: u64, id: &str) -> Struct {
    let mut fields = Fields::default();
    fields.text("decision_id", id);
    fields.text("decision", "deny");
    fields.text("reason", Reason::RequestMalformed.as_str());
    fields.number("epoch", epoch.cast_signed());
    fields.under_tollgate()
}

fn token(presented: &Presented) -> Fields {
    let mut fields = Fields::default();
    fields.text("state", presented.state());
    if let Some(token) = presented.token() {
        fields.optional("kid", token.kid.as_deref());
        if let Some(algorithm) = token.algorithm {
            fields.text("alg", format!("{algorithm:?}"));
        }
        fields.optional("jti", token.jti.as_deref());
        fields.list("audience", &token.audience);
        fields.number("expires_at", token.expires_at);
        if let Some(issued_at) = token.issued_at {
            fields.number("issued_at", issued_at);
        }
    }
    if let Presented::Refused(refusal) = presented {
        fields.text("check", refusal.check.code());
        fields.text("detail", refusal.detail.clone());
    }
    fields
}
