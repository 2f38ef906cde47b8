//! The parts of one running system, started in the order of their dependence.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tollgate_runtime::Service;

use super::Options;
use super::lock::FolderLock;
use super::parts::{self, Parts, Services, Workloads};
use crate::demo::issuer::Issuer;
use crate::demo::map::Map;
use crate::demo::traffic;

/// Where everything listens.
#[derive(Debug, Clone)]
pub struct Addresses {
    /// The ingress.
    pub ingress: SocketAddr,
    /// The ingress, for clients with a certificate of the demo's authority.
    pub ingress_mtls: SocketAddr,
    /// The sidecar of `policies`.
    pub policies: SocketAddr,
    /// The sidecar of `quotes`.
    pub quotes: SocketAddr,
    /// The same sidecar, for what its application asks of others.
    pub quotes_outbound: SocketAddr,
    /// The sidecar of `payments`.
    pub payments: SocketAddr,
    /// The egress gateway.
    pub egress: SocketAddr,
    /// `ext_authz`.
    pub authz: SocketAddr,
    /// The policy's admin API.
    pub authz_http: SocketAddr,
    /// The rate limit service.
    pub ratelimit: SocketAddr,
    /// The operator's page.
    pub dashboard: SocketAddr,
    /// OTLP over gRPC.
    pub otlp_grpc: SocketAddr,
    /// OTLP over HTTP.
    pub otlp_http: SocketAddr,
    pub(super) processes: Vec<(&'static str, SocketAddr)>,
}

impl Addresses {
    /// The process listener of a part.
    pub fn process(&self, part: &str) -> Option<SocketAddr> {
        self.processes.iter().find(|(name, _)| *name == part).map(|(_, addr)| *addr)
    }
}

/// A running system.
pub struct Mesh {
    parts: Parts,
    addresses: Addresses,
    _lock: FolderLock,
}

impl Mesh {
    /// Starts everything; [`Self::ready`] says when it may be used.
    pub async fn start(options: &Options) -> anyhow::Result<Self> {
        parts::check_sets(&options.sets)?;
        let lock = FolderLock::take(&options.data)?;
        let issuer = Issuer::open_or_create(&options.data)?;
        let mut parts = Parts::new(options);
        let addresses = match Self::start_parts(&mut parts, options, &issuer).await {
            Ok(addresses) => addresses,
            Err(error) => {
                // What has started must not outlive the failure of the rest.
                parts.stop().await;
                return Err(error);
            }
        };
        Ok(Self { parts, addresses, _lock: lock })
    }

    async fn start_parts(parts: &mut Parts, options: &Options, issuer: &Issuer) -> anyhow::Result<Addresses> {
        let (dashboard, otlp_grpc, otlp_http) = parts.dashboard().await.context("dashboard")?;
        let (authz, authz_http) = parts.authz(otlp_grpc, issuer).await.context("authz")?;
        parts.run_dashboard().await.context("dashboard")?;
        let ratelimit = parts.ratelimit(otlp_grpc).await.context("rate limit")?;
        let services = Services { otlp: otlp_grpc, authz, ratelimit };
        let workloads = parts.workloads(services).await.context("demo workloads")?;
        let (ingress, ingress_mtls) = parts.ingress(services, workloads).await.context("ingress")?;
        let Workloads { policies, quotes, quotes_outbound, payments, egress, .. } = workloads;
        traffic::start(parts.host(), issuer.clone(), ingress, options.traffic)?;
        let processes = parts.processes();
        let map = Map {
            ingress,
            outbound: quotes_outbound,
            policies: workloads.instances.to_vec(),
            canary: workloads.instance_next,
            processes: processes.iter().map(|(name, address)| ((*name).to_owned(), *address)).collect(),
        };
        map.write(&options.data)?;
        Ok(Addresses {
            ingress,
            ingress_mtls,
            policies,
            quotes,
            quotes_outbound,
            payments,
            egress,
            authz,
            authz_http,
            ratelimit,
            dashboard,
            otlp_grpc,
            otlp_http,
            processes,
        })
    }

    /// Waits until every part is ready and the ingress says so to clients.
    pub async fn ready(&self, within: Duration) -> anyhow::Result<()> {
        let all_ready = async {
            for service in self.parts.services() {
                service.readiness().ready().await;
            }
            let url = format!("http://{}/healthz", self.addresses.ingress);
            while !reqwest::get(&url).await.is_ok_and(|answer| answer.status().is_success()) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        if tokio::time::timeout(within, all_ready).await.is_ok() {
            return Ok(());
        }
        let waiting: Vec<String> = self
            .parts
            .services()
            .filter(|service| !service.readiness().is_ready())
            .map(|service| {
                format!("{} waits for {}", service.name(), service.readiness().blockers().join(", "))
            })
            .collect();
        bail!("not ready within {} s: {}", within.as_secs(), waiting.join("; "))
    }

    /// Where everything listens.
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// A part's handle, for tests that end one.
    pub fn service(&self, name: &str) -> Option<&Service> {
        self.parts.services().find(|service| service.name() == name)
    }

    /// A one-use link that signs in to the page.
    pub async fn login_link(&self) -> anyhow::Result<String> {
        self.parts.login_link().await
    }

    /// Makes an administrator and gives its token.
    pub async fn create_administrator(&self, name: &str) -> anyhow::Result<String> {
        self.parts.create_administrator(name).await
    }

    /// Signs a certificate with the mesh's authority: `tls.crt`, `tls.key` and `ca.crt` in `out`.
    pub async fn issue(&self, id: &str, out: &Path) -> anyhow::Result<()> {
        self.parts.issue(id, out).await
    }

    /// Drains: clients first, the dashboard last, so that it still hears what the others report.
    pub async fn stop(self) {
        self.parts.stop().await;
    }
}
