//! A ring of records with two bounds, entries and bytes; the oldest makes room for the newest.

use std::collections::VecDeque;

use super::Record;

/// No record is larger: its texts and lists are cut ([`super::record`]).
pub const MAX_RECORD_BYTES: usize = 32 * 1024;

/// How much may be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Records.
    pub entries: usize,
    /// Their bytes together.
    pub bytes: usize,
}

impl Room {
    /// One of `parts` equal parts.
    pub(super) const fn share(self, parts: usize) -> Self {
        Self { entries: self.entries / parts, bytes: self.bytes / parts }
    }
}

#[derive(Debug)]
pub(super) struct Ring {
    records: VecDeque<Record>,
    /// The record that was pushed out last: its memory serves the next one.
    spare: Option<Record>,
    room: Room,
    bytes: usize,
}

impl Ring {
    pub(super) fn new(room: Room) -> Self {
        Self { records: VecDeque::new(), spare: None, room, bytes: 0 }
    }

    /// Adds a record that `fill` writes.
    pub(super) fn push(&mut self, fill: impl FnOnce(&mut Record)) {
        if self.room.entries == 0 {
            return;
        }
        if self.records.len() >= self.room.entries {
            self.drop_oldest();
        }
        let mut record = self.spare.take().unwrap_or_default();
        record.clear();
        fill(&mut record);
        self.bytes += record.bytes();
        self.records.push_back(record);
        while self.bytes > self.room.bytes && !self.records.is_empty() {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        if let Some(oldest) = self.records.pop_front() {
            self.bytes -= oldest.bytes();
            self.spare = Some(oldest);
        }
    }

    pub(super) fn newest(&self) -> impl Iterator<Item = &Record> {
        self.records.iter().rev()
    }

    pub(super) fn held(&self) -> (usize, usize) {
        (self.records.len(), self.bytes)
    }
}
