//! What an upstream may do to a path before it looks at it.

/// A declaration: what is true here may happen, and what is false surely does not.
///
/// Dot segments are not among it. Every part of a request's way may remove them, so they are removed in every reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Upstream {
    /// It decodes percent escapes.
    pub decode: bool,
    /// It decodes an escaped slash or backslash too, and takes it for a slash.
    pub decode_slash: bool,
    /// It merges runs of slashes.
    pub merge: bool,
    /// It cuts `;parameters` off each segment.
    pub strip_params: bool,
    /// It ignores case.
    pub fold_case: bool,
}

impl Default for Upstream {
    fn default() -> Self {
        Self { decode: true, decode_slash: true, merge: true, strip_params: true, fold_case: false }
    }
}

impl Upstream {
    /// How readings that it may make are spelt.
    pub const fn spelling(self) -> Spelling {
        Spelling { decoded: self.decode, folded: self.fold_case }
    }
}

/// How templates must be spelt to be matched against readings: one trie serves all upstreams of one spelling.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Spelling {
    /// What may stand in a segment unescaped does.
    pub decoded: bool,
    /// There are no capitals.
    pub folded: bool,
}

impl Spelling {
    /// How many there are.
    pub const COUNT: usize = 4;

    /// Each, at its index.
    pub const ALL: [Self; Self::COUNT] = [
        Self { decoded: false, folded: false },
        Self { decoded: true, folded: false },
        Self { decoded: false, folded: true },
        Self { decoded: true, folded: true },
    ];

    /// Its place in [`Spelling::ALL`].
    pub const fn index(self) -> usize {
        self.decoded as usize | (self.folded as usize) << 1
    }
}

impl Default for Spelling {
    fn default() -> Self {
        Upstream::default().spelling()
    }
}
