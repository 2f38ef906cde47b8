//! One holder of a share: what it was told, wants, and may still have.

use super::division::Policy;
use super::terms::Terms;

/// What a holder is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Share {
    /// Units of each fill; none means that everything is refused.
    pub units: u32,
    /// Tokens its bucket holds.
    pub burst: u32,
}

/// What a report says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Requests that passed since the last one.
    pub allowed: u64,
    /// Requests that did not.
    pub denied: u64,
    /// The time since the last one, as the proxy has it.
    pub elapsed_seconds: u64,
    /// It is the first report of this bucket on its stream, and speaks of time before it.
    pub veteran: bool,
}

/// A proxy, as a division knows it.
#[derive(Debug, Clone)]
pub(super) struct Holder {
    /// Hits a second it was last seen wanting; unknown at first.
    pub(super) demand: Option<f64>,
    /// Hits a second it was seen using before this run knew it.
    pub(super) veteran: Option<f64>,
    /// Hits asked for since its demand was last measured, at `reported_us`.
    pub(super) asked: f64,
    pub(super) reported_us: u64,
    /// What it has been told last, or is about to be told.
    pub(super) told: Share,
    /// The most it may be using: what it was told, and what it was told before as long as that is under way.
    pub(super) units_held: u32,
    /// The tokens it may still have, as of the last report.
    pub(super) tokens: f64,
    pub(super) tokens_us: u64,
    pub(super) expires_us: u64,
    pub(super) state: Presence,
    /// When its bucket last grew.
    pub(super) grown_us: u64,
    /// When it began to get something, or nothing.
    pub(super) turned_us: u64,
    /// When it last wanted something.
    pub(super) wanted_us: u64,
    /// Its first assignment is still to come.
    pub(super) is_new: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Presence {
    Here,
    Lost,
}

impl Holder {
    pub(super) fn new(veteran: Option<f64>, now_us: u64) -> Self {
        Self {
            demand: None,
            veteran,
            asked: 0.0,
            reported_us: now_us,
            told: Share::default(),
            units_held: 0,
            tokens: 0.0,
            tokens_us: now_us,
            expires_us: now_us,
            state: Presence::Here,
            grown_us: 0,
            turned_us: now_us,
            wanted_us: now_us,
            is_new: true,
        }
    }

    /// Where there is too little for all, whoever has it keeps it for a lifetime, and then whoever waited longest is next.
    pub(super) fn patience(&self, policy: &Policy, now_us: u64) -> u64 {
        let since = now_us.saturating_sub(self.turned_us);
        match self.told.units {
            0 => since,
            _ if since < policy.ttl_us => u64::MAX,
            _ => 0,
        }
    }

    pub(super) fn tokens_came_in(&mut self, terms: &Terms, now_us: u64) {
        let seconds = now_us.saturating_sub(self.tokens_us) as f64 / 1e6;
        self.tokens += f64::from(self.units_held) * seconds / f64::from(terms.fill_seconds);
        self.tokens_us = self.tokens_us.max(now_us);
    }
}
