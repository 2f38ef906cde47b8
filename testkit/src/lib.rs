//! Fakes and real servers for tests. They speak the real protocols and stop when dropped.

pub mod authority;
pub mod checks;
pub mod echo_app;
pub mod envoy;
pub mod envoy_limits;
pub mod envoy_quota;
pub mod fake_authz;
pub mod fake_collector;
pub mod fake_ratelimit;
pub mod grpc;
pub mod kubernetes_api;
pub mod ports;
pub mod postgres;
pub mod redis;
pub mod reflection;
pub mod relay;
pub mod signer;
pub mod workload_api;
