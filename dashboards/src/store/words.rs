//! Words: the values of a column as tagged bytes, one after the other in a single allocation.
//!
//! ```text
//! word = tag + payload      s text · i int · f float · b bool · j JSON · x id shown as hex · u UUID
//! ```
//! A UUID that came as text in its usual form is kept as its 16 bytes, which is a third of the size.

use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashTable};

use crate::record::{Value, hex, unhex};

/// Many words, numbered from 0.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Words {
    pub(super) bytes: Vec<u8>,
    pub(super) ends: Vec<u32>,
}

impl Words {
    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    pub(crate) fn word(&self, index: usize) -> Word<'_> {
        let start = if index == 0 { 0 } else { self.ends[index - 1] as usize };
        Word(&self.bytes[start..self.ends[index] as usize])
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Word<'_>> {
        (0..self.len()).map(|index| self.word(index))
    }

    pub(crate) fn push(&mut self, word: &[u8]) {
        self.bytes.extend_from_slice(word);
        self.ends.push(
            u32::try_from(self.bytes.len()).expect("a block's request sizes are capped far below 4 GiB"),
        );
    }
}

/// One value as tagged bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Word<'a>(pub(crate) &'a [u8]);

impl<'a> Word<'a> {
    fn payload(self) -> &'a [u8] {
        self.0.get(1..).unwrap_or_default()
    }

    fn tag(self) -> u8 {
        self.0.first().copied().unwrap_or(b's')
    }

    fn eight(self) -> [u8; 8] {
        self.payload().try_into().unwrap_or_default()
    }

    /// The text of a text word, without an allocation.
    pub(crate) fn as_str(self) -> Option<&'a str> {
        matches!(self.tag(), b's' | b'j').then(|| std::str::from_utf8(self.payload()).ok()).flatten()
    }

    /// The value as a person reads it and a filter compares it.
    pub(crate) fn text(self) -> String {
        match self.tag() {
            b'i' => i64::from_le_bytes(self.eight()).to_string(),
            b'f' => f64::from_le_bytes(self.eight()).to_string(),
            b'b' => (self.payload() == [1]).to_string(),
            b'x' => hex(self.payload()),
            b'u' => uuid::Uuid::from_slice(self.payload()).unwrap_or_default().to_string(),
            _ => String::from_utf8_lossy(self.payload()).into_owned(),
        }
    }

    /// The value as a number, where it is one or reads as one.
    pub(crate) fn number(self) -> Option<f64> {
        match self.tag() {
            #[expect(clippy::cast_precision_loss, reason = "filters compare measured values, not identities")]
            b'i' => Some(i64::from_le_bytes(self.eight()) as f64),
            b'f' => Some(f64::from_le_bytes(self.eight())),
            b's' => self.as_str()?.parse().ok().filter(|n: &f64| n.is_finite()),
            _ => None,
        }
    }

    /// The value as a whole number; a fraction is cut.
    pub(crate) fn int(self) -> Option<i64> {
        match self.tag() {
            // Not by way of a float, which cannot tell large whole numbers apart.
            b'i' => Some(i64::from_le_bytes(self.eight())),
            #[expect(
                clippy::cast_possible_truncation,
                reason = "fractions are of no interest where this is asked"
            )]
            _ => self.number().map(|number| number as i64),
        }
    }

    /// The value as JSON.
    pub(crate) fn json(self) -> serde_json::Value {
        match self.tag() {
            b'i' => i64::from_le_bytes(self.eight()).into(),
            b'f' => f64::from_le_bytes(self.eight()).into(),
            b'b' => (self.payload() == [1]).into(),
            b'j' => serde_json::from_slice(self.payload()).unwrap_or_else(|_| self.text().into()),
            _ => self.text().into(),
        }
    }
}

/// Writes a value's word into `into`, which is emptied first.
pub(crate) fn write_word(into: &mut Vec<u8>, value: &Value<'_>) {
    into.clear();
    match value {
        Value::Text(text) => match canonical_uuid(text) {
            Some(bytes) => {
                into.push(b'u');
                into.extend_from_slice(&bytes);
            }
            None => {
                into.push(b's');
                into.extend_from_slice(text.as_bytes());
            }
        },
        Value::Int(number) => {
            into.push(b'i');
            into.extend_from_slice(&number.to_le_bytes());
        }
        Value::Float(number) => {
            into.push(b'f');
            into.extend_from_slice(&number.to_le_bytes());
        }
        Value::Bool(yes) => into.extend_from_slice(&[b'b', u8::from(*yes)]),
        Value::Json(text) => {
            into.push(b'j');
            into.extend_from_slice(text.as_bytes());
        }
        Value::Hex(bytes) => {
            into.push(b'x');
            into.extend_from_slice(bytes);
        }
    }
}

/// The bytes of a UUID, only if writing them again gives the very same text.
fn canonical_uuid(text: &str) -> Option<[u8; 16]> {
    let bytes = text.as_bytes();
    if bytes.len() != 36 || [8, 13, 18, 23].iter().any(|at| bytes[*at] != b'-') {
        return None;
    }
    if bytes.iter().any(|b| b.is_ascii_uppercase()) {
        return None;
    }
    unhex(&text.replace('-', ""))?.try_into().ok()
}

/// Finds the number of a word that was seen before.
#[derive(Debug, Default)]
pub(crate) struct Dictionary {
    words: Words,
    index: HashTable<u32>,
    // Seeded at random: callers choose the words, so they must not choose the collisions too.
    hasher: DefaultHashBuilder,
}

impl Dictionary {
    /// The number of `word`, added if it is new.
    pub(crate) fn number(&mut self, word: &[u8]) -> u32 {
        let Self { words, index, hasher } = self;
        let hash = hasher.hash_one(word);
        let found = index.find(hash, |number| words.word(*number as usize).0 == word);
        if let Some(number) = found {
            return *number;
        }
        let number = u32::try_from(words.len()).expect("a block has far fewer words than 2^32");
        words.push(word);
        index.insert_unique(hash, number, |number| hasher.hash_one(words.word(*number as usize).0));
        number
    }

    pub(crate) fn into_words(self) -> Words {
        self.words
    }
}
