//! Sums as the pages show them, with each request counted once.
//!
//! A request leaves one record for each proxy it passes, so adding up records would count it twice:
//!
//! - **Totals** ask how much came in: the `gateway`'s records. Plain Envoy says nothing about itself, so records
//!   without a reporter count as a gateway's. In a mesh without a gateway the `destination` records count, and what a
//!   `source` stopped before they could see it.
//! - **A service's own numbers** ask what it got: its `destination` records, which also know calls inside the mesh, plus
//!   whatever another reporter did not hand on to it (`reached` is false). A service without a proxy of its own
//!   has no destination records; then everybody else's count.

use std::collections::BTreeSet;

use crate::record::Outcome;
use crate::store::{Class, Histogram, Rollup, Sum, Sums};

/// Counts by outcome, and durations.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Counts {
    pub(crate) by_outcome: [u64; 4],
    pub(crate) durations: Histogram,
}

impl Counts {
    pub(crate) fn add(&mut self, class: &Class, sum: &Sum) {
        if let Some(count) = self.by_outcome.get_mut(usize::from(class.outcome)) {
            *count += sum.count;
        }
        self.durations.merge(&sum.durations);
    }

    pub(crate) fn of(&self, outcome: Outcome) -> u64 {
        self.by_outcome[outcome as usize]
    }

    pub(crate) fn all(&self) -> u64 {
        self.by_outcome.iter().sum()
    }

    /// Denied, limited and failed.
    pub(crate) fn stopped(&self) -> u64 {
        self.all() - self.of(Outcome::Passed)
    }
}

/// Which records count, decided once over a whole range so that all steps of it agree.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tally {
    gateway: bool,
    destination: bool,
    /// Services with destination records.
    proxied: BTreeSet<String>,
}

impl Tally {
    pub(crate) fn of(rollup: &Rollup) -> Self {
        let mut tally = Self::default();
        for (key, _) in rollup.0.values().flat_map(|sums| &sums.edges) {
            match key.class.reporter.as_str() {
                "destination" => {
                    tally.destination = true;
                    tally.proxied.insert(key.dest.clone());
                }
                "source" => {}
                _ => tally.gateway = true,
            }
        }
        tally
    }

    /// Whether a record of this class counts towards the totals.
    pub(crate) fn in_totals(&self, class: &Class) -> bool {
        match class.reporter.as_str() {
            "destination" => !self.gateway,
            "source" => !self.gateway && (!self.destination || !class.reached),
            _ => true,
        }
    }

    /// Whether a record of this class counts towards the service it went to.
    pub(crate) fn in_service(&self, dest: &str, class: &Class) -> bool {
        class.reporter == "destination" || !class.reached || !self.proxied.contains(dest)
    }

    pub(crate) fn totals(&self, sums: &Sums) -> Counts {
        let mut counts = Counts::default();
        for (key, sum) in sums.edges.iter().filter(|(key, _)| self.in_totals(&key.class)) {
            counts.add(&key.class, sum);
        }
        counts
    }

    pub(crate) fn service(&self, sums: &Sums, name: &str) -> Counts {
        let mut counts = Counts::default();
        for (key, sum) in &sums.routes {
            if key.dest == name && self.in_service(name, &key.class) {
                counts.add(&key.class, sum);
            }
        }
        counts
    }
}
