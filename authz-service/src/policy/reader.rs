//! The one way in which evaluation sees a request.
//!
//! Whatever is asked of a request is asked here and noted in the footprint as it is answered, so that nothing can be
//! read without being named. Times at which an answer may change are gathered likewise.

use std::net::IpAddr;

use serde_json::Value;
use smol_str::SmolStr;

use super::condition::ClaimPath;
use super::footprint::{Footprint, Parts};
use super::model::{Period, Who};
use super::snapshot::without_port;
use crate::facts::{Credential, Entry, Facts, Guard, PathReadings};
use crate::token::VerifiedToken;

/// Which of several lines of one header is read. All that upstreams do is one of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lines {
    /// All of them, joined.
    Joined,
    /// The first.
    First,
    /// The last.
    Last,
}

/// Looks at one request and keeps book about it.
#[derive(Debug)]
pub(super) struct Reader<'a, 's> {
    facts: &'a Facts<'s>,
    now: i64,
    lines: Lines,
    repeated: bool,
    expires: i64,
    footprint: Footprint<'s>,
}

impl<'a, 's> Reader<'a, 's> {
    pub(super) fn new(facts: &'a Facts<'s>, now: i64) -> Self {
        Self {
            facts,
            now,
            lines: Lines::Joined,
            repeated: false,
            expires: i64::MAX,
            footprint: Footprint::default(),
        }
    }

    /// From here on, of repeated headers these lines are read.
    pub(super) fn read_lines(&mut self, lines: Lines) {
        self.lines = lines;
    }

    /// Whether a header was read of which there may be several lines.
    pub(super) const fn saw_repeated_header(&self) -> bool {
        self.repeated
    }

    /// What was read, and until when the answer holds.
    pub(super) fn finish(self) -> (Footprint<'s>, Option<i64>) {
        (self.footprint, (self.expires != i64::MAX).then_some(self.expires))
    }

    /// Notes that an answer holds before this moment only.
    pub(super) fn until(&mut self, moment: i64) {
        self.expires = self.expires.min(moment);
    }

    pub(super) fn method(&mut self) -> &'s str {
        self.footprint.read(Parts::METHOD);
        self.facts.method
    }

    /// The host's name, without its port.
    pub(super) fn host(&mut self) -> &'s str {
        self.footprint.read(Parts::HOST);
        without_port(self.facts.host)
    }

    pub(super) fn path(&mut self) -> &'a PathReadings<'s> {
        self.footprint.read(Parts::PATH);
        &self.facts.path
    }

    /// Said by the route, as the service is: no part of the request.
    pub(super) const fn guard(&self) -> Guard {
        self.facts.guard
    }

    pub(super) fn entry(&mut self) -> Entry {
        self.footprint.read(Parts::ENTRY);
        self.facts.entry
    }

    pub(super) fn peer(&mut self) -> Option<&'s str> {
        self.footprint.read(Parts::PEER);
        self.facts.peer
    }

    pub(super) fn now(&mut self) -> i64 {
        self.footprint.read(Parts::TIME);
        self.now
    }

    /// Whether `period` contains the time.
    pub(super) fn within(&mut self, period: Period) -> bool {
        if period == Period::ALWAYS {
            return true;
        }
        let now = self.now();
        for border in [period.from, period.until] {
            if border > now {
                self.until(border);
            }
        }
        period.contains(now)
    }

    pub(super) fn source(&mut self) -> Option<IpAddr> {
        self.footprint.read(Parts::SOURCE);
        self.facts.source
    }

    pub(super) fn certificate_serial(&mut self) -> Option<&'s str> {
        self.footprint.read(Parts::CERTIFICATE);
        self.facts.certificate_serial
    }

    /// What kind of credential there is. A good one ends.
    pub(super) fn credential(&mut self) -> Credential<'s> {
        self.footprint.read(Parts::TOKEN);
        if let Credential::Verified(token) = self.facts.credential {
            self.until(token.expires_at);
        }
        self.facts.credential
    }

    /// The name of the issuer, if there is a good token.
    pub(super) fn issuer(&mut self) -> Option<&'s str> {
        self.credential().token().map(|token| &*token.issuer)
    }

    /// The scopes; none where there is no token.
    pub(super) fn scopes(&mut self) -> &'s [SmolStr] {
        self.footprint.read(Parts::SCOPES);
        self.credential().scopes()
    }

    /// The token, to be looked up by all that bindings are filed under.
    pub(super) fn principal(&mut self) -> Option<&'s VerifiedToken> {
        self.footprint.read(Parts::SUBJECT.and(Parts::CLIENT).and(Parts::GROUPS));
        self.credential().token()
    }

    /// The token, to be looked up by what revocations name.
    pub(super) fn issuance(&mut self) -> Option<&'s VerifiedToken> {
        self.footprint.read(Parts::ISSUANCE.and(Parts::SUBJECT).and(Parts::CLIENT));
        self.credential().token()
    }

    /// Whether all that `who` asks holds of the caller.
    pub(super) fn is(&mut self, who: &Who) -> bool {
        let peer = who.workload.as_ref().and_then(|_| self.peer());
        let token = if who.authenticated { self.credential().token() } else { None };
        for (asked, part) in [
            (who.subject.is_some(), Parts::SUBJECT),
            (who.client.is_some(), Parts::CLIENT),
            (who.group.is_some(), Parts::GROUPS),
        ] {
            if asked {
                self.footprint.read(part);
            }
        }
        who.is(token, peer)
    }

    /// A claim of the token.
    pub(super) fn claim(&mut self, path: &'s ClaimPath) -> Option<&'s Value> {
        self.footprint.read_claim(path.name());
        self.credential().token().and_then(|token| path.find(token.claims.members()))
    }

    /// A header's value, by its name in lower case.
    pub(super) fn header(&mut self, name: &'s str) -> Option<&'s str> {
        self.footprint.read_header(name);
        let header = self.facts.headers.header(name)?;
        if !header.may_be_several {
            return Some(header.value);
        }
        self.repeated = true;
        Some(match self.lines {
            Lines::Joined => header.value,
            Lines::First => header.value.split(',').next().unwrap_or_default().trim_ascii(),
            Lines::Last => header.value.rsplit(',').next().unwrap_or_default().trim_ascii(),
        })
    }

    /// A header read as a list: all its values, in all its lines.
    pub(super) fn header_list(&mut self, name: &'s str) -> impl Iterator<Item = &'s str> + use<'s> {
        self.footprint.read_header(name);
        let value = self.facts.headers.header(name).map(|header| header.value);
        value.into_iter().flat_map(|value| value.split(',').map(str::trim_ascii))
    }
}
