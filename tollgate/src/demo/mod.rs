//! The demo mesh: an issuer, applications and traffic to look at.
//!
//! None of it exists outside `tollgate up`.

pub mod apps;
pub mod issuer;
pub mod patterns;
pub mod traffic;
