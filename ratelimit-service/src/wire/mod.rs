//! What goes over the wire: Envoy's rate limit service v3.

pub mod messages;
pub mod metadata;
pub mod rls;
