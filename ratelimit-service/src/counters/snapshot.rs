//! Counters of the memory store on disk, from one run to the next.
//!
//! ```text
//! TGCOUNT1 | key of the prints (16) | entry … | 17 bytes of 255 | SHA-256 of all before (32)
//! entry:  print (16) | kind (1) | fixed: count, window end | bucket: spent, moment, stale at
//!                               | sliding: stale at, moment, entries, (moment, hits) …
//! ```
//!
//! Written beside its place and moved there, readable by its owner alone, since who knows the key could aim at
//! another's counter. A file that is not whole is no file: it is said, and counting begins with nothing. Numbers are
//! little-endian; another version has another first word.

use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use sha2::{Digest as _, Sha256};

use super::memory::{Print, PrintKey};
use super::state::State;
use super::{Bounds, MemoryStore};
use crate::bucket::Spent;
use crate::sliding::{Log, MAX_ENTRIES};

const MAGIC: &[u8; 8] = b"TGCOUNT1";
const FIXED: u8 = 0;
const BUCKET: u8 = 1;
const SLIDING: u8 = 2;

/// Why a file cannot be written or used.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The file, or its folder.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// Of another version, or no snapshot at all.
    #[error("it is no snapshot of this version")]
    Version,
    /// Cut short or changed.
    #[error("it is not whole")]
    Broken,
}

/// Writes the live counters; how many there were.
pub fn write(store: &MemoryStore, file: &Path, now_seconds: u64) -> Result<u64, SnapshotError> {
    let beside = file.with_extension("new");
    let opened = File::options().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    let mut out = Hashing { inner: BufWriter::new(opened), hash: Sha256::new() };
    out.write_all(MAGIC)?;
    out.write_all(&store.print_key())?;
    let mut count = 0;
    store.visit(now_seconds, |print, state| {
        count += 1;
        write_entry(&mut out, print, state)
    })?;
    // The end is marked by a kind that is none, so that the number need not be known before.
    out.write_all(&[u8::MAX; 17])?;
    let digest = out.hash.clone().finalize();
    out.inner.write_all(&digest)?;
    let opened = out.inner.into_inner().map_err(std::io::IntoInnerError::into_error)?;
    opened.sync_all()?;
    std::fs::rename(&beside, file)?;
    Ok(count)
}

/// A store with the counters of an earlier run that still count; none where there is no file.
pub fn read(file: &Path, bounds: Bounds, now_seconds: u64) -> Result<Option<MemoryStore>, SnapshotError> {
    let opened = match File::open(file) {
        Ok(opened) => opened,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let mut input = Hashing { inner: BufReader::new(opened), hash: Sha256::new() };
    if &input.take::<8>()? != MAGIC {
        return Err(SnapshotError::Version);
    }
    let print_key: PrintKey = input.take()?;
    let store = MemoryStore::with_key(bounds, print_key);
    while let Some((print, state)) = read_entry(&mut input)? {
        store.restore(print, state, now_seconds);
    }
    let expected = input.hash.clone().finalize();
    let mut digest = [0; 32];
    input.inner.read_exact(&mut digest).map_err(|_| SnapshotError::Broken)?;
    let mut more = [0; 1];
    if expected[..] != digest[..] || input.inner.read(&mut more)? != 0 {
        return Err(SnapshotError::Broken);
    }
    Ok(Some(store))
}

/// Hashes what passes through.
struct Hashing<T> {
    inner: T,
    hash: Sha256,
}

impl<T: Write> Hashing<T> {
    fn write_all(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.hash.update(bytes);
        self.inner.write_all(bytes)
    }

    fn number(&mut self, number: u64) -> std::io::Result<()> {
        self.write_all(&number.to_le_bytes())
    }
}

impl<T: Read> Hashing<T> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], SnapshotError> {
        let mut bytes = [0; N];
        self.inner.read_exact(&mut bytes).map_err(|_| SnapshotError::Broken)?;
        self.hash.update(bytes);
        Ok(bytes)
    }

    fn read_number(&mut self) -> Result<u64, SnapshotError> {
        self.take().map(u64::from_le_bytes)
    }
}

fn write_entry<T: Write>(out: &mut Hashing<T>, print: Print, state: &State) -> Result<(), SnapshotError> {
    out.number(print.shard)?;
    out.number(print.place)?;
    match state {
        State::Fixed { count, window_end } => {
            out.write_all(&[FIXED])?;
            out.number(*count)?;
            out.number(*window_end)?;
        }
        State::Bucket { spent, stale_at } => {
            out.write_all(&[BUCKET])?;
            out.number(spent.hits.to_bits())?;
            out.number(spent.at_us)?;
            out.number(u64::from(*stale_at))?;
        }
        State::Sliding(sliding) => {
            let (log, stale_at) = sliding.parts();
            out.write_all(&[SLIDING])?;
            out.number(stale_at)?;
            out.number(log.seen_us())?;
            out.number(log.entries().len() as u64)?;
            for (at, hits) in log.entries() {
                out.number(*at)?;
                out.number(*hits)?;
            }
        }
    }
    Ok(())
}

fn read_entry<T: Read>(input: &mut Hashing<T>) -> Result<Option<(Print, State)>, SnapshotError> {
    let print = Print { shard: input.read_number()?, place: input.read_number()? };
    let [kind] = input.take()?;
    let state = match kind {
        FIXED => State::Fixed { count: input.read_number()?, window_end: input.read_number()? },
        BUCKET => {
            let hits = f64::from_bits(input.read_number()?);
            if !hits.is_finite() || hits < 0.0 {
                return Err(SnapshotError::Broken);
            }
            let spent = Spent { hits, at_us: input.read_number()? };
            State::Bucket { spent, stale_at: u32::try_from(input.read_number()?).unwrap_or(u32::MAX) }
        }
        SLIDING => {
            let (stale_at, seen_us, length) =
                (input.read_number()?, input.read_number()?, input.read_number()?);
            if length > MAX_ENTRIES as u64 {
                return Err(SnapshotError::Broken);
            }
            let entries = (0..length).map(|_| Ok((input.read_number()?, input.read_number()?)));
            let log = Log::of_parts(entries.collect::<Result<_, SnapshotError>>()?, seen_us);
            State::of_log(log.ok_or(SnapshotError::Broken)?, stale_at)
        }
        u8::MAX if print == END => return Ok(None),
        _ => return Err(SnapshotError::Broken),
    };
    Ok(Some((print, state)))
}

const END: Print = Print { shard: u64::MAX, place: u64::MAX };

#[cfg(test)]
#[path = "snapshot_tests.rs"]
mod tests;
