//! What we believe about one request, and why we may: the input of evaluation.

use std::borrow::Cow;

use smallvec::SmallVec;
use tollgate_paths::{Level, PathError, normalize};

use crate::policy::snapshot::ServiceRules;
use crate::token::{Refusal, VerifiedToken};

/// The issuer that speaks for holders of an opaque administrator token. It is no row, and none may take
/// its name, so no JWT can speak for it.
pub const ADMIN_ISSUER: &str = "tollgate-admin";

/// One request.
#[derive(Debug)]
pub struct Facts<'a> {
    /// What it is about, if that is a service we know.
    pub service: Option<&'a ServiceRules>,
    /// Where it came into the mesh.
    pub entry: Entry,
    /// The workload at the other end, from its certificate.
    pub peer: Option<&'a str>,
    /// The method.
    pub method: &'a str,
    /// The host, as sent.
    pub host: &'a str,
    /// The path.
    pub path: PathReadings<'a>,
    /// Who the user is.
    pub credential: Credential<'a>,
}

/// Where a request came into the mesh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// By an ingress, from outside.
    Outside,
    /// From a workload.
    Inside,
}

/// The user's token.
#[derive(Debug, Clone, Copy)]
pub enum Credential<'a> {
    /// There is none.
    Absent,
    /// There is one, and it is no good.
    Refused(&'a Refusal),
    /// There is one, and it says this.
    Verified(&'a VerifiedToken),
}

impl<'a> Credential<'a> {
    /// The token, if it is good.
    pub fn token(self) -> Option<&'a VerifiedToken> {
        match self {
            Self::Verified(token) => Some(token),
            Self::Absent | Self::Refused(_) => None,
        }
    }

    /// The scopes of the token, if it is good.
    pub fn scopes(self) -> &'a [String] {
        self.token().map_or(&[], |token| &token.scopes)
    }

    /// Whether there is no token at all.
    pub fn is_absent(self) -> bool {
        matches!(self, Self::Absent)
    }
}

/// The ways in which an upstream may read the path. Nearly always there is one.
#[derive(Debug)]
pub struct PathReadings<'a> {
    normal: Cow<'a, str>,
    literal: Option<Cow<'a, str>>,
    stripped: SmallVec<[Box<str>; MAX_STRIPPED]>,
}

/// Parameters are cut off before or after escapes are decoded, and slashes are merged or not.
const MAX_STRIPPED: usize = 4;

impl<'a> PathReadings<'a> {
    /// Reads a request target; the query is cut off.
    pub fn of_target(target: &'a str) -> Result<Self, PathError> {
        let path = target.split_once('?').map_or(target, |(path, _query)| path);
        let normal = normalize(path, Level::DecodeAndMerge)?;
        let literal = match &normal {
            // Nothing was rewritten, so every level gives the same.
            Cow::Borrowed(_) => None,
            Cow::Owned(_) => Some(normalize(path, Level::Base)?).filter(|literal| *literal != normal),
        };
        let mut readings = Self { normal, literal, stripped: SmallVec::new() };
        if has_params(path) {
            readings.strip(path)?;
        }
        Ok(readings)
    }

    /// Adds how an upstream reads the path that cuts `;parameters` off: `/public/..;/admin` is `/admin` to Tomcat.
    fn strip(&mut self, path: &str) -> Result<(), PathError> {
        for base in [without_params(path), without_params(&self.normal)] {
            for level in [Level::DecodeAndMerge, Level::Base] {
                let reading = normalize(&base, level)?;
                let known = *reading == *self.normal
                    || self.stripped.iter().any(|other| **other == *reading)
                    || self.literal() == Some(&*reading);
                if !known {
                    self.stripped.push(reading.into());
                }
            }
        }
        Ok(())
    }

    /// Escapes decoded, slashes merged.
    pub fn normal(&self) -> &str {
        &self.normal
    }

    /// As an upstream reads it that keeps escaped and doubled slashes apart, where that differs.
    pub fn literal(&self) -> Option<&str> {
        self.literal.as_deref()
    }

    /// Every reading but the normal one; those without `;parameters` only where the upstream may strip them.
    pub fn others(&self, strips_params: bool) -> impl Iterator<Item = &str> {
        let stripped = if strips_params { &self.stripped[..] } else { &[] };
        self.literal().into_iter().chain(stripped.iter().map(|reading| &**reading))
    }
}

/// An escaped semicolon counts: some upstreams decode first.
const ESCAPED_SEMICOLON: [&str; 2] = ["%3b", "%3B"];

fn has_params(path: &str) -> bool {
    path.contains(';') || ESCAPED_SEMICOLON.iter().any(|escape| path.contains(escape))
}

/// The path with each segment cut off at its first semicolon, and without its fragment.
fn without_params(path: &str) -> String {
    let path = path.split_once('#').map_or(path, |(before, _fragment)| before);
    let mut out = String::with_capacity(path.len());
    for (index, segment) in path.split('/').enumerate() {
        if index > 0 {
            out.push('/');
        }
        let starts = std::iter::once(";").chain(ESCAPED_SEMICOLON).filter_map(|start| segment.find(start));
        out.push_str(&segment[..starts.min().unwrap_or(segment.len())]);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ambiguous_paths_have_two_readings() {
        for (target, normal, literal) in [
            ("/policies/1?x=/../", "/policies/1", None),
            ("/a/../b", "/b", None),
            ("/%61", "/a", None),
            ("/a%2Fb", "/a/b", Some("/a%2Fb")),
            ("/a//b", "/a/b", Some("/a//b")),
        ] {
            let readings = PathReadings::of_target(target).unwrap();
            assert_eq!((readings.normal(), readings.literal()), (normal, literal), "{target}");
        }
        assert!(PathReadings::of_target("*").is_err());
    }

    #[test]
    fn parameters_are_stripped_in_a_reading_of_their_own() {
        for (target, normal, others) in [
            ("/admin;x", "/admin;x", &["/admin"][..]),
            ("/public/..;/admin", "/public/..;/admin", &["/admin"]),
            ("/public/..;a=b/admin?q=;", "/public/..;a=b/admin", &["/admin"]),
            ("/public/..%3b/admin", "/public/..%3b/admin", &["/admin"]),
            ("/public/%2e%2e;/admin", "/public/..;/admin", &["/admin"]),
            ("/public/..;\\admin", "/public/..;/admin", &["/", "/admin"]),
            ("/;x/admin", "/;x/admin", &["/admin", "//admin"]),
            ("/public;%2F../admin", "/admin", &["/public;%2F../admin", "/public/admin"]),
            ("/a?b=;c", "/a", &[]),
        ] {
            let readings = PathReadings::of_target(target).unwrap();
            assert_eq!(readings.normal(), normal, "{target}");
            assert_eq!(readings.others(true).collect::<Vec<_>>(), others, "{target}");
            assert_eq!(readings.others(false).collect::<Vec<_>>(), Vec::from_iter(readings.literal()));
        }
    }

    #[test]
    fn what_is_no_path_has_no_reading() {
        assert!(PathReadings::of_target("*").is_err());
        assert!(PathReadings::of_target("/%zz").is_err());
    }
}
