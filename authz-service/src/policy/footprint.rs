//! What a decision read of the request: exactly that, and nothing it merely could have read.
//!
//! Whether an answer may be used again for another request follows from here: two requests that
//! agree in every part of the footprint get the same answer from the same snapshot.

use std::fmt;

/// A set of parts of a request.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Footprint(u16);

impl Footprint {
    /// Nothing.
    pub const EMPTY: Self = Self(0);
    /// The method.
    pub const METHOD: Self = Self(1);
    /// The host.
    pub const HOST: Self = Self(1 << 1);
    /// The path.
    pub const PATH: Self = Self(1 << 2);
    /// Every place where a token may stand, the empty ones too.
    pub const TOKEN: Self = Self(1 << 3);
    /// The peer's workload identity.
    pub const PEER: Self = Self(1 << 4);
    /// Where the request entered.
    pub const ENTRY: Self = Self(1 << 5);
    /// The time of day.
    pub const TIME: Self = Self(1 << 6);

    const NAMES: [(Self, &'static str); 7] = [
        (Self::METHOD, "method"),
        (Self::HOST, "host"),
        (Self::PATH, "path"),
        (Self::TOKEN, "token"),
        (Self::PEER, "peer"),
        (Self::ENTRY, "entry"),
        (Self::TIME, "time"),
    ];

    /// Adds what `part` holds.
    pub fn read(&mut self, part: Self) {
        self.0 |= part.0;
    }

    /// Whether all of `part` was read.
    pub const fn contains(self, part: Self) -> bool {
        self.0 & part.0 == part.0
    }

    /// Both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The names of what was read.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        Self::NAMES.into_iter().filter(move |(part, _)| self.contains(*part)).map(|(_, name)| name)
    }
}

impl fmt::Debug for Footprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.names()).finish()
    }
}
