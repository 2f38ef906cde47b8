//! What a request passes on its way: each stage is one question with one answer.

pub mod address_limit;
pub mod authorize;
pub mod headers;
pub mod quota_headers;
pub mod rate_limit;
pub mod verdict;
