//! Which route a request takes. Pure: a request's head in, a route out.
//!
//! The most specific wins, in Gateway API's order: host (exact, then the longest wildcard, then any), path (see
//! [`tollgate_paths::TemplateTrie`]; on one path exact before template before prefix), method, number of
//! headers, and at last the order in the file. A host whose routes do not match falls back to the next less
//! specific one, so that a route without hosts holds everywhere.

pub mod descriptor;
mod table;
#[cfg(test)]
mod tests;

pub use table::{Found, Table};

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;

use crate::config::{AuthzMode, OnError, RouteConfig, Workload};
use descriptor::Descriptor;

/// One route, compiled.
#[derive(Debug)]
pub struct Route {
    /// Its name.
    pub name: Arc<str>,
    /// The service behind it.
    pub service: Option<Workload>,
    /// The same as `namespace/name`, as authorization is told it.
    pub service_name: Option<String>,
    /// What becomes of its requests.
    pub action: Action,
    /// How long the upstream may take to begin its answer.
    pub timeout: Duration,
    /// Whether authorization is asked.
    pub authz: AuthzMode,
    /// In place of `authz.on_error`.
    pub authz_on_error: Option<OnError>,
    /// In place of `rate_limit.on_error`.
    pub rate_limit_on_error: Option<OnError>,
    /// What its requests are counted by.
    pub descriptors: Vec<Descriptor>,
    /// In place of the listener's limit.
    pub body_bytes: Option<u64>,
}

/// What becomes of a route's requests.
#[derive(Debug)]
pub enum Action {
    /// They go to one of these clusters.
    Forward(Backends),
    /// They are answered here.
    Respond(Direct),
}

/// An answer of the proxy's own.
#[derive(Debug)]
pub struct Direct {
    /// Its status.
    pub status: StatusCode,
    /// Its body.
    pub body: bytes::Bytes,
    /// What must be ready for it.
    pub when_ready: Vec<String>,
}

/// Clusters by weight.
#[derive(Debug)]
pub struct Backends {
    /// Cluster names with the sum of weights up to and including each.
    up_to: Vec<(u32, String)>,
}

impl Backends {
    fn new(route: &RouteConfig) -> Self {
        let mut sum = 0_u32;
        let up_to = route
            .backends
            .iter()
            .filter(|backend| backend.weight > 0)
            .map(|backend| {
                sum = sum.saturating_add(backend.weight);
                (sum, backend.cluster.clone())
            })
            .collect();
        Self { up_to }
    }

    /// Whether there is nothing to choose.
    pub fn is_single(&self) -> bool {
        self.up_to.len() == 1
    }

    /// The cluster that the number `draw` falls on.
    pub fn pick(&self, draw: u32) -> Option<&str> {
        let (total, last) = self.up_to.last()?;
        if self.up_to.len() == 1 {
            return Some(last);
        }
        let point = draw % total;
        let index = self.up_to.partition_point(|(up_to, _)| *up_to <= point);
        self.up_to.get(index).map(|(_, cluster)| cluster.as_str())
    }
}

impl Route {
    fn compile(route: &RouteConfig) -> Result<Self, descriptor::UnknownPlaceholder> {
        let action = match &route.direct_response {
            Some(direct) => Action::Respond(Direct {
                // Checked with the rest of the configuration.
                status: StatusCode::from_u16(direct.status).unwrap_or(StatusCode::OK),
                body: direct.body.clone().into(),
                when_ready: direct.when_ready.clone(),
            }),
            None => Action::Forward(Backends::new(route)),
        };
        Ok(Self {
            name: route.name.as_str().into(),
            service_name: route.service.as_ref().map(ToString::to_string),
            service: route.service.clone(),
            action,
            timeout: route.timeout,
            authz: route.authz.mode,
            authz_on_error: route.authz.on_error,
            rate_limit_on_error: route.rate_limit.on_error,
            descriptors: route
                .descriptors
                .iter()
                .map(|entries| Descriptor::compile(entries))
                .collect::<Result<_, _>>()?,
            body_bytes: route.body_bytes,
        })
    }
}
