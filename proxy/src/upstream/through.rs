//! A connection to an endpoint that carries bytes, whatever they mean: nobody else uses it.

use std::net::SocketAddr;
use std::sync::Arc;

use smallvec::SmallVec;
use tokio::time::Instant;

use super::Cluster;
use super::breaker::Place;
use super::cluster::Picked;
use super::dial::Dialed;
use super::loops::Entry;
use super::tally::Outcome;
use crate::error::ProxyError;
use crate::proxy_protocol::Ends;
use crate::socket::Socket;

/// Endpoints that are tried: nothing has been sent to one that could not be connected to.
const TRIES: usize = 3;

/// A connection of bytes to an endpoint, under way until this is dropped.
#[derive(Debug)]
pub(crate) struct Through {
    pub(crate) stream: Socket,
    /// When a certificate at one of its ends has ended.
    pub(crate) cut: Option<Instant>,
    picked: Picked,
    _place: Place,
    _entry: Option<Entry>,
}

impl Through {
    /// The endpoint broke it off.
    pub(crate) fn broke_off(&self) {
        self.picked.failed(&ProxyError::UpstreamReset(None));
    }
}

impl Cluster {
    /// Opens a connection to an endpoint, to another one if it cannot be reached. `at` is the last that was tried, `wanted`
    /// the port that the client wanted.
    pub(crate) async fn through(
        self: &Arc<Self>,
        at: &mut Option<SocketAddr>,
        ends: Option<Ends>,
        wanted: u16,
    ) -> Result<Through, ProxyError> {
        let place = self.admit()?;
        let mut tried = SmallVec::<[SocketAddr; TRIES]>::new();
        loop {
            let picked = self.pick(self.key_of(wanted), &tried)?;
            *at = Some(picked.address());
            let error = match picked.endpoint.pool.connect(ends).await {
                Ok(Dialed { stream, cut, entry, .. }) => {
                    self.note(&picked.endpoint, Outcome::Good);
                    return Ok(Through { stream, cut, picked, _place: place, _entry: entry });
                }
                Err(error) => error,
            };
            picked.failed(&error);
            let is_last = tried.contains(&picked.address());
            tried.push(picked.address());
            if is_last || tried.len() == TRIES {
                return Err(error);
            }
        }
    }
}
