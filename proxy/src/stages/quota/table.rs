//! All buckets of this proxy, bounded: what is decided, what is to be reported, what was assigned.

use rustc_hash::FxHashMap;

use super::bucket::{Bucket, By, Strategy, Tokens, Usage};

/// Entries of a descriptor, by their keys.
pub(super) type Entries = Vec<(String, String)>;

/// A bucket that nobody used for so long makes room for another.
const IDLE_NS: u64 = 60_000_000_000;
/// Looking for idle buckets takes its time; so it happens no more often than this.
const SWEEP_EVERY_NS: u64 = 100_000_000;

/// The buckets.
#[derive(Debug)]
pub(super) struct Table {
    buckets: FxHashMap<Entries, Bucket>,
    /// Buckets that no report has named yet.
    unreported: Vec<Entries>,
    /// Those for whom there is no room share this one.
    crowd: Tokens,
    most: usize,
    unassigned_per_second: u32,
    sweep_ns: u64,
    /// Shares were given back, and no new ones are taken.
    closed: bool,
}

/// What came of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Taken {
    pub(super) by: By,
    /// Refused: after how many nanoseconds there may be room.
    pub(super) result: Result<(), u64>,
    /// The service has not heard of the bucket yet.
    pub(super) is_new: bool,
}

impl Table {
    pub(super) fn new(most: usize, unassigned_per_second: u32) -> Self {
        let alone = f64::from(unassigned_per_second);
        Self {
            buckets: FxHashMap::default(),
            unreported: Vec::new(),
            crowd: Tokens::full(alone, alone, 0),
            most,
            unassigned_per_second,
            sweep_ns: 0,
            closed: false,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.buckets.len()
    }

    /// Decides about a request of one bucket.
    pub(super) fn take(&mut self, entries: &Entries, now_ns: u64) -> Taken {
        if let Some(bucket) = self.buckets.get_mut(entries) {
            let (by, result) = bucket.take(now_ns);
            return Taken { by, result, is_new: false };
        }
        if self.buckets.len() >= self.most && now_ns >= self.sweep_ns {
            self.sweep_ns = now_ns.saturating_add(SWEEP_EVERY_NS);
            self.buckets.retain(|_, bucket| now_ns.saturating_sub(bucket.used_ns) < IDLE_NS);
        }
        if self.buckets.len() >= self.most {
            return Taken { by: By::Nothing, result: self.crowd.take(now_ns), is_new: false };
        }
        let mut bucket = Bucket::new(self.unassigned_per_second, now_ns);
        let (by, result) = bucket.take(now_ns);
        self.buckets.insert(entries.clone(), bucket);
        if !self.closed {
            self.unreported.push(entries.clone());
        }
        Taken { by, result, is_new: !self.closed }
    }

    /// A request that passed here was refused elsewhere.
    pub(super) fn give_back(&mut self, entries: &Entries) {
        if let Some(bucket) = self.buckets.get_mut(entries) {
            bucket.give_back();
        }
    }

    /// The use of buckets that no report has named yet.
    pub(super) fn report_new(&mut self, now_ns: u64) -> Vec<(Entries, Usage)> {
        let new = std::mem::take(&mut self.unreported);
        new.into_iter()
            .filter_map(|entries| {
                let usage = self.buckets.get_mut(&entries)?.report(now_ns);
                Some((entries, usage))
            })
            .collect()
    }

    /// The use of all buckets.
    pub(super) fn report_all(&mut self, now_ns: u64) -> Vec<(Entries, Usage)> {
        self.unreported.clear();
        self.buckets.iter_mut().map(|(entries, bucket)| (entries.clone(), bucket.report(now_ns))).collect()
    }

    /// The service has assigned a share; of a bucket that is unknown here it is nothing.
    pub(super) fn assign(&mut self, entries: &Entries, strategy: Strategy, life_ns: u64, now_ns: u64) {
        if self.closed {
            return;
        }
        if let Some(bucket) = self.buckets.get_mut(entries) {
            bucket.assign(strategy, life_ns, now_ns);
        }
    }

    /// The service wants to hear no more of a bucket; the next request reports it anew.
    pub(super) fn abandon(&mut self, entries: &Entries) {
        self.buckets.remove(entries);
    }

    /// Gives all shares back: the last report, after which nothing is decided by them.
    pub(super) fn close(&mut self, now_ns: u64) -> Vec<(Entries, Usage)> {
        self.closed = true;
        let last = self.report_all(now_ns);
        self.buckets.values_mut().for_each(Bucket::unassign);
        last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn entries(value: u32) -> Entries {
        vec![("user".to_owned(), value.to_string())]
    }

    #[test]
    fn buckets_are_bounded_and_idle_ones_make_room() {
        let mut table = Table::new(100, 2);
        let passed = (0..1_000_000).filter(|n| table.take(&entries(*n), 0).result.is_ok()).count();
        assert_eq!((table.len(), passed), (100, 102));
        assert_eq!(table.report_new(0).len(), 100);
        assert!(table.take(&entries(2_000_000), IDLE_NS).is_new);
        assert_eq!(table.len(), 1);
    }

    #[test]
    fn a_bucket_is_new_once_and_again_when_it_was_abandoned() {
        let mut table = Table::new(100, 2);
        assert!(table.take(&entries(1), 0).is_new && !table.take(&entries(1), 0).is_new);
        assert_eq!(
            table.report_new(SECOND),
            [(entries(1), Usage { allowed: 2, denied: 0, elapsed_ns: SECOND })]
        );
        assert!(table.report_new(SECOND).is_empty());
        assert_eq!(table.report_all(SECOND).len(), 1);
        table.abandon(&entries(1));
        assert!(table.report_all(SECOND).is_empty() && table.take(&entries(1), SECOND).is_new);
    }

    #[test]
    fn after_the_last_report_no_share_is_used() {
        let mut table = Table::new(100, 0);
        table.take(&entries(1), 0);
        table.assign(&entries(1), Strategy::AllowAll, SECOND, 0);
        table.assign(&entries(7), Strategy::AllowAll, SECOND, 0);
        assert!(table.take(&entries(1), 0).result.is_ok());
        assert_eq!(table.close(0)[0].1, Usage { allowed: 1, denied: 1, elapsed_ns: 0 });
        table.assign(&entries(1), Strategy::AllowAll, SECOND, 0);
        assert!(table.take(&entries(1), 0).result.is_err() && !table.take(&entries(2), 0).is_new);
    }
}
