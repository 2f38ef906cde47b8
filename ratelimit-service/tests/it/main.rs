//! The rate-limit service from outside: its stores by one contract, its server by a real client.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop there, helpers included")]

mod door;
mod door_tls;
mod envoy;
mod failover;
mod gathering;
mod quota;
mod quota_envoy;
mod recorded;
mod redis_cluster;
mod redis_kinds;
mod reflection;
mod reload;
mod rls;
mod snapshot;
mod store_contract;
mod support;
mod xds;
mod xds_tls;
