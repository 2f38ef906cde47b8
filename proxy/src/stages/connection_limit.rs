//! Asking the rate-limit service about a new connection, before a byte of it is read.

use http::{HeaderMap, Method, StatusCode};
use tollgate_proto::Reason;

use super::rate_limit::Outcome;
use crate::config::{self, OnError};
use crate::listener::Connection;
use crate::pipeline::Proxy;
use crate::record::connection_failed;
use crate::route::descriptor::{Descriptor, Facts};

/// What the connections of one listener are counted by.
#[derive(Debug)]
pub(crate) struct ConnectionLimit {
    descriptors: Vec<Descriptor>,
    on_error: Option<OnError>,
}

impl ConnectionLimit {
    /// The configuration is checked.
    pub(crate) fn compile(config: &config::ConnectionLimit) -> Self {
        let descriptors = config.descriptors.iter().filter_map(|one| Descriptor::compile(one).ok()).collect();
        Self { descriptors, on_error: config.on_error }
    }

    /// Asks; a connection that is refused is recorded, and closed by the caller.
    pub(crate) async fn admits(&self, proxy: &Proxy, connection: &Connection) -> bool {
        let Some(limiter) = proxy.snapshot.load().limiter.clone() else { return true };
        let headers = HeaderMap::new();
        let facts = Facts {
            listener: &connection.listener.config().name,
            client: connection.peer.ip().to_canonical(),
            ..Facts::of_nobody(&Method::GET, &headers)
        };
        let descriptors = self.descriptors.iter().filter_map(|one| one.fill(&facts)).collect();
        let outcome = limiter.ask(descriptors, &opentelemetry::Context::new()).await;
        let (metrics, domain) = (&proxy.reporter.metrics, &limiter.config().domain);
        let (status, reason) = match outcome {
            Outcome::Within(_) => {
                metrics.connection_limit(domain, "allow", "none");
                return true;
            }
            Outcome::Over(..) => {
                metrics.connection_limit(domain, "deny", "none");
                (StatusCode::TOO_MANY_REQUESTS, Reason::LimitExceeded)
            }
            Outcome::Unavailable => {
                let on_error = limiter.on_error(self.on_error);
                metrics.connection_limit(domain, "error", on_error.as_str());
                if on_error == OnError::Allow {
                    return true;
                }
                (StatusCode::SERVICE_UNAVAILABLE, Reason::RatelimitUnavailable)
            }
        };
        connection_failed(&proxy.reporter, connection, status, reason, "the connection is over a limit");
        false
    }
}
