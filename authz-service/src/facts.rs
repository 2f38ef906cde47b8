//! What we believe about one request, and why we may: the input of evaluation.

use std::borrow::Cow;

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
}

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
        Ok(Self { normal, literal })
    }

    /// Escapes decoded, slashes merged.
    pub fn normal(&self) -> &str {
        &self.normal
    }

    /// As an upstream reads it that keeps escaped and doubled slashes apart, where that differs.
    pub fn literal(&self) -> Option<&str> {
        self.literal.as_deref()
    }
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
        assert!(PathReadings::of_target("/%zz").is_err());
    }
}
