//! What passes between the parts of Tollgate, and the words they share.
//!
//! The wires are public standards: Envoy's services come from `envoy_types`, OTLP from
//! `opentelemetry_proto`, both re-exported here so that every part speaks the same generation of
//! them. Ours alone are the closed set of [`Reason`]s and the names of attributes.

pub mod attributes;
pub mod reason;

pub use envoy_types;
pub use opentelemetry_proto;
pub use prost;
pub use prost_types;
pub use reason::Reason;
