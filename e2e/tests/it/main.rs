//! The stories of the whole chain.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test may panic, and waits for what it spawns"
)]

mod authority_away;
mod certificates;
mod cors;
mod demo_table;
mod envoy;
mod failures;
mod idle;
mod killed;
mod limits;
mod mtls;
mod observed;
mod parts;
mod patterns;
mod policy_changes;
mod quota;
mod quotes;
mod revoked;
mod rollout;
mod root_rotation;
mod stores;
mod versions;
