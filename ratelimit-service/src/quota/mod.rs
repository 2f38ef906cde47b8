//! Quota: one global limit divided among proxies that decide by themselves (RLQS).
//!
//! [`fair`] says who gets how much, [`terms`] how a limit is cut, [`division`] keeps one limit's holders and their
//! accounts; all three are pure. [`hub`] has the divisions of all limits and the streams they are told over, and
//! [`replicas`] shares them with other replicas of this service through Redis.
//!
//! The bound, for all proxies together: `rate * t + burst`. Two things may add to it, each once: a restart of this
//! service (what the run before had handed out may be used until it expires: at most one lifetime of the rate, and the
//! burst), and `reclaim: at_once` (for each stream lost, its share times the lifetime).

pub mod division;
pub mod fair;
mod holder;
pub mod hub;
pub mod replicas;
pub mod terms;

pub use hub::Hub;
