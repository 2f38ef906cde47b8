//! Spelling of single characters: what may stand in a segment as itself, and what only escaped.

use std::borrow::Cow;

/// Stands in a reading for a slash that was escaped in the request. It can come from nowhere else, since control
/// bytes in a path are refused.
pub(crate) const ESCAPED_SLASH: char = '\u{1}';

/// Whether `character` ends a segment.
pub(crate) const fn ends_segment(character: char) -> bool {
    matches!(character, '/' | ESCAPED_SLASH)
}

/// The value of the escape at `at`, if there is a whole one.
pub(crate) fn escaped(bytes: &[u8], at: usize) -> Option<u8> {
    let high = hex(*bytes.get(at + 1)?)?;
    let low = hex(*bytes.get(at + 2)?)?;
    Some(high << 4 | low)
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

/// Writes a byte as an escape.
pub(crate) fn push_escaped(out: &mut String, byte: u8) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    out.push('%');
    out.push(char::from(DIGITS[usize::from(byte >> 4)]));
    out.push(char::from(DIGITS[usize::from(byte & 0xf)]));
}

/// What means the same with and without an escape (RFC 3986 §2.3).
pub(crate) const fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// What may stand in a segment unescaped (RFC 3986 §3.3).
pub(crate) const fn is_segment_character(byte: u8) -> bool {
    is_unreserved(byte)
        || matches!(
            byte,
            b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=' | b':' | b'@'
        )
}

/// A segment with its percent escapes in upper case: RFC 3986 says that `%3a` and `%3A` are the same, and normal form
/// leaves them as they came.
pub(crate) fn upper_escapes(segment: &str) -> Cow<'_, str> {
    let bytes = segment.as_bytes();
    let lower = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_lowercase);
    if !segment.match_indices('%').any(|(at, _)| lower(at + 1) || lower(at + 2)) {
        return Cow::Borrowed(segment);
    }
    let mut upper = 0_usize;
    let mapped = segment.chars().map(|character| {
        upper = if character == '%' { 3 } else { upper };
        let mapped = if upper > 0 { character.to_ascii_uppercase() } else { character };
        upper = upper.saturating_sub(1);
        mapped
    });
    Cow::Owned(mapped.collect())
}

/// A segment as an upstream that decodes reads it: what may stand there as itself does, all else is escaped.
pub(crate) fn decoded(segment: &str) -> Cow<'_, str> {
    if segment.bytes().all(is_segment_character) {
        return Cow::Borrowed(segment);
    }
    let bytes = segment.as_bytes();
    let mut out = String::with_capacity(segment.len());
    let mut at = 0;
    while at < bytes.len() {
        let (value, taken) = match (bytes[at], escaped(bytes, at)) {
            (b'%', Some(value)) => (value, 3),
            (byte, _) => (byte, 1),
        };
        if is_segment_character(value) {
            out.push(char::from(value));
        } else {
            push_escaped(&mut out, value);
        }
        at += taken;
    }
    Cow::Owned(out)
}

/// A path without its capitals, beyond ASCII too: `/K%C3%84SE` and `/k%C3%A4se` are one.
pub(crate) fn folded(path: &str) -> Cow<'_, str> {
    let has_capitals = path.bytes().any(|byte| byte.is_ascii_uppercase());
    if !has_capitals && !path.contains('%') {
        return Cow::Borrowed(path);
    }
    let bytes = path.as_bytes();
    let mut out = String::with_capacity(path.len());
    let mut at = 0;
    while at < bytes.len() {
        // A run of escapes beyond ASCII is a text, if it is UTF-8.
        let mut text = Vec::new();
        let mut end = at;
        while let Some(value) = (bytes.get(end) == Some(&b'%')).then(|| escaped(bytes, end)).flatten()
            && !value.is_ascii()
        {
            text.push(value);
            end += 3;
        }
        match std::str::from_utf8(&text) {
            Ok("") if bytes[at] == b'%' => {
                let whole = at + 3.min(bytes.len() - at);
                out.push_str(&upper_escapes(&path[at..whole]));
                at = whole;
            }
            Ok("") => {
                out.push(char::from(bytes[at].to_ascii_lowercase()));
                at += 1;
            }
            Ok(text) => {
                text.to_lowercase().bytes().for_each(|byte| push_escaped(&mut out, byte));
                at = end;
            }
            Err(_) => {
                text.iter().for_each(|byte| push_escaped(&mut out, *byte));
                at = end;
            }
        }
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_as_they_are_decoded() {
        for (segment, expected) in [
            ("plain-1", "plain-1"),
            ("a%3Ab", "a:b"),
            ("a:b", "a:b"),
            ("%41%7e", "A~"),
            ("a%7cb", "a%7Cb"),
            ("a|b", "a%7Cb"),
            ("a%20b", "a%20b"),
            ("a%2fb", "a%2Fb"),
            ("100%25", "100%25"),
            ("%c3%a4", "%C3%A4"),
        ] {
            assert_eq!(decoded(segment), expected, "{segment}");
        }
    }

    #[test]
    fn case_is_folded_beyond_ascii() {
        for (path, expected) in [
            ("/a/b", "/a/b"),
            ("/A/b", "/a/b"),
            ("/K%C3%84SE", "/k%C3%A4se"),
            ("/k%c3%a4se", "/k%C3%A4se"),
            ("/X%2f%FF", "/x%2F%FF"),
            ("/%", "/%"),
        ] {
            assert_eq!(folded(path), expected, "{path}");
        }
    }
}
