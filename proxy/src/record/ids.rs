//! Request ids: minted at the ingress, kept behind it.

use bytes::Bytes;
use http::HeaderValue;

/// The longest id that is kept.
const MAX_ID: usize = 128;

/// A request's id. Letters, digits, `-`, `_`, `.` and `:` only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RequestId(HeaderValue);

impl RequestId {
    /// A new UUIDv7.
    pub(crate) fn mint(unix_nanos: u64) -> Self {
        let id =
            uuid::Builder::from_unix_timestamp_millis(unix_nanos / 1_000_000, &rand::random()).into_uuid();
        let mut text = [0; uuid::fmt::Hyphenated::LENGTH];
        id.hyphenated().encode_lower(&mut text);
        let value = HeaderValue::from_maybe_shared(Bytes::copy_from_slice(&text));
        Self(value.expect("a UUID is letters, digits and dashes"))
    }

    /// The id that the proxy before us minted, if it looks like one.
    pub(crate) fn kept(value: &HeaderValue) -> Option<Self> {
        let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b':');
        let good = !value.is_empty() && value.len() <= MAX_ID && value.as_bytes().iter().all(allowed);
        good.then(|| Self(value.clone()))
    }

    /// As text.
    pub(crate) fn as_str(&self) -> &str {
        self.0.to_str().unwrap_or_default()
    }

    /// As a header's value.
    pub(crate) fn value(&self) -> HeaderValue {
        self.0.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn minted_ids_are_uuids_of_version_7_in_order() {
        let (first, second) =
            (RequestId::mint(1_700_000_000_000_000_000), RequestId::mint(1_700_000_001_000_000_000));
        assert_eq!(uuid::Uuid::parse_str(first.as_str()).unwrap().get_version_num(), 7);
        assert!(first.as_str() < second.as_str());
    }

    #[test]
    fn ids_that_are_kept() {
        let long = "a".repeat(MAX_ID + 1);
        for (text, kept) in
            [("0192-ab", true), ("", false), ("a\"b", false), ("a b", false), (long.as_str(), false)]
        {
            assert_eq!(RequestId::kept(&HeaderValue::try_from(text).unwrap()).is_some(), kept, "{text}");
        }
    }
}
