//! A canary's way from its first share of the requests to all of them, or back to none.
//!
//! Proxies count what becomes of requests, the authorization service keeps one record of each rollout and decides. Both
//! use this crate, because a proxy that is cut off decides by the same test for itself. Everything here is pure: counts
//! and a time in, a share and a reason out. Nothing in it reads a clock, locks or waits.
//!
//! * [`Plan`]: what an operator wants: steps, and how bad is too bad.
//! * [`Window`]: what one proxy saw of both versions in the same seconds.
//! * [`Evidence`]: the sequential test; it may be looked at after every window.
//! * [`Analysis`]: both questions about a canary: does it fail more, is it slower.
//! * [`Record`]: where a rollout stands, and what moves it.
//! * [`Follower`]: what a proxy makes of that, above all when nobody tells it.

mod analysis;
mod evidence;
mod follower;
mod plan;
mod record;
#[cfg(test)]
mod simulated;
mod window;

pub use analysis::{Analysis, Finding, Totals, Verdict};
pub use evidence::{Evidence, Trials};
pub use follower::{Follower, Told};
pub use plan::{Latency, Plan, PlanError, Share, Step};
pub use record::{Action, Change, Record, Refused, State};
pub use window::{ArmCounts, BUCKETS, Window, bucket_of, upper_edge_ms};
