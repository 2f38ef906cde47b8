//! One spelling for every path.
//!
//! The levels are Istio's (and so Envoy's): each does what the one before does, and more. Two things are
//! stricter here, because they are never honest and break the promise that normalising twice changes nothing: a
//! `%` that two hexadecimal digits do not follow, and raw control bytes or spaces. Both are refused.
//!
//! This file does not look at the query: callers split it off first.

use std::borrow::Cow;

use thiserror::Error;

use crate::spell::{ends_segment, escaped, is_unreserved, push_escaped};

/// How much of a path's spelling is undone before anybody looks at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Level {
    /// Only a fragment is cut off.
    None,
    /// RFC 3986: unreserved characters are decoded, dot segments removed; `\` becomes `/`.
    Base,
    /// [`Level::Base`], then runs of slashes become one.
    MergeSlashes,
    /// `%2F` and `%5C` are decoded first, then as [`Level::MergeSlashes`].
    DecodeAndMerge,
}

/// Why a path has no normal form. Every one of these is the client's mistake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum PathError {
    /// A path starts with a slash. (`*` and the authority form are not paths.)
    #[error("path does not start with a slash")]
    NotAbsolute,
    /// A byte that may not stand in a path unescaped.
    #[error("path has a control character or a space at byte {0}")]
    ControlByte(usize),
    /// `%` without two hexadecimal digits after it.
    #[error("path has a broken percent escape at byte {0}")]
    BrokenEscape(usize),
    /// `%00` ends strings in many upstreams.
    #[error("path has an escaped NUL at byte {0}")]
    EscapedNul(usize),
}

/// The path's normal form at `level`; borrowed when the path already is in it.
///
/// `path` is without its query. Normalising twice gives what normalising once gave.
pub fn normalize(path: &str, level: Level) -> Result<Cow<'_, str>, PathError> {
    let path = path.split_once('#').map_or(path, |(before, _fragment)| before);
    if !path.starts_with('/') {
        return Err(PathError::NotAbsolute);
    }
    if let Some(at) = path.bytes().position(|byte| byte <= b' ' || byte == 0x7f) {
        return Err(PathError::ControlByte(at));
    }
    if level == Level::None || is_plain(path) {
        return Ok(Cow::Borrowed(path));
    }
    let normal = rewrite(path, level)?;
    if normal == path { Ok(Cow::Borrowed(path)) } else { Ok(Cow::Owned(normal)) }
}

/// Whether `path` is its own normal form at `level`.
pub fn is_normal(path: &str, level: Level) -> bool {
    matches!(normalize(path, level), Ok(normal) if normal == path)
}

/// True when no level would change the path, which is true of nearly all paths.
pub(crate) fn is_plain(path: &str) -> bool {
    let mut previous = 0_u8;
    for byte in path.bytes() {
        match byte {
            b'%' | b'\\' | 0x80.. => return false,
            b'/' | b'.' if previous == b'/' => return false,
            _ => previous = byte,
        }
    }
    true
}

/// Decodes and removes dot segments in one pass: a segment is looked at when it is complete, so that `%2e%2e`
/// and `..` are the same segment.
fn rewrite(path: &str, level: Level) -> Result<String, PathError> {
    let decode_slashes = level == Level::DecodeAndMerge;
    let mut out = String::with_capacity(path.len());
    out.push('/');
    let mut segment = out.len();
    let bytes = path.as_bytes();
    let mut at = 1;
    while at < bytes.len() {
        let byte = bytes[at];
        let mut taken = 1;
        match byte {
            b'/' | b'\\' => segment = end_segment(&mut out, segment),
            b'%' => {
                let value = escaped(bytes, at).ok_or(PathError::BrokenEscape(at))?;
                taken = 3;
                match value {
                    0 => return Err(PathError::EscapedNul(at)),
                    b'/' | b'\\' if decode_slashes => segment = end_segment(&mut out, segment),
                    _ if is_unreserved(value) => out.push(char::from(value)),
                    // The digits keep their case, as in Envoy; matching ignores it.
                    _ => out.push_str(&path[at..at + 3]),
                }
            }
            0x80.. => push_escaped(&mut out, byte),
            _ => out.push(char::from(byte)),
        }
        at += taken;
    }
    drop_dot_segment(&mut out, segment);
    if level >= Level::MergeSlashes {
        merge_slashes(&mut out);
    }
    Ok(out)
}

/// A slash was read: the segment that starts at `segment` is complete. Returns where the next one starts.
fn end_segment(out: &mut String, segment: usize) -> usize {
    if !drop_dot_segment(out, segment) {
        out.push('/');
    }
    out.len()
}

/// Removes the last segment if it is `.`, and the one before it too if it is `..`. What is left ends in a slash.
pub(crate) fn drop_dot_segment(out: &mut String, segment: usize) -> bool {
    match &out[segment..] {
        "." => out.truncate(segment),
        ".." => {
            out.truncate(segment - 1);
            let parent = out.rfind(ends_segment).map_or(0, |slash| slash + 1);
            out.truncate(parent);
            if out.is_empty() {
                out.push('/');
            }
        }
        _ => return false,
    }
    true
}

fn merge_slashes(out: &mut String) {
    let mut previous = '\0';
    out.retain(|character| {
        let keep = character != '/' || previous != '/';
        previous = character;
        keep
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(path: &str, level: Level, expected: &str) {
        assert_eq!(normalize(path, level).as_deref(), Ok(expected), "{path} at {level:?}");
    }

    #[test]
    fn dot_segments() {
        for (path, expected) in [
            ("/", "/"),
            ("/.", "/"),
            ("/..", "/"),
            ("/a/.", "/a/"),
            ("/a/..", "/"),
            ("/a/./b", "/a/b"),
            ("/a/b/../c", "/a/c"),
            ("/../../a", "/a"),
            ("/a/%2e%2E/b", "/b"),
            ("/.well-known/x", "/.well-known/x"),
            ("/a/...", "/a/..."),
        ] {
            check(path, Level::Base, expected);
        }
    }

    #[test]
    fn text_beyond_ascii_is_escaped() {
        check("/k\u{e4}se", Level::Base, "/k%C3%A4se");
        check("/k\u{e4}se", Level::None, "/k\u{e4}se");
    }

    #[test]
    fn what_has_no_normal_form() {
        for (path, error) in [
            ("", PathError::NotAbsolute),
            ("*", PathError::NotAbsolute),
            ("/a b", PathError::ControlByte(2)),
            ("/a\n", PathError::ControlByte(2)),
            ("/a%", PathError::BrokenEscape(2)),
            ("/a%2", PathError::BrokenEscape(2)),
            ("/a%zz", PathError::BrokenEscape(2)),
            ("/%%32e", PathError::BrokenEscape(1)),
            ("/a%00", PathError::EscapedNul(2)),
        ] {
            assert_eq!(normalize(path, Level::Base), Err(error), "{path}");
        }
    }

    #[test]
    fn a_normal_path_is_borrowed() {
        for path in ["/", "/policies/17", "/a/b.c/", "/.well-known/x"] {
            assert!(matches!(normalize(path, Level::DecodeAndMerge), Ok(Cow::Borrowed(_))), "{path}");
        }
    }
}
