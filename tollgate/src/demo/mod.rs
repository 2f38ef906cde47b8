//! The demo mesh: an issuer, applications and traffic to look at.
//!
//! None of it exists outside `tollgate up`.

pub mod apps;
pub mod behaviour;
pub mod issuer;
pub mod map;
pub mod partner;
pub mod patterns;
pub mod traffic;
