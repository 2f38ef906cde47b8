//! Who may ask, about what, and on whose behalf.

use std::net::SocketAddr;
use std::sync::Arc;

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
    /// Who asks from this address. Until callers prove who they are, only this machine is answered.
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

    /// Where the requests that it asks about came into the mesh. A plain Envoy says no point: whoever set it up on this
    /// machine without one made it a gateway.
    pub(super) fn entry(&self, said: Option<&str>) -> Result<Entry, MayNotAsk> {
        let point = match (&self.0, said) {
            (Some(enforcer), _) => enforcer.point,
            (None, None) => Point::Ingress,
            (None, Some(point)) => Point::parse(point).ok_or(MayNotAsk::Point)?,
        };
        Ok(if point.is_entry() { Entry::Outside } else { Entry::Inside })
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
