//! The one command: the whole system in one process, and the tools beside it.
//!
//! A library too, so that the end-to-end tests run the very system that `tollgate up` runs.

pub mod ca;
pub mod check;
pub mod commands;
pub mod demo;
pub mod explain;
pub mod https;
pub mod policy;
pub mod proxy;
pub mod ratelimit;
pub mod rollout;
pub mod token;
pub mod up;
