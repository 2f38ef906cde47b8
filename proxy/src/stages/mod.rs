//! What a request passes on its way: each stage is one question with one answer.

pub mod address_limit;
pub mod authorize;
pub(crate) mod caller;
pub mod cors;
pub mod fault;
pub mod headers;
pub(crate) mod judge;
pub mod quota_headers;
pub mod rate_limit;
pub(crate) mod registry;
pub mod verdict;
