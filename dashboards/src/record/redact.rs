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
            if URLS.contains(&pair.key.as_str())
                && let Some(any_value::Value::StringValue(url)) = &mut value.value
            {
                mask_query(url, pair.key == "url.query");
            }
            redact_value(value, depth);
        }
    }
}

/// Attributes that hold a URL or a part of one, under our names and Envoy's.
const URLS: &[&str] = &[
    "url.full",
    "url.query",
    "url.path",
    "url.original",
    "http.url",
    "http.target",
    "path",
    "request_path",
    "original_path",
    "x_envoy_original_path",
    "referer",
    "http.request.header.referer",
];

/// Replaces the values of a query. Their names stay, they say what was asked for.
fn mask_query(url: &mut String, is_query: bool) {
    let start = if is_query { Some(0) } else { url.find(['?', '#']) };
    let Some((before, query)) = start.and_then(|at| url.split_at_checked(at)) else { return };
    let masked: String = query
        .split_inclusive(['&', ';', '#'])
        .map(|pair| {
            let end = pair.trim_end_matches(['&', ';', '#']);
            match end.split_once('=') {
                Some((name, value)) if !value.is_empty() => {
                    format!("{name}={REDACTED}{}", &pair[end.len()..])
                }
                _ => pair.to_owned(),
            }
        })
        .collect();
    *url = format!("{before}{masked}");
}

/// Replaces credentials in free text.
pub(crate) fn redact_text(text: &mut String) {
    if let Some(clean) = without_bearer(text) {
        *text = clean;
    }
}

/// Replaces credentials in the body of a log record.
pub(crate) fn redact_body(body: &mut AnyValue) {
    redact_value(body, 0);
}

/// Replaces credentials within one value, also where it stands in free text.
fn redact_value(value: &mut AnyValue, depth: usize) {
    if depth > MAX_DEPTH {
        value.value = None;
        return;
    }
    match &mut value.value {
        Some(any_value::Value::StringValue(text)) => redact_text(text),
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
    let suspicious = memchr::memmem::find(text.as_bytes(), b"earer").is_some()
        || memchr::memmem::find(text.as_bytes(), b"asic").is_some()
        || memchr::memmem::find(text.as_bytes(), b"eyJ").is_some();
    if !suspicious {
        return None;
    }
    let mut changed = false;
    let mut after_scheme = false;
    let words: Vec<&str> = text
        .split_inclusive(|c: char| c.is_ascii_whitespace())
        .flat_map(|piece| {
            let word = piece.trim_end_matches(|c: char| c.is_ascii_whitespace());
            let gap = &piece[word.len()..];
            if word.is_empty() {
                return [word, gap];
            }
            let jwt = word.find("eyJ").is_some_and(|at| word[at..].matches('.').count() >= 2);
            let secret = jwt || (after_scheme && word.len() >= 8 && !word.contains('='));
            after_scheme = ["bearer", "basic"].iter().any(|scheme| {
                let tail = word.len().checked_sub(scheme.len()).and_then(|at| word.get(at..));
                tail.is_some_and(|tail| tail.eq_ignore_ascii_case(scheme))
            });
            changed |= secret;
            [if secret { REDACTED } else { word }, gap]
        })
        .collect();
    changed.then(|| words.concat())
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
        check("note", "Bearer\tabcdefghijkl", "Bearer\t[redacted]");
        check("note", "Bearer  abcdefghijkl\nx", "Bearer  [redacted]\nx");
        check("url.full", "https://x/y?access_token=s&b=#c", "https://x/y?access_token=[redacted]&b=#c");
        check("url.query", "access_token=s&page=2", "access_token=[redacted]&page=[redacted]");
        check("path", "/y?access_token=s", "/y?access_token=[redacted]");
        check("note", "Basic training is fun", "Basic [redacted] is fun");
    }

    #[test]
    fn what_is_too_deep_to_search_is_not_kept() {
        let mut value = text("Bearer abcdefghijkl");
        for _ in 0..=MAX_DEPTH {
            let list =
                tollgate_proto::opentelemetry_proto::tonic::common::v1::ArrayValue { values: vec![value] };
            value = AnyValue { value: Some(any_value::Value::ArrayValue(list)) };
        }
        redact_body(&mut value);
        assert!(!format!("{value:?}").contains("Bearer"));
    }
}
