//! Claims that an upstream reads from query parameters.
//!
//! As with headers, a parameter that may say something about the user is ours alone: a client's own of that name never
//! gets through, however it is spelt.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use super::VerifiedToken;
use super::claim_header::{self, http_name};
use super::claims::claim;
use crate::policy::spec::ClaimParameterSpec;

/// Longer values are not written: half of a claim would say something else than the claim.
const MAX_VALUE_BYTES: usize = 4096;
/// All but what means itself everywhere in a query (RFC 3986 §2.3). Envoy does not encode what we say.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Which claim stands in which parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimParameter {
    /// The claim, or a path to it.
    pub claim: Box<str>,
    /// The parameter.
    pub parameter: Box<str>,
}

impl ClaimParameter {
    pub(super) fn from_spec(spec: &ClaimParameterSpec) -> Result<Self, String> {
        if spec.claim.is_empty() {
            return Err("the name of the claim is empty".to_owned());
        }
        let name = parameter_name(&spec.parameter)
            .ok_or_else(|| format!("`{}` is no name of a query parameter", spec.parameter))?;
        Ok(Self { claim: spec.claim.as_str().into(), parameter: name.into() })
    }

    /// The value as it stands in a query: `None` where the token does not say it, or says what is no value. Decoded
    /// it is the text of the claim; a list is joined as in a header.
    pub fn value(&self, token: &VerifiedToken) -> Option<String> {
        let text = claim_header::text(claim(token.claims.members(), &self.claim)?)?;
        let value = utf8_percent_encode(&text, ENCODED).to_string();
        (value.len() <= MAX_VALUE_BYTES).then_some(value)
    }

    /// Whether an upstream may read a pair of a query as this parameter: it decodes names, and some take `;` for `&`.
    pub fn is_said_by(&self, pair: &str) -> bool {
        let name = |part: &str| part.split_once('=').map_or(part.len(), |(name, _)| name.len());
        pair.split(';').any(|part| percent_decode_str(&part[..name(part)]).eq(self.parameter.bytes()))
    }
}

/// Only such names mean the same before and after escapes are decoded.
pub(super) fn parameter_name(name: &str) -> Option<&str> {
    http_name(name).filter(|name| !name.contains(['%', '+', '&', '#']))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::token::ClaimSet;

    #[test]
    fn values_are_encoded_once() {
        for (value, expected) in [
            (json!("gold"), Some("gold")),
            (json!("a b&c=d"), Some("a%20b%26c%3Dd")),
            (json!("Zoë"), Some("Zo%C3%AB")),
            (json!("100%"), Some("100%25")),
            (json!(7), Some("7")),
            (json!(["a", "b,c"]), Some("a%2Cb%252Cc")),
            (json!({"a": 1}), None),
            (json!("x".repeat(5000)), None),
        ] {
            let parameter = ClaimParameter { claim: "c".into(), parameter: "p".into() };
            let mut token = VerifiedToken::of_subject("demo", "reader");
            token.claims = ClaimSet::from_iter([("c".to_owned(), value.clone())]);
            assert_eq!(parameter.value(&token).as_deref(), expected, "{value}");
        }
    }

    #[test]
    fn a_parameter_is_known_however_it_is_spelt() {
        let tier = ClaimParameter { claim: "c".into(), parameter: "tier".into() };
        for (pair, is_said) in [
            ("tier=gold", true),
            ("tier", true),
            ("%74ier=gold", true),
            ("a=b;tier=gold", true),
            ("tiers=gold", false),
            ("a=tier", false),
            ("", false),
        ] {
            assert_eq!(tier.is_said_by(pair), is_said, "{pair}");
        }
    }

    #[test]
    fn names_that_mean_several_things_are_refused() {
        for bad in ["", "a b", "a%62", "a+b", "a&b", "a=b", "a;b"] {
            let spec = ClaimParameterSpec { claim: "sub".into(), parameter: bad.into() };
            assert!(ClaimParameter::from_spec(&spec).is_err(), "{bad}");
        }
    }
}
