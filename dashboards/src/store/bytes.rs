//! Reading and writing bytes of the store. A reader never panics: bytes on disk may be damaged.

use super::words::Words;

/// What is on disk cannot be what we wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("damaged block: {0}")]
pub(crate) struct Damaged(pub(crate) &'static str);

pub(crate) fn put_varint(into: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        into.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    into.push(value as u8);
}

/// Small numbers of either sign become small numbers without one.
pub(crate) fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

pub(crate) fn unzigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -((value & 1).cast_signed())
}

pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn varint(&mut self) -> Result<u64, Damaged> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let (first, rest) = self.0.split_first().ok_or(Damaged("number cut off"))?;
            self.0 = rest;
            value |= u64::from(first & 0x7f) << shift;
            if first & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Damaged("number too long"))
    }

    pub(crate) fn length(&mut self) -> Result<usize, Damaged> {
        usize::try_from(self.varint()?).map_err(|_| Damaged("length too large"))
    }

    pub(crate) fn take(&mut self, n: usize) -> Result<&'a [u8], Damaged> {
        let (taken, rest) = self.0.split_at_checked(n).ok_or(Damaged("bytes cut off"))?;
        self.0 = rest;
        Ok(taken)
    }
}

pub(crate) fn put_words(into: &mut Vec<u8>, words: &Words) {
    put_varint(into, words.len() as u64);
    for word in words.iter() {
        put_varint(into, word.0.len() as u64);
    }
    into.extend_from_slice(&words.bytes);
}

pub(crate) fn read_words(reader: &mut Reader<'_>) -> Result<Words, Damaged> {
    let count = reader.length()?;
    if count > reader.0.len() {
        return Err(Damaged("more words than bytes"));
    }
    let lengths = (0..count).map(|_| reader.length()).collect::<Result<Vec<_>, _>>()?;
    let mut words = Words::default();
    for length in lengths {
        words.push(reader.take(length)?);
    }
    Ok(words)
}
