//! The protocols by which others ask. Each file translates: message in, question out, answer shaped.

pub mod certificate_authority;
pub mod ext_authz;
mod metadata;
pub mod refusal;
