//! Claims that an upstream reads from headers.
//!
//! A header that may say something about the user is ours alone: a client's own of that name never gets through,
//! whether the token has the claim or not.

use std::fmt::Write as _;

use serde_json::Value;

use super::VerifiedToken;
use super::claims::claim;
use crate::policy::spec::ClaimHeaderSpec;

/// Longer values are not written: half of a claim would say something else than the claim.
const MAX_VALUE_BYTES: usize = 4096;

/// Headers that route a request, frame it, or say who somebody is to others than the upstream.
const NOT_OURS: [&str; 12] = [
    "host",
    "authorization",
    "cookie",
    "connection",
    "content-length",
    "content-type",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "x-request-id",
];
const NOT_OURS_BELOW: [&str; 4] = ["x-forwarded-", "x-envoy-", "proxy-", "grpc-"];

/// Which claim stands in which header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimHeader {
    /// The claim, or a path to it.
    pub claim: Box<str>,
    /// The header, in lower case.
    pub header: Box<str>,
}

impl ClaimHeader {
    pub(super) fn from_spec(spec: &ClaimHeaderSpec) -> Result<Self, String> {
        if spec.claim.is_empty() {
            return Err("the name of the claim is empty".to_owned());
        }
        let header = spec.header.to_ascii_lowercase();
        if http_name(&header).is_none() {
            return Err(format!("`{}` is no name of a header", spec.header));
        }
        let reserved =
            NOT_OURS.contains(&&*header) || NOT_OURS_BELOW.iter().any(|prefix| header.starts_with(prefix));
        if reserved {
            return Err(format!("`{header}` means something to HTTP or to proxies; name another one"));
        }
        Ok(Self { claim: spec.claim.as_str().into(), header: header.into() })
    }

    /// The header's value for a token: `None` where the token does not say it, or says what is no value.
    pub fn value(&self, token: &VerifiedToken) -> Option<String> {
        let value = match claim(token.claims.members(), &self.claim)? {
            list @ Value::Array(_) => text(list)?,
            scalar => plain(scalar, false)?,
        };
        (value.len() <= MAX_VALUE_BYTES).then_some(value)
    }
}

/// The text of a claim. In a list, what would end an item is percent-encoded.
pub(super) fn text(value: &Value) -> Option<String> {
    match value {
        Value::Null | Value::Object(_) => None,
        Value::String(text) => Some(text.clone()),
        Value::Bool(_) | Value::Number(_) => Some(value.to_string()),
        Value::Array(items) => {
            let items: Option<Vec<_>> = items.iter().map(|item| plain(item, true)).collect();
            Some(items?.join(","))
        }
    }
}

/// What may name a header (RFC 9110 §5.1).
pub(super) fn http_name(name: &str) -> Option<&str> {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    (!name.is_empty() && name.bytes().all(token)).then_some(name)
}

/// A text without what a header cannot carry: anything but printable ASCII, and what would end an item of a list, is
/// percent-encoded, so that two claims never look the same.
fn plain(value: &Value, in_list: bool) -> Option<String> {
    let text = if value.is_array() { None } else { text(value) }?;
    let (last, mut out) = (text.len().saturating_sub(1), String::with_capacity(text.len()));
    for (index, byte) in text.bytes().enumerate() {
        // Space at the ends does not survive HTTP.
        let at_end = byte == b' ' && (index == 0 || index == last);
        if (byte == b' ' || byte.is_ascii_graphic()) && byte != b'%' && !(in_list && byte == b',') && !at_end
        {
            out.push(char::from(byte));
        } else {
            write!(out, "%{byte:02X}").expect("a String takes everything");
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::token::ClaimSet;

    #[test]
    fn values_are_what_a_header_can_carry() {
        for (value, expected) in [
            (json!("gold"), Some("gold")),
            (json!("a b"), Some("a b")),
            (json!(" a"), Some("%20a")),
            (json!("a\r\nx-admin: 1"), Some("a%0D%0Ax-admin: 1")),
            (json!("Zoë"), Some("Zo%C3%AB")),
            (json!("100%"), Some("100%25")),
            (json!("a,b"), Some("a,b")),
            (json!(["a", "b,c"]), Some("a,b%2Cc")),
            (json!([]), Some("")),
            (json!([1, true]), Some("1,true")),
            (json!([["a"]]), None),
            (json!(7), Some("7")),
            (json!({"a": 1}), None),
            (json!(null), None),
            (json!("x".repeat(5000)), None),
        ] {
            let header = ClaimHeader { claim: "c".into(), header: "x-c".into() };
            let mut token = VerifiedToken::of_subject("demo", "reader");
            token.claims = ClaimSet::from_iter([("c".to_owned(), value.clone())]);
            assert_eq!(header.value(&token).as_deref(), expected, "{value}");
        }
    }

    #[test]
    fn headers_that_mean_something_else_are_refused() {
        let of = |header: &str| {
            ClaimHeader::from_spec(&ClaimHeaderSpec { claim: "sub".into(), header: header.into() })
        };
        assert_eq!(of("X-User").unwrap().header.as_ref(), "x-user");
        for bad in ["", ":path", "Host", "a b", "content-length", "X-Forwarded-For", "grpc-status", "cookie"]
        {
            assert!(of(bad).is_err(), "{bad}");
        }
    }
}
