//! The protocols by which others ask. Each file translates: message in, question out, answer shaped.

mod answer;
pub(crate) mod authzen;
pub mod certificate_authority;
mod changes;
mod check_codec;
pub mod check_request;
mod enforcer;
pub mod ext_authz;
pub(crate) mod forward_auth;
mod login;
mod metadata;
pub mod refusal;
pub mod rollouts;
