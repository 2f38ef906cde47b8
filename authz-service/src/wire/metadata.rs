//! The dynamic metadata of every answer: one key, `tollgate`, with what logs and limits want to know.

use prost::Message as _;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint};
use tollgate_proto::Reason;
use tollgate_proto::envoy_types::pb::google::protobuf::value::Kind;
use tollgate_proto::envoy_types::pb::google::protobuf::{ListValue, Struct, Value};

use uuid::Uuid;

use crate::authorize::{Decided, Presented};
use crate::policy::evaluate::Rule;
use crate::policy::{Snapshot, Verdict};

/// Writes a `google.protobuf.Struct`, leaving out what is absent.
///
/// It is written as bytes at once: as a message it would be some thirty pieces of memory, of which each is looked at
/// several times to learn how long the whole will be.
#[derive(Debug, Default)]
pub(super) struct Fields(Vec<u8>);

/// `Struct.fields`; in an entry of it, the key and the value; and the kinds of a `Value`, by their numbers.
mod number {
    pub(super) const FIELDS: u32 = 1;
    pub(super) const KEY: u32 = 1;
    pub(super) const VALUE: u32 = 2;
    pub(super) const NUMBER: u32 = 2;
    pub(super) const STRING: u32 = 3;
    pub(super) const STRUCT: u32 = 5;
    pub(super) const LIST: u32 = 6;
    /// `ListValue.values`
    pub(super) const VALUES: u32 = 1;
}

/// All fields of one answer, mostly.
const USUAL_BYTES: usize = 1024;

impl Fields {
    pub(super) fn text(&mut self, key: &str, text: &str) {
        self.entry(key, bytes_len(text.len()), |to| bytes(number::STRING, text.as_bytes(), to));
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
        self.entry(key, 1 + size_of::<f64>(), |to| {
            encode_key(number::NUMBER, WireType::SixtyFourBit, to);
            to.extend_from_slice(&(number as f64).to_le_bytes());
        });
    }

    pub(super) fn list<'t>(
        &mut self,
        key: &str,
        texts: impl IntoIterator<Item = &'t (impl AsRef<str> + 't), IntoIter: Clone>,
    ) {
        let texts = texts.into_iter().map(AsRef::as_ref);
        let value_len = |text: &str| bytes_len(text.len());
        let values_len = texts.clone().map(|text| bytes_len(value_len(text))).sum();
        self.entry(key, bytes_len(values_len), |to| {
            head(number::LIST, values_len, to);
            for text in texts {
                head(number::VALUES, value_len(text), to);
                bytes(number::STRING, text.as_bytes(), to);
            }
        });
    }

    /// A claim, whatever it is.
    fn json(&mut self, key: &str, json: &serde_json::Value) {
        let value = of_json(json);
        self.entry(key, value.encoded_len(), |to| value.encode_raw(to));
    }

    fn object(&mut self, key: &str, fields: &Self) {
        self.entry(key, bytes_len(fields.0.len()), |to| bytes(number::STRUCT, &fields.0, to));
    }

    fn entry(&mut self, key: &str, value_len: usize, value: impl FnOnce(&mut Vec<u8>)) {
        head(number::FIELDS, bytes_len(key.len()) + bytes_len(value_len), &mut self.0);
        bytes(number::KEY, key.as_bytes(), &mut self.0);
        head(number::VALUE, value_len, &mut self.0);
        value(&mut self.0);
    }

    /// The struct under the one key, encoded.
    pub(super) fn under_tollgate(self) -> Vec<u8> {
        let mut outer = Self(Vec::with_capacity(self.0.len() + 32));
        outer.object("tollgate", &self);
        outer.0
    }
}

/// How long a field of so many bytes is, with its number (which is below 16) and length.
fn bytes_len(len: usize) -> usize {
    1 + encoded_len_varint(len as u64) + len
}

fn head(number: u32, len: usize, to: &mut Vec<u8>) {
    encode_key(number, WireType::LengthDelimited, to);
    encode_varint(len as u64, to);
}

fn bytes(number: u32, bytes: &[u8], to: &mut Vec<u8>) {
    head(number, bytes.len(), to);
    to.extend_from_slice(bytes);
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
        fields.object("claims", &claims);
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
    let mut fields = Fields(Vec::with_capacity(USUAL_BYTES));
    fields.text("decision_id", decided.id.hyphenated().encode_lower(&mut Uuid::encode_buffer()));
    fields.text("reason", decision.reason.as_str());
    fields.text("decision", verdict(decision.verdict));
    if decision.rule != Rule::Token {
        fields.text("rule", &decided.rule);
    }
    if !decided.missing.is_empty() {
        fields.list("missing", &decided.missing);
    }
    fields.optional("explanation", decided.explanation.as_deref());
    if let Some(reason) = decision.forgiven {
        let mut shadow = Fields::default();
        shadow.text("decision", "deny");
        shadow.text("reason", reason.as_str());
        fields.object("shadow", &shadow);
    }
    if let Some(tried) = &decision.dry_run {
        let mut dry_run = Fields::default();
        dry_run.text("decision", verdict(tried.verdict));
        dry_run.text("reason", tried.reason.as_str());
        dry_run.text("rule", &tried.rule.to_string());
        fields.object("dry_run", &dry_run);
    }
    fields.number("epoch", epoch.cast_signed());
    fields.object("token", &token(presented));
    if let Some(token) = presented.token() {
        fields.text("subject", &token.subject);
        fields.text("issuer", &token.issuer);
        fields.optional("client_id", token.client_id.as_deref());
        fields.list("scopes", &token.scopes);
        fields.list("groups", &token.groups);
    }
    fields
}

/// What is known about a request that is no proper one.
pub(super) fn malformed(epoch: u64, id: &str) -> Vec<u8> {
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
            fields.text("alg", &format!("{algorithm:?}"));
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
        fields.text("detail", &refusal.detail);
    }
    fields
}
