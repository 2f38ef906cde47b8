//! Every way in which an upstream may read a path.
//!
//! Nearly always there is one, and then nothing is copied. Where a path has escapes, parameters, backslashes, dot
//! segments or runs of slashes, what it means depends on what is done to it, and in which order:
//!
//! ```text
//! (cut parameters) → decode (slashes too, or not) → (cut parameters) → dots, then merge · merge, then dots · dots
//! ```
//!
//! Each allowed combination is a reading. Whoever grants must grant on all of them.

use std::borrow::Cow;

use smallvec::SmallVec;
use thiserror::Error;

use crate::normalize::{PathError, drop_dot_segment, is_plain, normalize};
use crate::spell::{
    ESCAPED_SLASH, ends_segment, escaped, folded, is_segment_character, push_escaped, upper_escapes,
};
use crate::{Level, Upstream};

/// A path with more readings than these is nobody's honest path.
pub const MAX_READINGS: usize = 16;

/// The readings of one path, the most normalised first. They are to be matched against templates; a slash that
/// was escaped in the request is marked in them, for `{id:encoded}`.
pub type Readings<'p> = SmallVec<[Cow<'p, str>; 2]>;

/// More than [`MAX_READINGS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the path can be read in more than {MAX_READINGS} ways")]
pub struct TooManyReadings;

/// A path as it was sent, without its query, found sound.
#[derive(Debug, Clone, Copy)]
pub struct SentPath<'p> {
    text: &'p str,
    /// Whether every upstream reads it as it stands.
    plain: bool,
}

impl<'p> SentPath<'p> {
    /// Looks a path over. It may have a fragment, which nobody reads.
    pub fn parse(path: &'p str) -> Result<Self, PathError> {
        let text = path.split_once('#').map_or(path, |(before, _fragment)| before);
        // Whatever has no normal form has no meaning that could be judged.
        normalize(text, Level::DecodeAndMerge)?;
        let spelt_plainly = |byte| byte == b'/' || byte != b';' && is_segment_character(byte);
        Ok(Self { text, plain: is_plain(text) && text.bytes().all(spelt_plainly) })
    }

    /// As it was sent.
    pub fn as_str(&self) -> &'p str {
        self.text
    }

    /// All readings that `upstream` may make of it.
    pub fn readings(&self, upstream: Upstream) -> Result<Readings<'p>, TooManyReadings> {
        if self.plain {
            let text = if upstream.fold_case { folded(self.text) } else { Cow::Borrowed(self.text) };
            return Ok(SmallVec::from_iter([text]));
        }
        self.read_in(ways(self.text, upstream), upstream)
    }

    fn read_in(
        &self,
        ways: impl Iterator<Item = How>,
        upstream: Upstream,
    ) -> Result<Readings<'p>, TooManyReadings> {
        let mut found = Readings::new();
        for how in ways {
            let reading = how.read(self.text);
            let reading = if upstream.fold_case { folded(&reading).into_owned() } else { reading };
            if found.iter().any(|known| **known == *reading) {
                continue;
            }
            if found.len() == MAX_READINGS {
                return Err(TooManyReadings);
            }
            found.push(Cow::Owned(reading));
        }
        Ok(found)
    }
}

impl SentPath<'_> {
    /// What an upstream makes of it that does all that `upstream` says, in whatever order: those among the readings in
    /// which no step is left out.
    pub fn thorough_readings(&self, upstream: Upstream) -> Result<Readings<'_>, TooManyReadings> {
        if self.plain {
            return self.readings(upstream);
        }
        let ways: SmallVec<[How; MAX_READINGS]> = ways(self.text, upstream).collect();
        // A step that makes no difference to this path is in no way at all.
        let any = |done: fn(&How) -> bool| ways.iter().any(done);
        let steps: [fn(&How) -> bool; 4] = [
            |how| how.backslash,
            |how| how.decode_slash,
            |how| how.cut != Cut::Never,
            |how| how.merge != Merge::Never,
        ];
        let wanted = steps.map(|done| (done, any(done)));
        let thorough = ways.iter().filter(|how| wanted.iter().all(|(done, wanted)| !wanted || done(how)));
        self.read_in(thorough.copied(), upstream)
    }
}

/// A reading as it may be shown to people: whether a slash was escaped is not seen any more.
pub fn shown(reading: &str) -> Cow<'_, str> {
    match reading.contains(ESCAPED_SLASH) {
        true => Cow::Owned(reading.replace(ESCAPED_SLASH, "/")),
        false => Cow::Borrowed(reading),
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Cut {
    Never,
    BeforeDecoding,
    AfterDecoding,
}

#[derive(Clone, Copy, PartialEq)]
enum Merge {
    AfterDots,
    BeforeDots,
    Never,
}

/// One way to read a path.
#[derive(Clone, Copy)]
struct How {
    /// A backslash is a slash.
    backslash: bool,
    decode: bool,
    decode_slash: bool,
    cut: Cut,
    merge: Merge,
}

/// The ways that make a difference to this path, the most normalising first.
fn ways(path: &str, upstream: Upstream) -> impl Iterator<Item = How> {
    let decode = upstream.decode;
    let has = |escape: &[&str]| decode && escape.iter().any(|escape| path.contains(escape));
    let backslashes: &[bool] = if path.contains('\\') { &[true, false] } else { &[true] };
    let escaped_slash = upstream.decode_slash && has(&["%2F", "%2f", "%5C", "%5c"]);
    let slashes: &[bool] = if escaped_slash { &[true, false] } else { &[false] };
    let cuts: &[Cut] = match (path.contains(';'), has(&["%3B", "%3b"])) {
        _ if !upstream.strip_params => &[Cut::Never],
        (true, true) => &[Cut::Never, Cut::BeforeDecoding, Cut::AfterDecoding],
        // Cutting first differs where an escaped slash stands among the parameters.
        (true, false) if escaped_slash => &[Cut::Never, Cut::BeforeDecoding, Cut::AfterDecoding],
        (true, false) | (false, true) => &[Cut::Never, Cut::AfterDecoding],
        (false, false) => &[Cut::Never],
    };
    // A run of slashes may also come from what is cut or decoded between two.
    let has_runs = path.contains("//") || path.contains('\\') || escaped_slash || cuts.len() > 1;
    let merges: &[Merge] = match upstream.merge && has_runs {
        true => &[Merge::AfterDots, Merge::BeforeDots, Merge::Never],
        false => &[Merge::Never],
    };
    let each = move |backslash: bool, decode_slash: bool, cut: Cut| {
        merges.iter().map(move |merge| How { backslash, decode, decode_slash, cut, merge: *merge })
    };
    backslashes.iter().flat_map(move |backslash| {
        slashes.iter().flat_map(move |slash| cuts.iter().flat_map(move |cut| each(*backslash, *slash, *cut)))
    })
}

impl How {
    fn read(self, path: &str) -> String {
        let uncut;
        let text = if self.cut == Cut::BeforeDecoding {
            uncut = cut_params(path, |character| character == '/' || self.backslash && character == '\\');
            &uncut
        } else {
            path
        };
        let mut read = self.decoded(text);
        if self.cut == Cut::AfterDecoding {
            read = cut_params(&read, ends_segment);
        }
        match self.merge {
            Merge::AfterDots => merged(&without_dots(&read)),
            Merge::BeforeDots => without_dots(&merged(&read)),
            Merge::Never => without_dots(&read),
        }
    }

    fn decoded(self, path: &str) -> String {
        let bytes = path.as_bytes();
        let mut out = String::with_capacity(path.len());
        let mut at = 0;
        while at < bytes.len() {
            let mut taken = 1;
            match (bytes[at], escaped(bytes, at)) {
                (b'\\', _) if self.backslash => out.push('/'),
                (b'\\', _) => push_escaped(&mut out, b'\\'),
                (b'%', Some(value)) => {
                    taken = 3;
                    if !self.decode {
                        out.push_str(&upper_escapes(&path[at..at + taken]));
                    } else if self.decode_slash && matches!(value, b'/' | b'\\') {
                        out.push(ESCAPED_SLASH);
                    } else if is_segment_character(value) {
                        out.push(char::from(value));
                    } else {
                        push_escaped(&mut out, value);
                    }
                }
                (b'/', _) => out.push('/'),
                (byte, _) if byte.is_ascii() && (!self.decode || is_segment_character(byte)) => {
                    out.push(char::from(byte));
                }
                (byte, _) => push_escaped(&mut out, byte),
            }
            at += taken;
        }
        out
    }
}

/// Each segment up to its first semicolon.
fn cut_params(path: &str, ends_segment: impl Fn(char) -> bool) -> String {
    let mut cutting = false;
    let kept = path.chars().filter(|character| {
        cutting = !ends_segment(*character) && (cutting || *character == ';');
        !cutting
    });
    kept.collect()
}

/// Runs of slashes as one; only if all of them were escaped is the one.
fn merged(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for character in path.chars() {
        match out.chars().next_back() {
            Some(last) if ends_segment(last) && ends_segment(character) => {
                if character == '/' {
                    out.pop();
                    out.push('/');
                }
            }
            _ => out.push(character),
        }
    }
    out
}

fn without_dots(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    let mut segment = 0;
    for character in path.chars() {
        if !ends_segment(character) {
            out.push(character);
            continue;
        }
        if segment == 0 || !drop_dot_segment(&mut out, segment) {
            out.push(character);
        }
        segment = out.len();
    }
    drop_dot_segment(&mut out, segment);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING: Upstream =
        Upstream { decode: false, decode_slash: false, merge: false, strip_params: false, fold_case: false };

    #[track_caller]
    fn check(path: &str, upstream: Upstream, expected: &[&str]) {
        let readings = SentPath::parse(path).unwrap().readings(upstream).unwrap();
        let shown: Vec<String> =
            readings.iter().map(|reading| reading.replace(ESCAPED_SLASH, "<2F>")).collect();
        assert_eq!(shown, expected, "{path}");
    }

    #[test]
    fn plain_paths_have_one_reading_and_are_borrowed() {
        for path in ["/", "/policies/17", "/a/b.c/", "/pkg.Service/Method", "/a?".trim_end_matches('?')] {
            let readings = SentPath::parse(path).unwrap().readings(Upstream::default()).unwrap();
            assert!(matches!(&readings[..], [Cow::Borrowed(reading)] if *reading == path), "{path}");
        }
    }

    #[test]
    fn escapes_that_mean_one_thing_have_one_reading() {
        for (path, expected) in [
            ("/%61dmin", "/admin"),
            ("/a%20b", "/a%20b"),
            ("/a%3ab", "/a:b"),
            ("/k\u{e4}se", "/k%C3%A4se"),
            ("/a/../b", "/b"),
            ("/a/./b", "/a/b"),
            ("/a/%2e%2E/b", "/b"),
            ("/a|b", "/a%7Cb"),
            ("/.well-known/x", "/.well-known/x"),
            ("/a#b;c", "/a"),
        ] {
            check(path, Upstream::default(), &[expected]);
        }
    }

    #[test]
    fn an_escaped_slash_is_one_or_is_none() {
        check("/a%2Fb", Upstream::default(), &["/a<2F>b", "/a%2Fb"]);
        check("/a%5cb", Upstream::default(), &["/a<2F>b", "/a%5Cb"]);
        check("/a/..%2Fb", Upstream::default(), &["/b", "/a/..%2Fb"]);
        check("/a%2F..%2F..%2Fb", Upstream::default(), &["/b", "/a%2F..%2F..%2Fb"]);
        let keeps = Upstream { decode_slash: false, ..Upstream::default() };
        check("/a%2Fb", keeps, &["/a%2Fb"]);
        check("/a%2fb", Upstream { decode: false, ..Upstream::default() }, &["/a%2Fb"]);
    }

    #[test]
    fn runs_of_slashes_and_the_order_of_things() {
        check("/a//b", Upstream::default(), &["/a/b", "/a//b"]);
        check("/a//../b", Upstream::default(), &["/a/b", "/b"]);
        check("/a//b", Upstream { merge: false, ..Upstream::default() }, &["/a//b"]);
        check("/a/%2Fb", Upstream::default(), &["/a/b", "/a/<2F>b", "/a/%2Fb"]);
        check("/a\\b", Upstream::default(), &["/a/b", "/a%5Cb"]);
    }

    #[test]
    fn parameters_are_cut_or_not() {
        for (path, expected) in [
            ("/admin;x", &["/admin;x", "/admin"][..]),
            ("/public/..;/admin", &["/public/..;/admin", "/admin"]),
            ("/public/..;a=b/admin", &["/public/..;a=b/admin", "/admin"]),
            ("/public/..%3b/admin", &["/public/..;/admin", "/admin"]),
            ("/public/%2e%2e;/admin", &["/public/..;/admin", "/admin"]),
            ("/;x/admin", &["/;x/admin", "/admin", "//admin"]),
        ] {
            check(path, Upstream::default(), expected);
        }
        let keeps = Upstream { strip_params: false, ..Upstream::default() };
        check("/public/..;/admin", keeps, &["/public/..;/admin"]);
    }

    #[test]
    fn nothing_is_done_where_nothing_may_be() {
        for (path, expected) in [
            ("/%61;b//c%2f", "/%61;b//c%2F"),
            ("/a/%2e%2e/b", "/a/%2E%2E/b"),
            ("/a/../b", "/b"),
            ("/A", "/A"),
        ] {
            check(path, NOTHING, &[expected]);
        }
    }

    #[test]
    fn case_is_folded_in_every_reading() {
        let folds = Upstream { fold_case: true, ..Upstream::default() };
        check("/Admin", folds, &["/admin"]);
        check("/Admin%2FX", folds, &["/admin<2F>x", "/admin%2Fx"]);
    }

    #[test]
    fn too_many_readings_are_refused() {
        let path = "/a;b/..;c%3Bd//..\\..%2F..;e%2F%5C/x%3B/..//..%5C\\;y/z";
        let readings = SentPath::parse(path).unwrap().readings(Upstream::default());
        assert_eq!(readings, Err(TooManyReadings));
    }

    #[test]
    fn what_is_no_path_has_no_reading() {
        for path in ["", "*", "a", "/%zz", "/a b", "/%00"] {
            assert!(SentPath::parse(path).is_err(), "{path}");
        }
    }
}
