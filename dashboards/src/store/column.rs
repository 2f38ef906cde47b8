//! One attribute of many records, in memory, and how a block of such columns is built and joined.
//!
//! Pure: no clock, no file. [`super::codec`] writes columns as bytes.

use std::collections::BTreeMap;

use super::words::{Dictionary, Word, Words, write_word};
use crate::record::Value;

/// Stands for "no value" among whole numbers; a record that really carries it gets a word instead.
pub(crate) const MISSING: i64 = i64::MIN;

/// The values of one attribute, one for each record of a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Column {
    /// Whole numbers; [`MISSING`] where there is none.
    Ints(Vec<i64>),
    /// Anything else: 0 where there is none, else the number of a word plus one.
    Words { words: Words, codes: Vec<u32> },
}

/// One cell of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cell<'a> {
    Int(i64),
    Word(Word<'a>),
}

impl Cell<'_> {
    pub(crate) fn text(self) -> String {
        match self {
            Self::Int(number) => number.to_string(),
            Self::Word(word) => word.text(),
        }
    }

    pub(crate) fn json(self) -> serde_json::Value {
        match self {
            Self::Int(number) => number.into(),
            Self::Word(word) => word.json(),
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "measured values, not identities")]
    pub(crate) fn number(self) -> Option<f64> {
        match self {
            Self::Int(number) => Some(number as f64),
            Self::Word(word) => word.number(),
        }
    }

    pub(crate) fn int(self) -> Option<i64> {
        match self {
            Self::Int(number) => Some(number),
            Self::Word(word) => word.int(),
        }
    }
}

impl Column {
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Ints(values) => values.len(),
            Self::Words { codes, .. } => codes.len(),
        }
    }

    pub(crate) fn cell(&self, row: usize) -> Option<Cell<'_>> {
        match self {
            Self::Ints(values) => values.get(row).filter(|v| **v != MISSING).map(|v| Cell::Int(*v)),
            Self::Words { words, codes } => {
                let code = *codes.get(row)?;
                (code > 0).then(|| Cell::Word(words.word(code as usize - 1)))
            }
        }
    }
}

/// Grows a column; rows without a value are filled in when the next value or the end comes.
#[derive(Debug)]
pub(crate) enum ColumnBuilder {
    Ints(Vec<i64>),
    Words { dictionary: Dictionary, codes: Vec<u32>, word: Vec<u8> },
}

impl ColumnBuilder {
    pub(crate) fn new(first: &Value<'_>) -> Self {
        match first {
            Value::Int(number) if *number != MISSING => Self::Ints(Vec::new()),
            _ => Self::words(),
        }
    }

    fn words() -> Self {
        Self::Words { dictionary: Dictionary::default(), codes: Vec::new(), word: Vec::new() }
    }

    /// Sets the value of `row`, which is the last row with a value or a later one. A second value of a row wins.
    pub(crate) fn set(&mut self, row: usize, value: &Value<'_>) {
        if let (Self::Ints(values), Value::Int(number)) = (&mut *self, value)
            && *number != MISSING
        {
            values.resize(row, MISSING);
            values.push(*number);
            return;
        }
        self.become_words();
        if let Self::Words { dictionary, codes, word } = self {
            write_word(word, value);
            codes.resize(row, 0);
            codes.push(dictionary.number(word) + 1);
        }
    }

    fn become_words(&mut self) {
        if let Self::Ints(values) = self {
            let values = std::mem::take(values);
            *self = Self::words();
            let Self::Words { dictionary, codes, word } = self else { return };
            for value in values {
                codes.push(if value == MISSING {
                    0
                } else {
                    write_word(word, &Value::Int(value));
                    dictionary.number(word) + 1
                });
            }
        }
    }

    pub(crate) fn finish(self, rows: usize) -> Column {
        match self {
            Self::Ints(mut values) => {
                values.resize(rows, MISSING);
                Column::Ints(values)
            }
            Self::Words { dictionary, mut codes, .. } => {
                codes.resize(rows, 0);
                Column::Words { words: dictionary.into_words(), codes }
            }
        }
    }
}

/// Records as columns.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Block {
    pub(crate) rows: usize,
    pub(crate) columns: BTreeMap<String, Column>,
}

impl Block {
    /// A column of whole numbers that every block has; empty if this block is broken.
    pub(crate) fn ints(&self, name: &str) -> &[i64] {
        match self.columns.get(name) {
            Some(Column::Ints(values)) => values,
            _ => &[],
        }
    }

    pub(crate) fn cell(&self, name: &str, row: usize) -> Option<Cell<'_>> {
        self.columns.get(name)?.cell(row)
    }
}
