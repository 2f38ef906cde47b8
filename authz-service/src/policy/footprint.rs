//! What a decision read of the request: exactly that, and nothing it merely could have read.
//!
//! Whether an answer may be used again for another request follows from here: two requests about one service that
//! agree in every part of the footprint get the same answer from the same snapshot. What was looked for and not
//! there was read too.

use std::borrow::Cow;
use std::fmt;

use smallvec::SmallVec;

/// A set of parts of a request.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Parts(u16);

impl Parts {
    /// Nothing.
    pub const NONE: Self = Self(0);
    /// The method.
    pub const METHOD: Self = Self(1);
    /// The host.
    pub const HOST: Self = Self(1 << 1);
    /// The path.
    pub const PATH: Self = Self(1 << 2);
    /// Whether there is a good token, who issued it and until when it is good.
    pub const TOKEN: Self = Self(1 << 3);
    /// The peer's workload identity.
    pub const PEER: Self = Self(1 << 4);
    /// Where the request entered.
    pub const ENTRY: Self = Self(1 << 5);
    /// The time.
    pub const TIME: Self = Self(1 << 6);
    /// The client's address.
    pub const SOURCE: Self = Self(1 << 7);
    /// The serial number of the peer's certificate.
    pub const CERTIFICATE: Self = Self(1 << 8);
    /// The token's subject.
    pub const SUBJECT: Self = Self(1 << 9);
    /// The token's client.
    pub const CLIENT: Self = Self(1 << 10);
    /// The token's groups.
    pub const GROUPS: Self = Self(1 << 11);
    /// The token's scopes.
    pub const SCOPES: Self = Self(1 << 12);
    /// The token's own id, the key that signed it, and when.
    pub const ISSUANCE: Self = Self(1 << 13);

    const NAMES: [(Self, &'static str); 14] = [
        (Self::METHOD, "method"),
        (Self::HOST, "host"),
        (Self::PATH, "path"),
        (Self::TOKEN, "token"),
        (Self::PEER, "peer"),
        (Self::ENTRY, "entry"),
        (Self::TIME, "time"),
        (Self::SOURCE, "source"),
        (Self::CERTIFICATE, "certificate"),
        (Self::SUBJECT, "subject"),
        (Self::CLIENT, "client"),
        (Self::GROUPS, "groups"),
        (Self::SCOPES, "scopes"),
        (Self::ISSUANCE, "issuance"),
    ];

    /// Whether all of `part` is in it.
    pub const fn contains(self, part: Self) -> bool {
        self.0 & part.0 == part.0
    }

    /// Both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// One without the other.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Every part there is, one by one.
    pub fn all() -> impl Iterator<Item = Self> {
        Self::NAMES.into_iter().map(|(part, _)| part)
    }

    /// The names of what is in it.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        Self::NAMES.into_iter().filter(move |(part, _)| self.contains(*part)).map(|(_, name)| name)
    }
}

impl fmt::Debug for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.names()).finish()
    }
}

/// More names than these in one decision go to the heap; policies that read so many headers are rare.
const NAMES_AT_HAND: usize = 2;

/// Names, each once, in the order in which they were read.
pub type Names<'s> = SmallVec<[&'s str; NAMES_AT_HAND]>;

/// What was read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Footprint<'s> {
    /// Parts that every request has.
    pub parts: Parts,
    /// Headers, by their names in lower case.
    pub headers: Names<'s>,
    /// Claims of the token, by the names that the policy has for them.
    pub claims: Names<'s>,
}

impl<'s> Footprint<'s> {
    /// Of these parts.
    pub fn of(parts: Parts) -> Self {
        Self { parts, ..Self::default() }
    }

    /// Adds what `part` holds.
    pub fn read(&mut self, part: Parts) {
        self.parts = self.parts.and(part);
    }

    /// Adds a header.
    pub fn read_header(&mut self, name: &'s str) {
        add(&mut self.headers, name);
    }

    /// Adds a claim.
    pub fn read_claim(&mut self, name: &'s str) {
        add(&mut self.claims, name);
    }

    /// Whether all of `part` was read.
    pub const fn contains(&self, part: Parts) -> bool {
        self.parts.contains(part)
    }

    /// Headers and claims that were read: `header:x-env`, `claim:tier`.
    pub fn named(&self) -> impl Iterator<Item = String> {
        let headers = self.headers.iter().map(|name| format!("header:{name}"));
        headers.chain(self.claims.iter().map(|name| format!("claim:{name}")))
    }

    /// The names of all that was read.
    pub fn names(&self) -> impl Iterator<Item = Cow<'static, str>> {
        self.parts.names().map(Cow::Borrowed).chain(self.named().map(Cow::Owned))
    }
}

fn add<'s>(names: &mut Names<'s>, name: &'s str) {
    if !names.contains(&name) {
        names.push(name);
    }
}
