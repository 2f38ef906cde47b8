//! What this service counts. Labels are closed sets.

use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, Gauge, Meter};
use tollgate_proto::Reason;
use tollgate_rollout::State;

use crate::policy::Verdict;

/// The instruments; cheap to clone.
#[derive(Debug, Clone)]
pub struct Metrics {
    decisions: Counter<u64>,
    epoch: Gauge<u64>,
    reload_failures: Counter<u64>,
    key_refreshes: Counter<u64>,
    keys_ending: Gauge<u64>,
    admin_writes: Counter<u64>,
    rollout_reports: Counter<u64>,
    rollout_changes: Counter<u64>,
}

impl Metrics {
    /// Makes the instruments.
    pub fn new(meter: &Meter) -> Self {
        Self {
            decisions: meter
                .u64_counter("tollgate.authz.decisions")
                .with_description("Decisions by verdict and reason")
                .build(),
            epoch: meter.u64_gauge("tollgate.policy.epoch").with_description("The policy in force").build(),
            reload_failures: meter
                .u64_counter("tollgate.policy.reload_failures")
                .with_description("Times that a new policy could not be loaded and the old one stayed")
                .build(),
            key_refreshes: meter
                .u64_counter("tollgate.jwks.refreshes")
                .with_description("Fetches of issuers' key sets by outcome")
                .build(),
            keys_ending: meter
                .u64_gauge("tollgate.issuers.keys_ending")
                .with_description(
                    "Issuers with a key in a certificate that ends within 30 days, or has ended",
                )
                .build(),
            admin_writes: meter
                .u64_counter("tollgate.admin.writes")
                .with_description("Changes made by the admin API")
                .build(),
            rollout_reports: meter
                .u64_counter("tollgate.rollout.reports")
                .with_description("Windows that proxies reported of their canaries, by what became of them")
                .with_unit("{window}")
                .build(),
            rollout_changes: meter
                .u64_counter("tollgate.rollout.changes")
                .with_description("Steps, roll-backs and other changes of rollouts")
                .with_unit("{change}")
                .build(),
        }
    }

    /// A request was decided.
    pub fn decided(&self, verdict: Verdict, reason: Reason) {
        let decision = match verdict {
            Verdict::Allow => "allow",
            Verdict::Deny => "deny",
        };
        self.decisions
            .add(1, &[KeyValue::new("decision", decision), KeyValue::new("reason", reason.as_str())]);
    }

    /// A policy is in force.
    pub fn epoch(&self, epoch: u64) {
        self.epoch.record(epoch, &[]);
    }

    /// A policy could not be loaded; `cause` is `database`, `invalid`, or `left_out` for one object at the
    /// start.
    pub fn reload_failed(&self, cause: &'static str) {
        self.reload_failures.add(1, &[KeyValue::new("cause", cause)]);
    }

    /// A key set was fetched, or not; `outcome` is `unchanged`, `changed` or `failed`.
    pub fn keys_refreshed(&self, outcome: &'static str) {
        self.key_refreshes.add(1, &[KeyValue::new("outcome", outcome)]);
    }

    /// So many issuers have keys that end soon, and so many have keys that have ended.
    pub fn keys_ending(&self, soon: usize, ended: usize) {
        for (state, count) in [("soon", soon), ("ended", ended)] {
            self.keys_ending.record(count as u64, &[KeyValue::new("state", state)]);
        }
    }

    /// Windows of canaries came; `outcome` is `counted`, `repeated`, `crowded`, `refused` or `failed`.
    pub fn rollout_reports(&self, outcome: &'static str, windows: usize) {
        if windows > 0 {
            self.rollout_reports.add(windows as u64, &[KeyValue::new("outcome", outcome)]);
        }
    }

    /// A rollout has changed; `action` is `step`, or what somebody wanted.
    pub fn rollout_changed(&self, action: &'static str, to: State) {
        self.rollout_changes.add(1, &[KeyValue::new("action", action), KeyValue::new("to", to.as_str())]);
    }

    /// The policy was changed by the admin API.
    pub fn admin_write(&self) {
        self.admin_writes.add(1, &[]);
    }
}
