//! Fakes and real servers for tests. They speak the real protocols and stop when dropped.

pub mod envoy;
pub mod redis;
