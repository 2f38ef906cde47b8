//! Streams, buckets and divisions, under the hub's lock.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use tokio::sync::Notify;

use super::super::division::{Division, HolderId, Policy, Share, Usage};
use super::super::terms::Terms;
use super::{Assignment, MAX_BUCKETS_PER_STREAM, MAX_DIVISIONS, What};
use crate::counters::key;
use crate::limits::{Limit, LimitSet, Mode, Rule};
use crate::window::{Unit, Window};

/// Names a stream.
pub type StreamId = u64;

/// A bucket's id: its entries, in the order of their keys.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BucketId(Box<[(Box<str>, Box<str>)]>);

impl BucketId {
    /// Of entries in any order.
    pub fn new<K: Into<Box<str>>, V: Into<Box<str>>>(entries: impl IntoIterator<Item = (K, V)>) -> Self {
        let mut entries: Box<[(Box<str>, Box<str>)]> =
            entries.into_iter().map(|(key, value)| (key.into(), value.into())).collect();
        entries.sort_unstable();
        Self(entries)
    }

    /// The entries.
    pub fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (&**key, &**value))
    }
}

type Key = Arc<[u8]>;

/// All of it.
#[derive(Debug)]
pub(super) struct State {
    pub(super) streams: HashMap<StreamId, Stream>,
    pub(super) divisions: HashMap<Key, Divided>,
    turns: VecDeque<Key>,
    next_id: u64,
    shared: bool,
}

#[derive(Debug)]
pub(super) struct Stream {
    pub(super) name: Option<Box<str>>,
    buckets: HashMap<Arc<BucketId>, Seat>,
    outbox: HashMap<Arc<BucketId>, Pending>,
    wake: Arc<Notify>,
}

/// Where a bucket's share comes from.
#[derive(Debug)]
struct Seat {
    key: Key,
    holder: HolderId,
}

/// What waits to be told about a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pending {
    Share,
    AllowAll,
    Abandon,
}

/// What a bucket was told last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) share: Share,
    pub(super) fill_seconds: u32,
    pub(super) enforced: bool,
}

/// A limit, whose it is and who sits at it.
#[derive(Debug)]
pub(super) struct Divided {
    pub(super) domain: Box<str>,
    pub(super) entries: Vec<(Box<str>, Box<str>)>,
    pub(super) rule: Box<str>,
    pub(super) division: Division,
    pub(super) seats: HashMap<HolderId, (StreamId, Arc<BucketId>, Option<Told>)>,
    named: HashMap<(Box<str>, Arc<BucketId>), HolderId>,
    over_seen: f64,
}

/// What became of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Joined {
    Known,
    New { shared: bool },
    NoRule,
    TooMany,
}

/// What this replica uses and wants of a limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    pub(in crate::quota) key: Key,
    pub(in crate::quota) held: u32,
    pub(in crate::quota) wanted: u32,
    pub(in crate::quota) total: u32,
}

impl State {
    pub(super) fn new(shared: bool) -> Self {
        Self {
            streams: HashMap::new(),
            divisions: HashMap::new(),
            turns: VecDeque::new(),
            next_id: 0,
            shared,
        }
    }

    pub(super) fn streams(&self) -> usize {
        self.streams.len()
    }

    pub(super) fn divisions(&self) -> usize {
        self.divisions.len()
    }

    pub(super) fn open(&mut self, name: Option<&str>, most: usize) -> Option<(StreamId, Arc<Notify>)> {
        if self.streams.len() >= most {
            return None;
        }
        self.next_id += 1;
        let wake = Arc::new(Notify::new());
        let stream = Stream {
            name: name.map(Into::into),
            buckets: HashMap::new(),
            outbox: HashMap::new(),
            wake: Arc::clone(&wake),
        };
        self.streams.insert(self.next_id, stream);
        Some((self.next_id, wake))
    }

    #[expect(clippy::too_many_arguments, reason = "all of a report, and what it is judged by")]
    pub(super) fn report(
        &mut self,
        stream_id: StreamId,
        domain: &str,
        bucket: BucketId,
        usage: Usage,
        limits: &LimitSet,
        policy: &Policy,
        now_us: u64,
    ) -> Joined {
        let Some(stream) = self.streams.get(&stream_id) else { return Joined::Known };
        let known = stream
            .buckets
            .get_key_value(&bucket)
            .map(|(id, seat)| (Arc::clone(id), Arc::clone(&seat.key), seat.holder));
        let (joined, (id, key, holder)) = match known {
            Some(known) => (Joined::Known, known),
            None => match self.seat(stream_id, domain, bucket, limits, now_us) {
                Ok(seat) => (Joined::New { shared: self.shared }, seat),
                Err(why) => return why,
            },
        };
        let usage = Usage { veteran: joined != Joined::Known, ..usage };
        if let Some(divided) = self.divisions.get_mut(&key) {
            divided.division.report(holder, usage, policy, now_us);
        }
        // Whoever reports is answered, if only to keep its assignment alive.
        self.post(stream_id, &id, Pending::Share);
        self.divide(&key, policy, now_us);
        joined
    }

    /// Finds the limit of a bucket that is new on its stream, and a seat at it.
    fn seat(
        &mut self,
        stream_id: StreamId,
        domain_name: &str,
        bucket: BucketId,
        limits: &LimitSet,
        now_us: u64,
    ) -> Result<(Arc<BucketId>, Key, HolderId), Joined> {
        let entries: Vec<(&str, &str)> = bucket.pairs().collect();
        let domain = limits.domain(domain_name).ok_or(Joined::NoRule)?;
        let (order, rules) = domain.find_unordered(&entries).ok_or(Joined::NoRule)?;
        let id = Arc::new(bucket.clone());
        let Some(terms) = Terms::of(rules) else {
            self.post(stream_id, &id, Pending::AllowAll);
            return Err(Joined::Known);
        };
        let (key, rule) = (counter_key(domain_name, &order, rules), rules[0].name());
        let Some(stream) = self.streams.get_mut(&stream_id) else { return Err(Joined::Known) };
        let no_room = !self.divisions.contains_key(&key) && self.divisions.len() >= MAX_DIVISIONS;
        if no_room || stream.buckets.len() >= MAX_BUCKETS_PER_STREAM {
            return Err(Joined::TooMany);
        }
        if !self.divisions.contains_key(&key) {
            let mut division = Division::new(terms, now_us);
            if self.shared {
                // Until the other replicas were asked nothing of it is ours.
                division.change_share(0, false, now_us);
            }
            let entries = order.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect();
            let divided = Divided {
                domain: domain_name.into(),
                entries,
                rule: rule.into(),
                division,
                seats: HashMap::new(),
                named: HashMap::new(),
                over_seen: 0.0,
            };
            self.divisions.insert(Arc::clone(&key), divided);
            self.turns.push_back(Arc::clone(&key));
        }
        let Some(divided) = self.divisions.get_mut(&key) else { return Err(Joined::TooMany) };
        self.next_id += 1;
        let holder = match &stream.name {
            // A client of a name has one share, on whichever of its streams it spoke last.
            Some(name) => *divided.named.entry((name.clone(), Arc::clone(&id))).or_insert(self.next_id),
            None => self.next_id,
        };
        let before = divided.seats.insert(holder, (stream_id, Arc::clone(&id), None));
        stream.buckets.insert(Arc::clone(&id), Seat { key: Arc::clone(&key), holder });
        if let Some((earlier, ..)) = before
            && earlier != stream_id
            && let Some(earlier) = self.streams.get_mut(&earlier)
        {
            earlier.buckets.remove(&id);
        }
        Ok((id, key, holder))
    }

    pub(super) fn take(
        &mut self,
        stream_id: StreamId,
        most: usize,
        policy: &Policy,
        now_us: u64,
    ) -> Vec<Assignment> {
        let Some(stream) = self.streams.get_mut(&stream_id) else { return Vec::new() };
        let ids: Vec<Arc<BucketId>> = stream.outbox.keys().take(most).cloned().collect();
        let news: Vec<_> =
            ids.into_iter().filter_map(|id| stream.outbox.remove(&id).map(|pending| (id, pending))).collect();
        let mut told = Vec::with_capacity(news.len());
        for (bucket, pending) in news {
            let what = match pending {
                Pending::AllowAll => Some(What::AllowAll),
                Pending::Abandon => self.abandon(stream_id, &bucket, policy, now_us),
                Pending::Share => self.deliver(stream_id, &bucket, policy, now_us),
            };
            told.extend(what.map(|what| Assignment { bucket, what }));
        }
        told
    }

    fn deliver(
        &mut self,
        stream: StreamId,
        bucket: &Arc<BucketId>,
        policy: &Policy,
        now_us: u64,
    ) -> Option<What> {
        let seat = self.streams.get(&stream)?.buckets.get(bucket)?;
        let (key, holder) = (Arc::clone(&seat.key), seat.holder);
        let divided = self.divisions.get_mut(&key)?;
        let share = divided.division.told(holder)?;
        let is_owed = divided.division.was_told(holder);
        if !is_owed {
            // There is nothing to give yet, and nothing to replace what an earlier run gave.
            return None;
        }
        let terms = *divided.division.terms();
        let told = Told { share, fill_seconds: terms.fill_seconds, enforced: terms.enforced };
        let (_, _, before) = divided.seats.get_mut(&holder)?;
        let what = told.what(*before);
        *before = Some(told);
        divided.division.delivered(holder, policy, now_us);
        // What this one lost by that may be owed to others.
        self.divide(&key, policy, now_us);
        Some(what)
    }

    fn abandon(
        &mut self,
        stream: StreamId,
        bucket: &Arc<BucketId>,
        policy: &Policy,
        now_us: u64,
    ) -> Option<What> {
        let seat = self.streams.get_mut(&stream)?.buckets.remove(bucket)?;
        self.leave(&seat, now_us);
        self.divide(&seat.key, policy, now_us);
        Some(What::Abandon)
    }

    fn leave(&mut self, seat: &Seat, now_us: u64) {
        if let Some(divided) = self.divisions.get_mut(&seat.key) {
            divided.division.leave(seat.holder, now_us);
            divided.seats.remove(&seat.holder);
            divided.named.retain(|_, holder| *holder != seat.holder);
        }
    }

    pub(super) fn has_news(&self, stream: StreamId) -> bool {
        self.streams.get(&stream).is_some_and(|stream| !stream.outbox.is_empty())
    }

    pub(super) fn close(&mut self, stream: StreamId, given_back: bool, policy: &Policy, now_us: u64) {
        let Some(stream) = self.streams.remove(&stream) else { return };
        for seat in stream.buckets.values() {
            if given_back {
                self.leave(seat, now_us);
            } else if let Some(divided) = self.divisions.get_mut(&seat.key) {
                divided.division.lose(seat.holder, policy, now_us);
            }
            self.divide(&seat.key, policy, now_us);
        }
    }

    /// Divides a limit anew and posts what changed.
    fn divide(&mut self, key: &Key, policy: &Policy, now_us: u64) {
        let Some(divided) = self.divisions.get_mut(key) else { return };
        let changed = divided.division.divide(policy, now_us);
        let seats: Vec<_> = changed
            .iter()
            .filter_map(|holder| divided.seats.get(holder))
            .map(|(stream, bucket, _)| (*stream, Arc::clone(bucket)))
            .collect();
        for (stream, bucket) in seats {
            self.post(stream, &bucket, Pending::Share);
        }
    }

    fn post(&mut self, stream: StreamId, bucket: &Arc<BucketId>, pending: Pending) {
        if let Some(stream) = self.streams.get_mut(&stream) {
            let waiting = stream.outbox.entry(Arc::clone(bucket)).or_insert(pending);
            *waiting = waiting.or_later(pending);
            stream.wake.notify_one();
        }
    }

    pub(super) fn keys(&self) -> Vec<Key> {
        self.divisions.keys().cloned().collect()
    }

    /// Whose turn it is to be looked at.
    pub(super) fn turn(&mut self, most: usize) -> VecDeque<Key> {
        let count = self.turns.len().min(most);
        let mut turn: Vec<Key> = self.turns.drain(..count).collect();
        // What is gone drops out here, and what came again while it was still listed is listed once.
        turn.sort_unstable();
        turn.dedup();
        turn.retain(|key| self.divisions.contains_key(key));
        self.turns.extend(turn.iter().cloned());
        turn.into()
    }

    /// Looks at what time changed in one division; tokens newly found to be used beyond the limit.
    pub(super) fn look(&mut self, key: &Key, idle_us: u64, policy: &Policy, now_us: u64) -> f64 {
        let Some(divided) = self.divisions.get_mut(key) else { return 0.0 };
        let over = divided.division.over() - divided.over_seen;
        divided.over_seen += over;
        let idle = divided.division.idle_since(now_us.saturating_sub(idle_us));
        let abandoned: Vec<_> = idle
            .iter()
            .filter_map(|holder| divided.seats.get(holder))
            .map(|(stream, bucket, _)| (*stream, Arc::clone(bucket)))
            .collect();
        let restless = divided.division.is_restless();
        for (stream, bucket) in abandoned {
            self.post(stream, &bucket, Pending::Abandon);
        }
        if restless {
            self.divide(key, policy, now_us);
        }
        if self.divisions.get(key).is_some_and(|divided| divided.division.is_empty()) {
            self.divisions.remove(key);
        }
        over
    }

    /// The limit of a division may have changed or gone.
    pub(super) fn apply_limits(&mut self, key: &Key, limits: &LimitSet, policy: &Policy, now_us: u64) {
        let Some(divided) = self.divisions.get_mut(key) else { return };
        let entries: Vec<(&str, &str)> = divided.entries.iter().map(|(k, v)| (&**k, &**v)).collect();
        let terms =
            limits.domain(&divided.domain).and_then(|domain| Terms::of(domain.find(entries.iter().copied())));
        match terms {
            Some(terms) if terms == *divided.division.terms() => {}
            Some(terms) => {
                divided.division.change_terms(terms, now_us);
                if self.shared {
                    divided.division.change_share(0, false, now_us);
                }
                let seats: Vec<_> =
                    divided.seats.values().map(|(stream, bucket, _)| (*stream, Arc::clone(bucket))).collect();
                self.divide(key, policy, now_us);
                for (stream, bucket) in seats {
                    self.post(stream, &bucket, Pending::Share);
                }
            }
            None => {
                let seats: Vec<_> =
                    divided.seats.values().map(|(stream, bucket, _)| (*stream, Arc::clone(bucket))).collect();
                for (stream, bucket) in seats {
                    self.post(stream, &bucket, Pending::Abandon);
                }
            }
        }
    }

    pub(super) fn claims(&self) -> Vec<Claim> {
        let claim = |(key, divided): (&Key, &Divided)| Claim {
            key: Arc::clone(key),
            held: divided.division.units_held(),
            wanted: divided.division.units_wanted(),
            total: divided.division.terms().units,
        };
        self.divisions.iter().map(claim).collect()
    }

    pub(super) fn share(&mut self, key: &[u8], units: u32, is_fresh: bool, policy: &Policy, now_us: u64) {
        let Some((key, _)) = self.divisions.get_key_value(key) else { return };
        let key = Arc::clone(key);
        if let Some(divided) = self.divisions.get_mut(&key) {
            divided.division.change_share(units, is_fresh, now_us);
        }
        self.divide(&key, policy, now_us);
    }
}

/// The name of a division: that of a counter, apart from those that count request by request.
fn counter_key(domain: &str, order: &[(&str, &str)], rules: &[Arc<Rule>]) -> Key {
    let mut buffer = Vec::new();
    let limit = rules.iter().find_map(|rule| rule.limit().copied());
    let limit = limit.unwrap_or(Limit::fixed(0, Window::of(Unit::Second)));
    let shared = rules.first().map_or(&[][..], |rule| &rule.shared);
    key::write(&mut buffer, domain, &limit, Mode::Enforce, order.iter().copied(), shared);
    buffer.extend_from_slice(b"!quota");
    buffer.into()
}
