//! Path templates: `/policies/{id}`, `/files/{**}`.
//!
//! A template is a list of whole segments. `{name}` and `{*}` match one segment that is not empty; `{name:encoded}`
//! matches one too, and takes a slash that was escaped in the request as part of it, whoever decodes it; `{**}` matches
//! one or more segments of any kind, an empty one too, so that `/files/{**}` matches `/files/` but not `/files`
//! (as Istio's templates do). Templates are written in normal form and matched against normalised paths.

use std::borrow::Cow;
use std::fmt;

use thiserror::Error;

use crate::normalize::{Level, is_normal};
use crate::spell::{decoded, ends_segment, folded, upper_escapes};
use crate::upstream::Spelling;

/// The most segments that a template may have.
pub const MAX_SEGMENTS: usize = 32;

/// A parsed template. Two templates are equal when they match the same paths.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Template {
    segments: Vec<Segment>,
}

/// One piece of a template between two slashes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Segment {
    /// Exactly this text, its percent escapes in upper case.
    Literal(Box<str>),
    /// Any one segment that is not empty.
    One,
    /// The same, with escaped slashes in it.
    Encoded,
    /// One or more segments of any kind.
    Rest,
}

/// Why a text is no template. Each says what would be right.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TemplateError {
    /// Templates start with a slash.
    #[error("a path template starts with `/`: `{0}`")]
    NotAbsolute(String),
    /// More than [`MAX_SEGMENTS`].
    #[error("a path template has at most {MAX_SEGMENTS} segments, this one has {0}")]
    TooLong(usize),
    /// `//` within the template would never match a normalised path.
    #[error("path template `{0}` has an empty segment")]
    EmptySegment(String),
    /// A brace or star that is not a whole `{name}`, `{*}` or `{**}`.
    #[error(
        "`{0}` is not a segment: write text, `{{name}}`, `{{name:encoded}}`, `{{*}}` or `{{**}}`, each between two slashes"
    )]
    BadSegment(String),
    /// The same name twice.
    #[error("the name `{0}` stands twice in the template")]
    DuplicateName(String),
    /// Only literal text may follow `{**}`.
    #[error("after `{{**}}` only literal segments may follow in `{0}`")]
    AfterRest(String),
    /// The text is not how a normalised path is spelt, so it would never match.
    #[error("`{0}` is not in normal form: no dot segments, backslashes, queries or needless percent escapes")]
    NotNormal(String),
}

impl Template {
    /// Parses a template.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        let inner = text.strip_prefix('/').ok_or_else(|| TemplateError::NotAbsolute(text.into()))?;
        let count = inner.split('/').count();
        if count > MAX_SEGMENTS {
            return Err(TemplateError::TooLong(count));
        }
        let mut segments = Vec::with_capacity(count);
        let mut names: Vec<&str> = Vec::new();
        for (index, part) in inner.split('/').enumerate() {
            if part.is_empty() && index + 1 < count {
                return Err(TemplateError::EmptySegment(text.into()));
            }
            let segment = parse_segment(part, &mut names)?;
            if !matches!(segment, Segment::Literal(_)) && segments.contains(&Segment::Rest) {
                return Err(TemplateError::AfterRest(text.into()));
            }
            segments.push(segment);
        }
        Ok(Self { segments })
    }

    /// The template that matches exactly `path`.
    pub fn exact(path: &str) -> Result<Self, TemplateError> {
        let template = Self::parse(path)?;
        match template.segments.iter().all(|segment| matches!(segment, Segment::Literal(_))) {
            true => Ok(template),
            false => Err(TemplateError::BadSegment(path.into())),
        }
    }

    /// Templates that together match `path` and everything below it, segment by segment: `/a` and `/a/` match
    /// `/a/b`, and not `/ab`.
    pub fn prefix(path: &str) -> Result<Vec<Self>, TemplateError> {
        let mut whole = Self::exact(path)?;
        if whole.segments.last().is_some_and(|last| *last == Segment::Literal("".into())) {
            whole.segments.pop();
        }
        let mut below = whole.clone();
        below.segments.push(Segment::Rest);
        Ok(if whole.segments.is_empty() { vec![below] } else { vec![whole, below] })
    }

    /// Whether `path`, normalised and without its query, is one of those this template stands for.
    pub fn matches(&self, path: &str) -> bool {
        let Some(mut left) = path.strip_prefix('/').map(Some) else { return false };
        for (index, segment) in self.segments.iter().enumerate() {
            let Some(text) = left else { return false };
            let (head, tail) = split_segment(text);
            let fits = match segment {
                Segment::Literal(literal) => upper_escapes(head) == **literal,
                Segment::One => !head.is_empty(),
                Segment::Encoded => {
                    let (head, tail) = split_plain(text);
                    if head.is_empty() {
                        return false;
                    }
                    left = tail;
                    continue;
                }
                Segment::Rest => return rest_matches(text, &self.segments[index + 1..]),
            };
            if !fits {
                return false;
            }
            left = tail;
        }
        left.is_none()
    }

    /// The template as it is matched against readings of this spelling.
    pub fn spelt(&self, spelling: Spelling) -> Cow<'_, Self> {
        let spelt = |literal: &str| {
            let decoded = if spelling.decoded { decoded(literal) } else { Cow::Borrowed(literal) };
            if spelling.folded { folded(&decoded).into_owned() } else { decoded.into_owned() }
        };
        let changes = |segment: &Segment| matches!(segment, Segment::Literal(text) if spelt(text) != **text);
        if !self.segments.iter().any(changes) {
            return Cow::Borrowed(self);
        }
        let segments = self.segments.iter().map(|segment| match segment {
            Segment::Literal(text) => Segment::Literal(spelt(text).into()),
            other => other.clone(),
        });
        Cow::Owned(Self { segments: segments.collect() })
    }

    pub(crate) fn segments(&self) -> &[Segment] {
        &self.segments
    }
}

/// As it may be written; the names of segments are not kept.
impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for segment in &self.segments {
            match segment {
                Segment::Literal(text) => write!(f, "/{text}")?,
                Segment::One => f.write_str("/{*}")?,
                Segment::Encoded => f.write_str("/{*:encoded}")?,
                Segment::Rest => f.write_str("/{**}")?,
            }
        }
        Ok(())
    }
}

impl std::str::FromStr for Template {
    type Err = TemplateError;

    fn from_str(text: &str) -> Result<Self, TemplateError> {
        Self::parse(text)
    }
}

fn parse_segment<'t>(part: &'t str, names: &mut Vec<&'t str>) -> Result<Segment, TemplateError> {
    let bad = || TemplateError::BadSegment(part.into());
    match part.strip_prefix('{').and_then(|inner| inner.strip_suffix('}')) {
        Some("*") => Ok(Segment::One),
        Some("**") => Ok(Segment::Rest),
        Some("*:encoded") => Ok(Segment::Encoded),
        Some(name) => {
            let (name, segment) = match name.strip_suffix(":encoded") {
                Some(name) => (name, Segment::Encoded),
                None => (name, Segment::One),
            };
            let starts_well = name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_');
            if !starts_well || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
                return Err(bad());
            }
            if names.contains(&name) {
                return Err(TemplateError::DuplicateName(name.into()));
            }
            names.push(name);
            Ok(segment)
        }
        None if part.contains(['{', '}', '*']) => Err(bad()),
        None if part.contains(['?', '#']) || !is_normal(&format!("/{part}"), Level::DecodeAndMerge) => {
            Err(TemplateError::NotNormal(part.into()))
        }
        None => Ok(Segment::Literal(upper_escapes(part).into())),
    }
}

/// Splits at the first slash: the segment, and what comes after the slash if there is one.
pub(crate) fn split_segment(text: &str) -> (&str, Option<&str>) {
    // Both kinds of slash are one byte, so this never cuts a character.
    match text.bytes().position(|byte| ends_segment(char::from(byte))) {
        Some(at) => (&text[..at], Some(&text[at + 1..])),
        None => (text, None),
    }
}

/// Splits at the first slash that was not escaped.
pub(crate) fn split_plain(text: &str) -> (&str, Option<&str>) {
    match text.split_once('/') {
        Some((head, tail)) => (head, Some(tail)),
        None => (text, None),
    }
}

/// Whether `text` is one or more segments followed by exactly the literals `after`.
pub(crate) fn rest_matches(text: &str, after: &[Segment]) -> bool {
    let mut left = text;
    for segment in after.iter().rev() {
        let Segment::Literal(literal) = segment else { return false };
        let Some((before, last)) = left.rsplit_once(ends_segment) else { return false };
        if upper_escapes(last) != **literal {
            return false;
        }
        left = before;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(template: &str, path: &str, expected: bool) {
        let parsed = Template::parse(template).unwrap();
        assert_eq!(parsed.matches(path), expected, "{template} on {path}");
    }

    #[test]
    fn matching() {
        check("/", "/", true);
        check("/", "", false);
        check("/policies", "/policies", true);
        check("/policies", "/policies/", false);
        check("/policies/", "/policies/", true);
        check("/policies/{id}", "/policies/17", true);
        check("/policies/{id}", "/policies/", false);
        check("/policies/{id}", "/policies/17/claims", false);
        check("/policies/{id}/claims/{claim}", "/policies/17/claims/4", true);
        check("/{*}", "/a", true);
        check("/{**}", "/", true);
        check("/{**}", "/a/b/c", true);
        check("/files/{**}", "/files", false);
        check("/files/{**}", "/files/", true);
        check("/files/{**}/meta/v1", "/files/a/b/meta/v1", true);
        check("/files/{**}/meta/v1", "/files/meta/v1", false);
        check("/projects/{id:encoded}/issues", "/projects/a%2Fb/issues", true);
        check("/projects/{id:encoded}/issues", "/projects/a\u{1}b/issues", true);
        check("/projects/{id:encoded}/issues", "/projects/a/b/issues", false);
        check("/projects/{id:encoded}/issues", "/projects//issues", false);
        check("/projects/{id}/issues", "/projects/a\u{1}b/issues", false);
        check("/projects/{a}/{b}", "/projects/a\u{1}b", true);
        check("/projects/{**}/x", "/projects/a\u{1}x", true);
        check("/{*:encoded}", "/a\u{1}b", true);
        check("/a%3Ab", "/a%3ab", true);
        check("/a%3ab", "/a%3Ab", true);
        check("/Ab", "/ab", false);
    }

    #[test]
    fn exact_paths_and_prefixes() {
        let exact = Template::exact("/a/b").unwrap();
        assert!(exact.matches("/a/b") && !exact.matches("/a/b/"));
        assert!(Template::exact("/a/{b}").is_err());
        for (prefix, path, expected) in [
            ("/", "/", true),
            ("/", "/a/b", true),
            ("/a", "/a", true),
            ("/a", "/a/", true),
            ("/a", "/a/b", true),
            ("/a/", "/a", true),
            ("/a", "/ab", false),
        ] {
            let templates = Template::prefix(prefix).unwrap();
            assert_eq!(templates.iter().any(|one| one.matches(path)), expected, "{prefix} on {path}");
        }
    }

    #[test]
    fn texts_that_are_no_template() {
        use TemplateError as E;
        let long = "/a".repeat(MAX_SEGMENTS + 1);
        for (text, error) in [
            ("policies", E::NotAbsolute("policies".into())),
            ("", E::NotAbsolute(String::new())),
            ("/a//b", E::EmptySegment("/a//b".into())),
            ("/x{id}", E::BadSegment("x{id}".into())),
            ("/{}", E::BadSegment("{}".into())),
            ("/{1d}", E::BadSegment("{1d}".into())),
            ("/*", E::BadSegment("*".into())),
            ("/{a}/{a}", E::DuplicateName("a".into())),
            ("/{a:encoded}/{a}", E::DuplicateName("a".into())),
            ("/{a:decoded}", E::BadSegment("{a:decoded}".into())),
            ("/{**:encoded}", E::BadSegment("{**:encoded}".into())),
            ("/{**}/{a}", E::AfterRest("/{**}/{a}".into())),
            ("/a/../b", E::NotNormal("..".into())),
            ("/a%41", E::NotNormal("a%41".into())),
            ("/a?b", E::NotNormal("a?b".into())),
            (&long, E::TooLong(MAX_SEGMENTS + 1)),
        ] {
            assert_eq!(Template::parse(text), Err(error), "{text}");
        }
    }
}
