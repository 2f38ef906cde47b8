//! The proxy with real sockets on both sides and fakes that speak the real protocols.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop there, helpers included")]

mod balancing;
mod client;
mod config;
mod conformance;
mod drain;
mod egress;
mod failure;
mod farewell;
mod flow;
mod grpc;
mod harness;
mod health;
mod hostile;
mod limits;
mod limits_of_streams;
mod local_limits;
mod mirror;
mod mtls;
mod mtls_upstream;
mod overload;
mod pki;
mod process;
mod records;
mod recovery;
mod reload;
mod resilience;
mod restart;
mod rollout;
mod rotation;
mod routing;
#[cfg(feature = "kubernetes")]
mod slices;
mod status;
mod tcp;
mod transparent;
mod upgrades;
mod wire;
