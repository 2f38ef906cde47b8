//! One limit divided among those who hold a share of it.
//!
//! Pure: events and the time go in, assignments come out. Two things are kept apart. What comes back over time is cut
//! into units, and the units handed out never add up to more than there are: a larger share is promised only once the
//! smaller ones it is taken from are on their way. The burst is a ledger of tokens:
//!
//! ```text
//!              joins, grows: tokens to start with           reports: what was neither used nor can be held
//!   pool ---------------------------------------> holders ------------------------------------------------> pool
//!    ^-- units nobody holds, as they come back
//! ```
//!
//! Each holder's account is an upper bound on the tokens that it may still have, since it starts with a full bucket
//! and says only now and then what it used. So all together admit at most `units * t / fill + burst`, whoever joins,
//! leaves or is lost; what is lost with a stream is never handed out twice: its units return when its assignment has
//! expired, its tokens by time.

use std::collections::BTreeMap;

use super::fair::{self, Wanted};
use super::holder::{Holder, Presence};
pub use super::holder::{Share, Usage};
use super::terms::Terms;

const SECOND_US: f64 = 1e6;
/// A share is larger than what was asked for by this much, so that a steady caller is not refused by chance.
const HEADROOM: f64 = 1.25;
/// Of the units this part is held back while somebody waits for tokens to start with.
const HELD_BACK: u32 = 20;
/// A change of a share by less than this part is not worth a message of its own.
const WORTH_SAYING: u32 = 20;

/// A demand is measured over this long at least.
const MEASURED_OVER_SECONDS: f64 = 0.5;

/// A bucket grows no more often than this, so that others that join meanwhile find something in the pool.
const GROWS_EVERY_US: u64 = 500_000;

/// Names a holder.
pub type HolderId = u64;

/// How to divide.
#[derive(Debug, Clone, Copy)]
pub struct Policy {
    /// How long an assignment lives.
    pub ttl_us: u64,
    /// Whether a lost stream's units are handed out at once; the bound grows by share × lifetime.
    pub reclaim_at_once: bool,
    /// Until then holders of an earlier run may still use what that run gave them.
    pub learning_until_us: u64,
}

/// A limit and its holders.
#[derive(Debug, Clone)]
pub struct Division {
    terms: Terms,
    /// What of the limit is ours to divide: all of it, or this replica's share.
    units: u32,
    burst: u32,
    pool: f64,
    pool_us: u64,
    holders: BTreeMap<HolderId, Holder>,
    /// Tokens used beyond what there were, by all reports so far.
    over: f64,
    /// The global bucket as the reports show it, for [`Self::over`].
    level: f64,
}

impl Division {
    /// Nobody holds anything, and the whole burst is there.
    pub fn new(terms: Terms, now_us: u64) -> Self {
        Self {
            terms,
            units: terms.units,
            burst: terms.burst,
            pool: f64::from(terms.burst),
            pool_us: now_us,
            holders: BTreeMap::new(),
            over: 0.0,
            level: f64::from(terms.burst),
        }
    }

    /// The terms in force.
    pub fn terms(&self) -> &Terms {
        &self.terms
    }

    /// The limit changed.
    pub fn change_terms(&mut self, terms: Terms, now_us: u64) {
        self.advance(now_us);
        self.terms = terms;
        (self.units, self.burst) = (terms.units, terms.burst);
        self.pool = self.pool.min(f64::from(terms.burst));
    }

    /// Of the limit this many units are ours, and the burst in proportion: to be earned, or where nobody else had any
    /// of the limit before (`is_fresh`), there from the start.
    pub fn change_share(&mut self, units: u32, is_fresh: bool, now_us: u64) {
        self.advance(now_us);
        self.units = units.min(self.terms.units);
        let part = u64::from(self.terms.burst) * u64::from(self.units) / u64::from(self.terms.units.max(1));
        self.burst = u32::try_from(part).unwrap_or(self.terms.burst);
        self.pool = if is_fresh { f64::from(self.burst) } else { self.pool.min(f64::from(self.burst)) };
        self.cap_pool();
    }

    /// Whether this holder is known and here.
    pub fn holds(&self, id: HolderId) -> bool {
        self.holders.get(&id).is_some_and(|holder| holder.state == Presence::Here)
    }

    /// Whether nobody holds anything any more.
    pub fn is_empty(&self) -> bool {
        self.holders.is_empty()
    }

    /// Holders that are here.
    pub fn present(&self) -> impl Iterator<Item = HolderId> {
        self.holders.iter().filter(|(_, holder)| holder.state == Presence::Here).map(|(id, _)| *id)
    }

    /// Units in use, promised ones included: what must not be promised to anybody else.
    pub fn units_held(&self) -> u32 {
        self.holders.values().map(|holder| holder.units_held).sum()
    }

    /// Units that would be used if there were enough.
    pub fn units_wanted(&self) -> u32 {
        let here = self.holders.values().filter(|holder| holder.state == Presence::Here);
        here.fold(0, |sum: u32, holder| sum.saturating_add(self.wanted(holder)))
    }

    /// Tokens used beyond burst and rate so far, by the holders' own reports.
    pub fn over(&self) -> f64 {
        self.over
    }

    /// What a holder was told last.
    pub fn told(&self, id: HolderId) -> Option<Share> {
        self.holders.get(&id).map(|holder| holder.told)
    }

    /// Whether the holder was ever told anything, or is about to be.
    pub fn was_told(&self, id: HolderId) -> bool {
        self.holders
            .get(&id)
            .is_some_and(|holder| !holder.is_new || holder.veteran.is_none() || holder.told.units > 0)
    }

    /// Hits a second that a holder was last seen wanting.
    pub fn demand(&self, id: HolderId) -> Option<f64> {
        self.holders.get(&id).and_then(|holder| holder.demand)
    }

    /// A holder reports; an unknown one joins by that. `veteran` says that it had the bucket before we knew it.
    pub fn report(&mut self, id: HolderId, usage: Usage, policy: &Policy, now_us: u64) {
        self.advance(now_us);
        self.level -= usage.allowed as f64;
        if self.level < 0.0 {
            self.over -= self.level;
            self.level = 0.0;
        }
        let learning = now_us < policy.learning_until_us;
        let Some(holder) = self.holders.get_mut(&id) else {
            let veteran = (usage.veteran && learning && usage.elapsed_seconds > 0)
                .then(|| usage.allowed as f64 / usage.elapsed_seconds as f64);
            if veteran.is_some() {
                // An earlier run gave the burst away.
                self.pool = 0.0;
            }
            self.holders.insert(id, Holder::new(veteran, now_us));
            return;
        };
        let asked = (usage.allowed + usage.denied) as f64;
        if usage.veteran && usage.elapsed_seconds == 0 {
            // A proxy that begins anew under its old name: its first hit says nothing about a rate.
            (holder.asked, holder.reported_us) = (0.0, now_us);
        } else {
            holder.asked += asked;
        }
        let seconds = (now_us.saturating_sub(holder.reported_us)) as f64 / SECOND_US;
        // Two messages in the same moment say nothing about a rate: they count with the next one.
        if seconds >= MEASURED_OVER_SECONDS {
            let now = std::mem::take(&mut holder.asked) / seconds;
            // A lull of one report does not cost the share.
            holder.demand = Some(holder.demand.map_or(now, |before| now.max(before / 2.0)));
            holder.reported_us = now_us;
        }
        if asked > 0.0 {
            holder.wanted_us = now_us;
        }
        holder.state = Presence::Here;
        // What came in, was not used and cannot be held was never admitted: it goes back.
        holder.tokens_came_in(&self.terms, now_us);
        let left = (holder.tokens - usage.allowed as f64).max(0.0);
        let held = left.min(f64::from(holder.told.burst));
        holder.tokens = held;
        self.pool += left - held;
        self.cap_pool();
    }

    /// A stream broke: the proxy may live on, with its share, until that expires.
    pub fn lose(&mut self, id: HolderId, policy: &Policy, now_us: u64) {
        self.advance(now_us);
        if policy.reclaim_at_once {
            self.holders.remove(&id);
        } else if let Some(holder) = self.holders.get_mut(&id) {
            holder.state = Presence::Lost;
        }
    }

    /// A holder gave its share back, or was told to: its units are free at once.
    pub fn leave(&mut self, id: HolderId, now_us: u64) {
        self.advance(now_us);
        self.holders.remove(&id);
    }

    /// What the holder was told last is on its way: units it lost by that are free.
    pub fn delivered(&mut self, id: HolderId, policy: &Policy, now_us: u64) {
        self.advance(now_us);
        if let Some(holder) = self.holders.get_mut(&id) {
            holder.tokens_came_in(&self.terms, now_us);
            holder.units_held = holder.told.units;
            holder.expires_us = now_us + policy.ttl_us;
            holder.is_new = false;
        }
    }

    /// Holders that wanted nothing since then.
    pub fn idle_since(&self, since_us: u64) -> Vec<HolderId> {
        let idle = |holder: &Holder| holder.state == Presence::Here && holder.wanted_us < since_us;
        self.holders.iter().filter(|(_, holder)| idle(holder)).map(|(id, _)| *id).collect()
    }

    /// Divides anew. Returns who must be told something else than before.
    pub fn divide(&mut self, policy: &Policy, now_us: u64) -> Vec<HolderId> {
        self.advance(now_us);
        self.holders.retain(|_, holder| holder.state == Presence::Here || holder.expires_us > now_us);
        let ids: Vec<HolderId> = self.present().collect();
        let goals = self.goals(&ids, policy, now_us);
        let mut free = self.units.saturating_sub(self.units_held());
        let bursts = fair::in_proportion(self.burst, &goals);
        let mut changed = Vec::new();
        for ((id, goal), burst_goal) in ids.iter().zip(&goals).zip(&bursts) {
            let before = self.holders[id].told;
            let units = (*goal).min(self.holders[id].units_held + free);
            let burst = self.burst_for(*id, units, (*burst_goal).max(1), now_us);
            let Some(holder) = self.holders.get_mut(id) else { continue };
            let now = if units == 0 || burst == 0 { Share::default() } else { Share { units, burst } };
            let little = |one: u32, other: u32| one.abs_diff(other) <= other / WORTH_SAYING;
            let as_before = little(now.units, before.units) && now.burst == before.burst;
            // A proxy of an earlier run keeps what that gave it until there is something to replace it with.
            let keeps_older = holder.veteran.is_some() && now == Share::default();
            if (as_before && !holder.is_new) || (keeps_older && holder.is_new) {
                continue;
            }
            let grown = now.units.saturating_sub(holder.units_held);
            free -= grown;
            holder.units_held += grown;
            holder.tokens_came_in(&self.terms, now_us);
            let started_with = now.burst.saturating_sub(before.burst);
            if started_with > 0 {
                self.pool -= f64::from(started_with);
                holder.tokens += f64::from(started_with);
                holder.grown_us = now_us;
            }
            holder.told = now;
            if (now.units > 0) != (before.units > 0) {
                holder.turned_us = now_us;
            }
            changed.push(*id);
        }
        changed
    }

    /// Whether dividing again after a while may give somebody more, without any event in between.
    pub fn is_restless(&self) -> bool {
        self.holders.values().any(|holder| {
            holder.state == Presence::Lost || holder.told.burst == 0 || holder.units_held != holder.told.units
        }) || self.is_short_of_tokens()
    }

    fn goals(&self, ids: &[HolderId], policy: &Policy, now_us: u64) -> Vec<u32> {
        let lost: u32 =
            self.holders.values().filter(|h| h.state == Presence::Lost).map(|h| h.units_held).sum();
        let mut total = self.units.saturating_sub(lost);
        if self.is_short_of_tokens() {
            total -= total / HELD_BACK;
        }
        let learning = now_us < policy.learning_until_us;
        let mut wanted: Vec<Wanted> = ids
            .iter()
            .map(|id| {
                let holder = &self.holders[id];
                Wanted { units: self.wanted(holder), patience: holder.patience(policy, now_us) }
            })
            .collect();
        if learning {
            // Nobody of the earlier run gets more than it was seen using, as long as others may still use theirs.
            for (one, id) in wanted.iter_mut().zip(ids) {
                if let Some(used) = self.holders[id].veteran {
                    one.units = one.units.min(self.in_units(used).max(1));
                }
            }
        }
        let mut shares = fair::max_min(total, &wanted);
        if !learning {
            // What nobody wants now is spread as well, so that whoever begins to want it has it already.
            let left = total - shares.iter().sum::<u32>();
            let spare = left / u32::try_from(shares.len().max(1)).unwrap_or(u32::MAX);
            shares.iter_mut().for_each(|share| *share += spare);
        }
        shares
    }

    fn wanted(&self, holder: &Holder) -> u32 {
        match holder.demand {
            Some(demand) => self.in_units(demand * HEADROOM).max(1),
            None => u32::MAX,
        }
    }

    fn in_units(&self, per_second: f64) -> u32 {
        (per_second * f64::from(self.terms.fill_seconds)).ceil().min(f64::from(u32::MAX)) as u32
    }

    /// Tokens a holder's bucket may have: fewer at once, more as far as the pool pays for it, and step by step.
    fn burst_for(&self, id: HolderId, units: u32, goal: u32, now_us: u64) -> u32 {
        if units == 0 {
            return 0;
        }
        let holder = &self.holders[&id];
        let before = holder.told.burst;
        // Whoever always wants more than it gets never fills a bucket; a small one serves it as well.
        let starved = holder.demand.is_some_and(|demand| self.in_units(demand) > units);
        let goal = if starved { goal.min(self.smallest_burst(units).max(before)) } else { goal };
        if goal <= before {
            return goal;
        }
        if before > 0 && now_us < holder.grown_us.saturating_add(GROWS_EVERY_US) {
            return before;
        }
        // Half of what there is, so that something is left for the next one; the last token may be taken.
        let payable = if self.pool >= 2.0 { (self.pool / 2.0).ceil() } else { self.pool.floor() };
        before + (goal - before).min(payable.max(0.0) as u32)
    }

    /// A tenth of a second's worth, and at least two: with a single token part of each refill is lost.
    fn smallest_burst(&self, units: u32) -> u32 {
        (units / self.terms.fill_seconds.max(1) / 10).max(2)
    }

    fn is_short_of_tokens(&self) -> bool {
        let here = self.holders.values().filter(|holder| holder.state == Presence::Here);
        here.clone().count() > 0
            && here.clone().any(|h| h.told.burst < self.smallest_burst(h.told.units).min(self.burst))
    }

    /// Lets units that nobody holds come back into the pool.
    fn advance(&mut self, now_us: u64) {
        let seconds = now_us.saturating_sub(self.pool_us) as f64 / SECOND_US;
        self.pool_us = self.pool_us.max(now_us);
        let unheld = self.units.saturating_sub(self.units_held());
        self.pool += f64::from(unheld) * seconds / f64::from(self.terms.fill_seconds);
        self.level = (self.level + self.terms.per_second() * seconds).min(f64::from(self.terms.burst));
        self.cap_pool();
    }

    /// Pool and buckets together never hold more than the burst.
    fn cap_pool(&mut self) {
        let in_buckets: u32 = self.holders.values().map(|holder| holder.told.burst).sum();
        self.pool = self.pool.min(f64::from(self.burst.saturating_sub(in_buckets)));
    }
}

#[cfg(test)]
#[path = "division_tests.rs"]
mod tests;
