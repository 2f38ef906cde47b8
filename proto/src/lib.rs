//! What passes between the parts of Tollgate, and the words they share.
//!
//! The wires are public standards: Envoy's services come from `envoy_types`, OTLP from
//! `opentelemetry_proto`, both re-exported here so that every part speaks the same generation of
//! them. Ours alone are the closed set of [`Reason`]s and the names of attributes.

pub mod attributes;
pub mod reason;

/// Signing of workload certificates; see `tollgate/identity/v1/certificate_authority.proto`.
pub mod identity {
    #![allow(missing_docs, clippy::all, clippy::pedantic, reason = "generated; the .proto file documents it")]
    tonic::include_proto!("tollgate.identity.v1");
}

/// Canaries that all proxies report to one record and follow; see `tollgate/rollout/v1/rollouts.proto`.
pub mod rollout {
    #![allow(missing_docs, clippy::all, clippy::pedantic, reason = "generated; the .proto file documents it")]
    tonic::include_proto!("tollgate.rollout.v1");
}

/// Descriptors of the services of Envoy's that we serve and of all that they mention, as an encoded `FileDescriptorSet`:
/// for gRPC reflection. Written by `tools/envoy-descriptors`.
pub const ENVOY_DESCRIPTORS: &[u8] = include_bytes!("../descriptors/envoy.bin");

/// The same of our own services.
pub const TOLLGATE_DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/tollgate.bin"));

pub use envoy_types;
pub use opentelemetry_proto;
pub use prost;
pub use prost_types;
pub use reason::Reason;
