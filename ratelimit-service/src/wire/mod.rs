//! What goes over the wire: Envoy's rate limit service and rate limit quota service v3.

pub mod messages;
pub mod metadata;
pub mod rlqs;
pub mod rls;
