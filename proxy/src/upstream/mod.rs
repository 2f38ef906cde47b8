//! The way to the upstreams. In reading order:
//!
//! * `cluster`: who belongs to it and who may be used; `endpoint`: one address; `selection`: what is picked from.
//! * `forward`: one request, its tries and its time; `pool`: connections; `mirror`: copies; `through`: bytes alone.
//! * Pure: `balance` and `hashing` (which endpoint), `eject` (who is left out and why), `retry` (whether again);
//!   `tally` and `breaker` count.
//! * `loops`: our own connections, so that none comes back to us.
//! * `health`: asking endpoints how they are; `discover`: finding them; `report`: telling about them.

mod balance;
mod breaker;
mod cluster;
mod dial;
pub(crate) mod discover;
mod eject;
mod endpoint;
mod forward;
mod hashing;
mod health;
mod loops;
pub(crate) mod mirror;
mod pool;
pub(crate) mod report;
mod retry;
mod selection;
mod tally;
mod through;

pub(crate) use breaker::Full;
pub(crate) use cluster::Cluster;
pub(crate) use dial::CARRIED_IN;
pub(crate) use forward::{Pace, forward, forward_until};
pub(crate) use loops::Loops;
pub(crate) use pool::Lease;
pub(crate) use retry::Retry;
