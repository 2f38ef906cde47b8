//! What we believe about one request, and why we may: the input of evaluation.

use std::fmt;
use std::net::IpAddr;

use smol_str::SmolStr;
use tollgate_paths::{PathError, Readings, SentPath, TooManyReadings, Upstream};

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
    /// What becomes of it if its readings disagree.
    pub guard: Guard,
    /// Who the user is.
    pub credential: Credential<'a>,
    /// The headers.
    pub headers: &'a dyn Headers,
    /// The client's address, where the asker knows it.
    pub source: Option<IpAddr>,
    /// The serial number of the peer's certificate: lower-case hexadecimal digits without leading zeros.
    pub certificate_serial: Option<&'a str>,
}

/// The headers of a request, as a wire has them.
pub trait Headers: fmt::Debug + Send + Sync {
    /// The header of this name in lower case; several lines of it joined by commas.
    fn header(&self, name: &str) -> Option<Header<'_>>;
}

/// The value of a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header<'h> {
    /// The value, or all of them joined by commas.
    pub value: &'h str,
    /// Whether there may have been several lines of it. A wire that joins them cannot tell a comma that was sent
    /// from one that it put there, and says yes to every comma.
    pub may_be_several: bool,
}

impl<'h> Header<'h> {
    /// A header from a wire that joins lines by commas.
    pub fn joined(value: &'h str) -> Self {
        Self { value, may_be_several: value.contains(',') }
    }
}

/// No headers at all.
#[derive(Debug, Clone, Copy)]
pub struct NoHeaders;

impl Headers for NoHeaders {
    fn header(&self, _name: &str) -> Option<Header<'_>> {
        None
    }
}

impl Headers for std::collections::HashMap<String, String> {
    fn header(&self, name: &str) -> Option<Header<'_>> {
        self.get(name).map(|value| Header::joined(value))
    }
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
    /// There can be none: it is about a connection.
    Unasked,
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
            Self::Absent | Self::Unasked | Self::Refused(_) => None,
        }
    }

    /// The scopes of the token, if it is good.
    pub fn scopes(self) -> &'a [SmolStr] {
        self.token().map_or(&[], |token| &token.scopes)
    }

    /// Whether there is no token at all.
    pub fn is_absent(self) -> bool {
        matches!(self, Self::Absent)
    }
}

/// What becomes of a path that can be read in several ways, where they lead to different answers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Guard {
    /// It is refused.
    #[default]
    Deny,
    /// The service's declaration is taken at its word: its upstream does all of that, and what it then reads counts. What
    /// passes so is recorded.
    Log,
    /// As `Log`, and nothing is recorded.
    Off,
}

impl Guard {
    /// Reads the value of the context extension `tollgate.guard`.
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "deny" => Self::Deny,
            "log" => Self::Log,
            "off" => Self::Off,
            _ => return None,
        })
    }
}

/// The path, which upstreams may read in several ways. Nearly always there is one.
#[derive(Debug, Clone, Copy)]
pub struct PathReadings<'a> {
    sent: SentPath<'a>,
}

impl<'a> PathReadings<'a> {
    /// Reads a request target; the query is cut off.
    pub fn of_target(target: &'a str) -> Result<Self, PathError> {
        let path = target.split_once('?').map_or(target, |(path, _query)| path);
        Ok(Self { sent: SentPath::parse(path)? })
    }

    /// As it was sent.
    pub fn as_str(&self) -> &'a str {
        self.sent.as_str()
    }

    /// What an upstream makes of it that does all that its declaration says.
    pub fn thorough_readings(&self, upstream: Upstream) -> Result<Readings<'_>, TooManyReadings> {
        self.sent.thorough_readings(upstream)
    }

    /// What an upstream of this declaration may make of it.
    pub fn readings(&self, upstream: Upstream) -> Result<Readings<'a>, TooManyReadings> {
        self.sent.readings(upstream)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_query_is_no_part_of_the_path() {
        for (target, path) in [("/a?x=/../", "/a"), ("/a?b=;c", "/a"), ("/a", "/a"), ("/?", "/")] {
            let readings = PathReadings::of_target(target).unwrap();
            assert_eq!(readings.as_str(), path, "{target}");
            assert_eq!(readings.readings(Upstream::default()).unwrap().len(), 1, "{target}");
        }
    }

    #[test]
    fn what_is_no_path_has_no_reading() {
        for target in ["*", "", "example.com:443", "/%zz", "/a%00"] {
            assert!(PathReadings::of_target(target).is_err(), "{target}");
        }
    }
}
