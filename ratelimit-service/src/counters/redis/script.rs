//! What is said to Redis, and what its answers mean.
//!
//! Two scripts: one for calls that count in fixed windows alone, which most do and which is as short as can be; and
//! one for calls that have to be spent together or not at all. Either takes the counters of many calls at once.

use redis::{Cmd, Script, Value};

use super::packed;
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

    /// Numbers in the answer before those of the counters, and for each counter.
    fn numbers(self) -> (usize, usize) {
        match self {
            Self::Fixed => (1, 1),
            Self::Together => (0, 3),
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
        let mut cmd = Cmd::with_capacity(8 + 8 * countings, 128 + 160 * countings);
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
        match kind {
            Kind::Fixed => in_runs(&mut cmd, batches.flat_map(Batch::iter).map(|(_, counting)| counting)),
            Kind::Together => {
                for batch in batches {
                    cmd.arg(batch.len());
                    batch.iter().for_each(|(_, counting)| whole(&mut cmd, counting));
                }
            }
        }
        cmd
    }
}

/// What is the same for many counters in a row, as it mostly is, is said once.
fn in_runs<'b>(cmd: &mut Cmd, countings: impl Iterator<Item = &'b Counting>) {
    let mut run: Option<(u64, Hits, usize)> = None;
    let mut end = |(seconds, hits, length): (u64, Hits, usize)| {
        cmd.arg(seconds).arg(signed(hits)).arg(length);
    };
    for counting in countings {
        let (seconds, hits) = (counting.limit.window.seconds(), counting.hits);
        match &mut run {
            Some(run) if (run.0, run.1) == (seconds, hits) => run.2 += 1,
            run => {
                if let Some(before) = run.replace((seconds, hits, 1)) {
                    end(before);
                }
            }
        }
    }
    if let Some(last) = run {
        end(last);
    }
}

fn whole(cmd: &mut Cmd, counting: &Counting) {
    let limit = &counting.limit;
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
    cmd.arg(limit.window.seconds()).arg(limit.requests).arg(limit.capacity()).arg(signed(counting.hits));
}

/// Hits are bounded far below where this could overflow.
fn signed(hits: Hits) -> i64 {
    match hits {
        Hits::Add(hits) => i64::try_from(hits).unwrap_or(i64::MAX),
        Hits::Look => 0,
        Hits::GiveBack(hits) => -i64::try_from(hits).unwrap_or(i64::MAX),
    }
}

/// What Redis said about the counters of a command.
#[derive(Debug)]
pub(super) struct Answer {
    kind: Kind,
    numbers: Vec<u64>,
}

impl Answer {
    /// Reads the answer to a command of so many counters.
    pub(super) fn read(answer: &Value, kind: Kind, countings: usize) -> Result<Self, StoreError> {
        let numbers = match answer {
            Value::BulkString(packed) => packed::numbers(packed).unwrap_or_default(),
            _ => Vec::new(),
        };
        let (before, each) = kind.numbers();
        let expected = before + each * countings;
        if numbers.len() != expected {
            return Err(StoreError::Answer { expected, found: numbers.len() });
        }
        Ok(Self { kind, numbers })
    }

    /// The tallies of a call that has this place among all counters of the command.
    pub(super) fn tallies(&self, place: usize, batch: &Batch) -> impl Iterator<Item = Tally> {
        let (before, each) = self.kind.numbers();
        let (head, all) = self.numbers.split_at(before);
        let found = all.chunks_exact(each).skip(place);
        found.zip(batch.iter()).map(move |(found, (_, counting))| match (head, found) {
            (&[now_seconds], &[used]) => {
                let resets_in_seconds = counting.limit.window.end(now_seconds) - now_seconds;
                Tally::of_fixed(counting.limit.requests, used, counting.hits, resets_in_seconds)
            }
            (_, found) => Tally { used: found[0], over: found[1] == 1, resets_in_seconds: found[2].max(1) },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::Limit;
    use crate::window::{Unit, Window};

    fn batch(units: &[(Unit, Hits)]) -> Batch {
        let mut batch = Batch::default();
        for (unit, hits) in units {
            let limit = Limit::fixed(5, Window::of(*unit));
            batch.push(limit, Mode::Enforce, *hits, |key| key.push(b'k'));
        }
        batch
    }

    #[test]
    fn an_answer_that_does_not_fit_is_an_error() {
        let table = [
            (Value::BulkString(vec![0x92, 60, 3]), true),
            (Value::BulkString(vec![0x91, 60]), false),
            (Value::BulkString(vec![0x92, 60, 0xc0]), false),
            (Value::Array(vec![Value::Int(60), Value::Int(3)]), false),
            (Value::Nil, false),
        ];
        for (answer, fits) in table {
            assert_eq!(Answer::read(&answer, Kind::Fixed, 1).is_ok(), fits, "{answer:?}");
        }
    }

    #[test]
    fn each_call_finds_its_own_numbers() {
        let packed = Value::BulkString(vec![0x94, 61, 5, 6, 7]);
        let answer = Answer::read(&packed, Kind::Fixed, 3).unwrap();
        let first = batch(&[(Unit::Minute, Hits::Add(1))]);
        let second = batch(&[(Unit::Minute, Hits::Add(1)), (Unit::Hour, Hits::GiveBack(1))]);
        let tally = |used, over, resets_in_seconds| Tally { used, over, resets_in_seconds };
        assert_eq!(answer.tallies(0, &first).collect::<Vec<_>>(), [tally(5, false, 59)]);
        let found: Vec<_> = answer.tallies(1, &second).collect();
        assert_eq!(found, [tally(6, true, 59), tally(7, false, 3_539)]);
    }

    #[test]
    fn what_is_the_same_in_a_row_is_said_once() {
        let one = batch(&[(Unit::Minute, Hits::Add(1)), (Unit::Minute, Hits::Add(1))]);
        let other = batch(&[(Unit::Minute, Hits::Add(1)), (Unit::Hour, Hits::GiveBack(2))]);
        let command = Scripts::new().command(Kind::Fixed, By::Hash, b"p:", [&one, &other].into_iter());
        let arguments: Vec<_> = command
            .args_iter()
            .skip(2)
            .map(|argument| match argument {
                redis::Arg::Simple(bytes) => String::from_utf8_lossy(bytes).into_owned(),
                _ => unreachable!("commands here have no cursors"),
            })
            .collect();
        assert_eq!(arguments, ["4", "p:k", "p:k", "p:k", "p:k", "60", "1", "3", "3600", "-2", "1"]);
    }
}
