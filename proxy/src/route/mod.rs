//! Which route a request takes. Pure: a request's head in, a route out.
//!
//! The most specific wins, in Gateway API's order: host (exact, then the longest wildcard, then any), path (see
//! [`tollgate_paths::TemplateTrie`]; on one path exact before template before prefix), method, peer, number of
//! headers, number of query parameters, and at last the order in the file. A host whose routes do not match falls back to the next less
//! specific one, so that a route without hosts holds everywhere.

mod backends;
pub mod descriptor;
mod key;
mod matcher;
mod mirror;
mod modify;
mod table;
#[cfg(test)]
mod tests;

pub use backends::{Backends, Chosen};
pub(crate) use key::Hash;
pub use key::Key;
pub use matcher::PeerNames;
pub use mirror::Mirror;
pub use modify::{Modifier, Redirect, Rewrite};
pub use table::{Ask, Found, Table};

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use tollgate_runtime::config::Invalid;

use crate::config::{AuthzMode, Credentials, DescriptorEntry, Guard, Hedge, OnError, RouteConfig, Workload};
use crate::stages::cors::Cors;
use crate::stages::fault::Fault;
use crate::upstream::Retry;
use descriptor::{Descriptor, Value};

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
    /// What the upstream is asked for instead.
    pub rewrite: Option<Rewrite>,
    /// Whether the upstream gets what the client proves itself with.
    pub credentials: Option<Credentials>,
    /// What changes about a request's headers.
    pub request_headers: Modifier,
    /// What changes about an answer's headers.
    pub response_headers: Modifier,
    /// Which pages may call.
    pub cors: Option<Cors>,
    /// Where copies go.
    pub mirror: Option<Mirror>,
    /// What goes wrong on purpose.
    pub fault: Option<Fault>,
    /// How long the upstream may take to begin its answer.
    pub timeout: Duration,
    /// How long an answer may stand still.
    pub idle_timeout: Option<Duration>,
    /// How long an answer may take to its last byte.
    pub stream_timeout: Option<Duration>,
    /// When a request is tried again.
    pub retry: Option<Retry>,
    /// When a second try begins beside the first.
    pub hedge: Option<Hedge>,
    /// Whether authorization is asked.
    pub authz: AuthzMode,
    /// What becomes of its ambiguous paths.
    pub authz_guard: Option<Guard>,
    /// In place of `authz.on_error`.
    pub authz_on_error: Option<OnError>,
    /// In place of `rate_limit.on_error`.
    pub rate_limit_on_error: Option<OnError>,
    /// What its requests are counted by.
    pub descriptors: Vec<Descriptor>,
    /// What its requests are counted by where this proxy decides, by shares of global limits.
    pub quota: Vec<Descriptor>,
    /// Whether the calls of browsers are translated.
    pub grpc_web: bool,
    /// Protocols that its requests may go over to.
    pub upgrades: Vec<String>,
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
    /// Their clients are sent elsewhere.
    Redirect(Redirect),
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

impl Route {
    fn compile(route: &RouteConfig, key: &str) -> Result<Self, Invalid> {
        let action = match (&route.direct_response, &route.request_redirect) {
            (Some(direct), _) => Action::Respond(Direct {
                // Checked with the rest of the configuration.
                status: StatusCode::from_u16(direct.status).unwrap_or(StatusCode::OK),
                body: direct.body.clone().into(),
                when_ready: direct.when_ready.clone(),
            }),
            (None, Some(redirect)) => {
                Action::Redirect(Redirect::compile(redirect, &format!("{key}.request_redirect"))?)
            }
            (None, None) => Action::Forward(Backends::compile(route, key)?),
        };
        let rewrite = route.url_rewrite.as_ref();
        let rewrite = rewrite.map(|one| Rewrite::compile(one, &format!("{key}.url_rewrite")));
        let mut response_headers =
            Modifier::compile(&route.response_header_modifier, &format!("{key}.response_header_modifier"))?;
        if let Some(deprecation) = &route.deprecation {
            response_headers.deprecate(deprecation, &format!("{key}.deprecation"))?;
        }
        let descriptors = compile_all(&route.descriptors, &format!("{key}.descriptors"))?;
        let quota = compile_all(&route.quota, &format!("{key}.quota"))?;
        let cors = route.cors.as_ref().map(|cors| Cors::compile(cors, &format!("{key}.cors")));
        let mirror = route.request_mirror.as_ref();
        let mirror =
            mirror.map(|mirror| Mirror::compile(mirror, &route.name, &format!("{key}.request_mirror")));
        let retry = route.retry.as_ref().map(|retry| Retry::compile(retry, &format!("{key}.retry")));
        let fault = route.fault.as_ref().map(|fault| Fault::compile(fault, &format!("{key}.fault")));
        Ok(Self {
            name: route.name.as_str().into(),
            service_name: route.service.as_ref().map(ToString::to_string),
            service: route.service.clone(),
            action,
            rewrite: rewrite.transpose()?,
            credentials: route.credentials,
            request_headers: Modifier::compile(
                &route.request_header_modifier,
                &format!("{key}.request_header_modifier"),
            )?,
            response_headers,
            cors: cors.transpose()?,
            mirror: mirror.transpose()?,
            fault: fault.transpose()?,
            timeout: route.timeout,
            idle_timeout: route.idle_timeout,
            stream_timeout: route.stream_timeout,
            retry: retry.transpose()?,
            hedge: route.hedge.clone(),
            authz: route.authz.mode,
            authz_on_error: route.authz.on_error,
            authz_guard: route.authz.guard,
            rate_limit_on_error: route.rate_limit.on_error,
            descriptors,
            quota,
            grpc_web: route.grpc_web,
            upgrades: route.upgrades.clone(),
            body_bytes: route.body_bytes,
        })
    }
}

fn compile_all(all: &[Vec<DescriptorEntry>], key: &str) -> Result<Vec<Descriptor>, Invalid> {
    all.iter()
        .map(|entries| Descriptor::compile(entries))
        .collect::<Result<_, _>>()
        .map_err(|problem| Invalid::new(key, problem.to_string(), Value::EXPECTED))
}
