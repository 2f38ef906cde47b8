//! What must not be kept: credentials, under whatever name a proxy was configured to log them.
//!
//! Runs on the message itself, before the write-ahead log, so that no file ever holds them.

use tollgate_proto::opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};

/// What stands in their place.
const REDACTED: &str = "[redacted]";
/// How deep lists and maps are searched; what lies deeper is dropped when it is written as JSON.
const MAX_DEPTH: usize = 18;
/// A header's or attribute's last part that names a credential.
const SECRET_NAMES: &[&str] = &[
    "authorization",
    "proxy-authorization",
    "cookie",
    "set-cookie",
    "x-api-key",
    "api-key",
    "apikey",
    "password",
    "secret",
    "client-secret",
    "access-token",
    "id-token",
    "refresh-token",
    "x-auth-token",
    "x-amz-security-token",
    "token",
];

/// Replaces credentials among attributes.
pub(crate) fn redact(attributes: &mut [KeyValue]) {
    redact_pairs(attributes, 0);
}

fn redact_pairs(attributes: &mut [KeyValue], depth: usize) {
    for pair in attributes {
        if names_a_secret(&pair.key) {
            if pair.value.is_some() {
                pair.value =
                    Some(AnyValue { value: Some(any_value::Value::StringValue(REDACTED.to_owned())) });
            }
        } else if let Some(value) = &mut pair.value {
            redact_value(value, depth);
        }
    }
}

/// Replaces credentials in the body of a log record.
pub(crate) fn redact_body(body: &mut AnyValue) {
    redact_value(body, 0);
}

/// Replaces credentials within one value, also where it stands in free text.
fn redact_value(value: &mut AnyValue, depth: usize) {
    if depth > MAX_DEPTH {
        return;
    }
    match &mut value.value {
        Some(any_value::Value::StringValue(text)) => {
            if let Some(clean) = without_bearer(text) {
                *text = clean;
            }
        }
        Some(any_value::Value::KvlistValue(map)) => redact_pairs(&mut map.values, depth + 1),
        Some(any_value::Value::ArrayValue(list)) => {
            list.values.iter_mut().for_each(|inner| redact_value(inner, depth + 1));
        }
        _ => {}
    }
}

fn names_a_secret(key: &str) -> bool {
    let last = key.rsplit('.').next().unwrap_or(key);
    let same = |a: u8, b: u8| a.eq_ignore_ascii_case(&b) || (a == b'_' && b == b'-');
    SECRET_NAMES
        .iter()
        .any(|name| name.len() == last.len() && last.bytes().zip(name.bytes()).all(|(a, b)| same(a, b)))
}

/// `Bearer x`, `Basic x` and bare JWTs inside a line.
fn without_bearer(text: &str) -> Option<String> {
    let suspicious = memchr::memmem::find(text.as_bytes(), b"earer ").is_some()
        || memchr::memmem::find(text.as_bytes(), b"asic ").is_some()
        || memchr::memmem::find(text.as_bytes(), b"eyJ").is_some();
    if !suspicious {
        return None;
    }
    let mut changed = false;
    let mut after_scheme = false;
    let words: Vec<&str> = text
        .split(' ')
        .map(|word| {
            let jwt = word.find("eyJ").is_some_and(|at| word[at..].matches('.').count() >= 2);
            let secret = jwt || (after_scheme && word.len() >= 8 && !word.contains('='));
            after_scheme = ["bearer", "basic"].iter().any(|scheme| {
                let tail = word.len().checked_sub(scheme.len()).and_then(|at| word.get(at..));
                tail.is_some_and(|tail| tail.eq_ignore_ascii_case(scheme))
            });
            changed |= secret;
            if secret { REDACTED } else { word }
        })
        .collect();
    changed.then(|| words.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> AnyValue {
        AnyValue { value: Some(any_value::Value::StringValue(text.to_owned())) }
    }

    fn check(key: &str, value: &str, expected: &str) {
        let mut pairs =
            vec![KeyValue { key: key.to_owned(), value: Some(text(value)), ..Default::default() }];
        redact(&mut pairs);
        assert_eq!(pairs[0].value, Some(text(expected)), "{key}");
    }

    #[test]
    fn credentials_do_not_pass_the_door() {
        check("authorization", "Bearer abc", REDACTED);
        check("http.request.header.Authorization", "x", REDACTED);
        check("http.response.header.set_cookie", "x", REDACTED);
        check("cookie", "a=b", REDACTED);
        check("X-Api-Key", "x", REDACTED);
        check(
            "note",
            "sent Bearer abcdefghijkl to upstream",
            "sent [redacted] to upstream".replace("sent", "sent Bearer").as_str(),
        );
        check("note", "token eyJhbGciOi.eyJzdWIi.c2ln seen", "token [redacted] seen");
        // Ours, which say something about a token without being one.
        check("tollgate.token.state", "valid", "valid");
        check("tollgate.token.jti", "j-1", "j-1");
        check("http.route", "/tokens/{id}", "/tokens/{id}");
        check("note", "Basic training is fun", "Basic [redacted] is fun");
    }
}
