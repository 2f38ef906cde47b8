//! What is said to Redis, and what its answers mean.
//!
//! Two scripts: one for calls that count in fixed windows alone, which most do and which is as short as can be; and
//! one for calls that have to be spent together or not at all. Either takes the counters of many calls at once.

use redis::{Cmd, Script, Value};

use crate::counters::{Batch, Counting, StoreError};
use crate::limits::{Algorithm, Mode};
use crate::window::{Hits, Tally};

const FIXED: &str = include_str!("fixed.lua");
const TOGETHER: &str = include_str!("together.lua");

/// The scripts and their hashes.
#[derive(Debug, Clone)]
pub(super) struct Scripts {
    fixed: Script,
    together: Script,
}

/// Which script a call needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Fixed,
    Together,
}

impl Kind {
    pub(super) fn of(batch: &Batch) -> Self {
        if batch.is_conditional() { Self::Together } else { Self::Fixed }
    }

    /// Numbers in the answer for each counter.
    fn numbers(self) -> usize {
        match self {
            Self::Fixed => 2,
            Self::Together => 3,
        }
    }
}

/// How the script is named in a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum By {
    Hash,
    /// Whole, for a server that does not know it yet; it does afterwards.
    Text,
}

impl Scripts {
    pub(super) fn new() -> Self {
        Self { fixed: Script::new(FIXED), together: Script::new(TOGETHER) }
    }

    /// Both, for loading them.
    pub(super) fn all(&self) -> [&Script; 2] {
        [&self.fixed, &self.together]
    }

    /// One command for all of these calls, whose keys get this prefix.
    pub(super) fn command<'b>(
        &self,
        kind: Kind,
        by: By,
        prefix: &[u8],
        batches: impl Iterator<Item = &'b Batch> + Clone,
    ) -> Cmd {
        let countings: usize = batches.clone().map(Batch::len).sum();
        let mut cmd = Cmd::with_capacity(3 + 8 * countings, 64 + 192 * countings);
        let (script, text) = match kind {
            Kind::Fixed => (&self.fixed, FIXED),
            Kind::Together => (&self.together, TOGETHER),
        };
        match by {
            By::Hash => cmd.arg("EVALSHA").arg(script.get_hash()),
            By::Text => cmd.arg("EVAL").arg(text),
        };
        cmd.arg(countings);
        for (key, _) in batches.clone().flat_map(Batch::iter) {
            if prefix.is_empty() {
                cmd.arg(key);
            } else {
                cmd.arg([prefix, key].concat());
            }
        }
        for batch in batches {
            if kind == Kind::Together {
                cmd.arg(batch.len());
            }
            batch.iter().for_each(|(_, counting)| arguments(&mut cmd, kind, counting));
        }
        cmd
    }
}

fn arguments(cmd: &mut Cmd, kind: Kind, counting: &Counting) {
    let limit = &counting.limit;
    if kind == Kind::Together {
        cmd.arg(match limit.algorithm {
            Algorithm::FixedWindow => "f",
            Algorithm::SlidingWindow => "s",
            Algorithm::TokenBucket { .. } => "b",
        });
        cmd.arg(match counting.mode {
            Mode::Enforce => "e",
            Mode::Quota => "q",
            Mode::Shadow | Mode::Candidate => "w",
        });
    }
    cmd.arg(limit.window.seconds());
    if kind == Kind::Together {
        cmd.arg(limit.requests).arg(limit.capacity());
    }
    match counting.hits {
        Hits::Add(hits) => cmd.arg(hits),
        Hits::Look => cmd.arg(0),
        // Hits are bounded far below where this could overflow.
        Hits::GiveBack(hits) => cmd.arg(-i64::try_from(hits).unwrap_or(i64::MAX)),
    };
}

/// Reads the answer to a command for these calls, one call after the other.
pub(super) fn tallies<'b>(
    answer: &Value,
    kind: Kind,
    batches: impl Iterator<Item = &'b Batch> + Clone,
) -> Result<Vec<Vec<Tally>>, StoreError> {
    let numbers = answer.as_sequence().unwrap_or_default();
    let countings: usize = batches.clone().map(Batch::len).sum();
    let expected = kind.numbers() * countings;
    let wrong = || StoreError::Answer { expected, found: numbers.len() };
    if numbers.len() != expected {
        return Err(wrong());
    }
    let mut each = numbers.chunks_exact(kind.numbers());
    batches
        .map(|batch| {
            batch
                .iter()
                .map(|(_, counting)| {
                    each.next().and_then(|found| tally(kind, found, counting)).ok_or_else(wrong)
                })
                .collect()
        })
        .collect()
}

fn tally(kind: Kind, found: &[Value], counting: &Counting) -> Option<Tally> {
    let number = |value: &Value| match value {
        Value::Int(number) => Some(u64::try_from(*number).unwrap_or(0)),
        _ => None,
    };
    let (used, resets_in_seconds) = (number(found.first()?)?, number(found.last()?)?);
    Some(match kind {
        Kind::Fixed => Tally::of_fixed(counting.limit.requests, used, counting.hits, resets_in_seconds),
        Kind::Together => {
            Tally { used, over: number(&found[1])? == 1, resets_in_seconds: resets_in_seconds.max(1) }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::Limit;
    use crate::window::{Unit, Window};

    #[test]
    fn an_answer_that_does_not_fit_is_an_error() {
        let mut batch = Batch::default();
        batch.push(Limit::fixed(5, Window::of(Unit::Day)), Mode::Enforce, Hits::Add(1), |key| key.push(b'k'));
        let table = [
            (Value::Array(vec![Value::Int(3), Value::Int(60)]), true),
            (Value::Array(vec![Value::Int(3)]), false),
            (Value::Array(vec![Value::Okay, Value::Int(60)]), false),
            (Value::Nil, false),
        ];
        for (answer, fits) in table {
            let read = tallies(&answer, Kind::Fixed, std::iter::once(&batch));
            assert_eq!(read.is_ok(), fits, "{answer:?}");
        }
    }
}
