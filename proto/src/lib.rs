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

pub use envoy_types;
pub use opentelemetry_proto;
pub use prost;
pub use prost_types;
pub use reason::Reason;
