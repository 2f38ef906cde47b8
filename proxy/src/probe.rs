//! Whether the other parts are ready, for direct responses that are given only then.
//!
//! Every target is asked on a timer, never by a request: an answer is at most one interval old, and a flood of
//! health checks reaches nobody. A target that was never asked is not ready.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::header::HOST;
use http::{Request, StatusCode, Uri};
use http_body_util::Empty;
use hyper_util::rt::TokioIo;
use rustc_hash::FxHashMap;
use tokio::net::TcpStream;
use tollgate_runtime::Service;

use crate::config::Config;

const EVERY: Duration = Duration::from_millis(500);
const PATIENCE: Duration = Duration::from_millis(400);

/// Something that can be ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    /// This proxy.
    Itself,
    /// Whatever answers 200 at this URL.
    Url(Uri),
}

impl Target {
    /// Reads `self` or a plaintext URL.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        if text == "self" {
            return Some(Self::Itself);
        }
        let uri: Uri = text.parse().ok()?;
        (uri.scheme_str() == Some("http") && uri.host().is_some()).then_some(Self::Url(uri))
    }
}

/// The targets of all routes, and what was last found out about them.
#[derive(Debug)]
pub(crate) struct Probes {
    service: Service,
    targets: ArcSwap<FxHashMap<String, Arc<Probe>>>,
}

#[derive(Debug)]
struct Probe {
    target: Target,
    ready: AtomicBool,
}

impl Probes {
    pub(crate) fn new(service: Service) -> Self {
        Self { service, targets: ArcSwap::default() }
    }

    /// Watches the targets of `config` from now on.
    pub(crate) fn follow(&self, config: &Config) {
        let before = self.targets.load_full();
        let names = config.routes.iter().filter_map(|route| route.direct_response.as_ref());
        let targets = names
            .flat_map(|direct| &direct.when_ready)
            .filter_map(|name| {
                let target = Target::parse(name)?;
                let new = || Arc::new(Probe { target, ready: AtomicBool::new(false) });
                Some((name.clone(), before.get(name).cloned().unwrap_or_else(new)))
            })
            .collect();
        self.targets.store(Arc::new(targets));
    }

    /// The first of `names` that is not ready.
    pub(crate) fn first_not_ready<'n>(&self, names: &'n [String]) -> Option<&'n str> {
        if names.is_empty() {
            return None;
        }
        let targets = self.targets.load();
        names
            .iter()
            .map(String::as_str)
            .find(|name| !targets.get(*name).is_some_and(|probe| self.is_ready(probe)))
    }

    fn is_ready(&self, probe: &Probe) -> bool {
        match probe.target {
            Target::Itself => self.service.readiness().is_ready(),
            Target::Url(_) => probe.ready.load(Ordering::Relaxed),
        }
    }

    /// Asks all targets, again and again, until the service stops.
    pub(crate) async fn run(&self) {
        let stopping = self.service.tasks().stopping();
        loop {
            let targets = self.targets.load_full();
            for probe in targets.values() {
                if let Target::Url(uri) = &probe.target {
                    let ready = matches!(tokio::time::timeout(PATIENCE, ask(uri)).await, Ok(Ok(true)));
                    probe.ready.store(ready, Ordering::Relaxed);
                }
            }
            tokio::select! {
                () = stopping.cancelled() => return,
                () = tokio::time::sleep(EVERY) => {}
            }
        }
    }
}

async fn ask(uri: &Uri) -> anyhow::Result<bool> {
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    let stream = TcpStream::connect((host, uri.port_u16().unwrap_or(80))).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let target = uri.path_and_query().map_or("/", |target| target.as_str());
    let request = Request::get(target).header(HOST, authority).body(Empty::<Bytes>::new())?;
    // The connection lives as long as the question.
    tokio::select! {
        answer = sender.send_request(request) => Ok(answer?.status() == StatusCode::OK),
        ended = connection => {
            ended?;
            Ok(false)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets() {
        for (text, expected) in [
            ("self", true),
            ("http://127.0.0.1:7101/ready", true),
            ("https://127.0.0.1/", false),
            ("authz", false),
            ("", false),
        ] {
            assert_eq!(Target::parse(text).is_some(), expected, "{text}");
        }
    }
}
