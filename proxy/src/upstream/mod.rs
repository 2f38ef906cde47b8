//! The way to the upstreams: clusters of endpoints, how one is picked, and the connections to it.

mod balance;
mod cluster;
pub(crate) mod mirror;
mod pool;

pub(crate) use cluster::Cluster;
pub(crate) use pool::Lease;
