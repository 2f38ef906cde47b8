//! Who may ask, about what, and on whose behalf.

use std::net::SocketAddr;
use std::sync::Arc;

use tollgate_identity::tls::Peer;
use tonic::Request;

use crate::facts::{Entry, Guard};
use crate::policy::Snapshot;
use crate::policy::model::Enforcer;
use crate::policy::spec::Point;

/// The enforcer that asks in plaintext on loopback.
const LOCAL: &str = "local";

/// Somebody who may ask.
#[derive(Debug, Clone)]
pub(super) struct Asker(Option<Arc<Enforcer>>);

/// Why somebody may not ask, or not this.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum MayNotAsk {
    #[error("only enforcers may ask")]
    Stranger,
    #[error("the enforcer is revoked")]
    Revoked,
    #[error("the enforcer may not speak for this source")]
    Source,
    #[error("the enforcer may not ask about this service")]
    Service,
    #[error("tollgate.point names no point")]
    Point,
    #[error("tollgate.guard is none of deny, log and off")]
    Guard,
}

impl Asker {
    /// Who makes this call: whoever its connection's certificate names, or this machine in plaintext.
    pub(super) fn of<T>(call: &Request<T>, snapshot: &Snapshot, now: i64) -> Result<Self, MayNotAsk> {
        match call.extensions().get::<Peer>() {
            Some(peer) => Self::with(Some(peer), snapshot, now),
            None => Self::at(call.remote_addr(), snapshot),
        }
    }

    /// Who is at the other end of a connection of ours.
    pub(super) fn with(peer: Option<&Peer>, snapshot: &Snapshot, now: i64) -> Result<Self, MayNotAsk> {
        let Some(leaf) = peer.and_then(|peer| peer.leaf.as_ref()) else {
            return Self::at(peer.map(|peer| peer.address), snapshot);
        };
        if snapshot.revokes_caller(leaf.id.as_str(), &leaf.serial, now) {
            return Err(MayNotAsk::Revoked);
        }
        match snapshot.enforcer_with(leaf.id.as_str()) {
            Some(enforcer) => Ok(Self(Some(Arc::clone(enforcer)))),
            None => {
                tracing::warn!(peer = tracing::field::Empty, id = %leaf.id, "call refused: the policy knows no enforcer of this id");
                Err(MayNotAsk::Stranger)
            }
        }
    }

    /// Who asks from this address in plaintext: only this machine is answered.
    pub(super) fn at(address: Option<SocketAddr>, snapshot: &Snapshot) -> Result<Self, MayNotAsk> {
        if !address.is_some_and(|address| address.ip().is_loopback()) {
            return Err(MayNotAsk::Stranger);
        }
        Ok(Self::local(snapshot))
    }

    /// Who asks from within this process or machine.
    pub(super) fn local(snapshot: &Snapshot) -> Self {
        Self(snapshot.enforcer(LOCAL).cloned())
    }

    /// As policy calls it.
    pub(super) fn name(&self) -> &str {
        self.0.as_ref().map_or(LOCAL, |enforcer| &enforcer.name)
    }

    /// Where the requests that it asks about came into the mesh. A plain Envoy says no point: whoever set it up on this
    /// machine without one made it a gateway.
    pub(super) fn entry(
        &self,
        said: Option<&str>,
        source: Option<&str>,
        snapshot: &Snapshot,
    ) -> Result<Entry, MayNotAsk> {
        let point = match (&self.0, said) {
            (Some(enforcer), _) => enforcer.point,
            (None, None) => Point::Ingress,
            (None, Some(point)) => Point::parse(point).ok_or(MayNotAsk::Point)?,
        };
        // Behind an ingress, what comes from it came from outside.
        let is_outside = point.is_entry() || source.is_some_and(|source| Self::is_entry(source, snapshot));
        Ok(if is_outside { Entry::Outside } else { Entry::Inside })
    }

    /// Whether a workload is an entry of the mesh.
    pub(super) fn is_entry(workload: &str, snapshot: &Snapshot) -> bool {
        snapshot.enforcer_with(workload).is_some_and(|enforcer| enforcer.point.is_entry())
    }

    /// What the route's guard does. Whoever may ask at all is an enforcer, and its operator is believed about routes.
    pub(super) fn guard(said: Option<&str>) -> Result<Guard, MayNotAsk> {
        said.map_or(Ok(Guard::Deny), |word| Guard::parse(word).ok_or(MayNotAsk::Guard))
    }

    /// Whether it may speak for a workload.
    pub(super) fn may_speak_for(&self, peer: &str) -> Result<(), MayNotAsk> {
        match &self.0 {
            Some(enforcer)
                if !enforcer.sources.is_empty()
                    && !enforcer.sources.iter().any(|pattern| pattern.matches(peer)) =>
            {
                Err(MayNotAsk::Source)
            }
            _ => Ok(()),
        }
    }

    /// Whether it may ask about a service.
    pub(super) fn may_ask_about(&self, service: &str) -> Result<(), MayNotAsk> {
        match self.0.as_ref().and_then(|enforcer| enforcer.services.as_ref()) {
            Some(services) if !services.contains(service) => Err(MayNotAsk::Service),
            _ => Ok(()),
        }
    }
}
