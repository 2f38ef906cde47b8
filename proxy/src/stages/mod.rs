//! What a request passes on its way: each stage is one question with one answer.

pub mod address_limit;
pub mod authorize;
mod buckets;
pub(crate) mod caller;
pub(crate) mod check_request;
pub(crate) mod client;
pub(crate) mod connection_limit;
pub mod cors;
pub(crate) mod deadline;
pub mod fault;
pub(crate) mod grpc_web;
pub mod headers;
pub(crate) mod judge;
pub mod local_limit;
pub(crate) mod quota;
pub mod quota_headers;
pub mod rate_limit;
pub(crate) mod registry;
pub mod verdict;
