//! `tollgate up`: the whole system in one process, with the demo mesh behind it.
//!
//! ```text
//! client -> ingress 8080 -> authz 7001, ratelimit 7002 -> sidecars 8101.. -> policies, quotes, payments
//!              \-------------- OTLP --> dashboard 4317, page 7080 <-----------/
//! ```
//!
//! Every part is configured from the example file of its own binary in `config/`, with the addresses
//! and folders of this run laid over it, so what runs here is what runs apart.

mod demo_policy;
mod guide;
mod lock;
mod mesh;
mod parts;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tollgate_authz::Store;
use tollgate_runtime::cli;
use tollgate_runtime::clock::Clock;
use tollgate_runtime::config::{Env, Secret};
use tollgate_runtime::telemetry::process_log::{self, Format};

use crate::demo::issuer::Issuer;

pub use mesh::{Addresses, Mesh};
pub(crate) use parts::PAGE_FILE;

/// How long the parts may take to become ready.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// Which ports to take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ports {
    /// The documented ones.
    Fixed,
    /// Free ones, chosen by the system: several meshes can run beside each other.
    Free,
}

/// How to run the mesh.
#[derive(Debug, Clone)]
pub struct Options {
    /// Everything that is kept lies here.
    pub data: PathBuf,
    /// Which ports to take.
    pub ports: Ports,
    /// Demo requests a second.
    pub traffic: u32,
    /// Overrides of one part's configuration: `ingress.authz.timeout=1s`.
    pub sets: Vec<String>,
    /// Where `TOLLGATE_DATABASE_URL` and `TOLLGATE_REDIS_URL` are looked up.
    pub env: Env,
}

/// Runs until SIGINT or SIGTERM, then drains.
pub async fn command(options: Options, log: &str) -> anyhow::Result<()> {
    process_log::init(log, Format::Text);
    let mesh = Mesh::start(&options).await?;
    mesh.ready(READY_WITHIN).await?;
    guide::print(&mesh, &options).await?;
    cli::shutdown_signal().await;
    guide::stopping();
    mesh.stop().await;
    Ok(())
}

/// A new one-use link for the dashboard that runs on this data folder.
pub async fn login_link(data: &Path) -> anyhow::Result<String> {
    parts::login_link(data).await
}

/// Puts the demo's policy and issuer into a database, for parts that run apart.
pub async fn seed_demo(database: &Secret, issuer: &Issuer) -> anyhow::Result<()> {
    let store = Store::open(database, Clock::system()).await?;
    demo_policy::seed(&store, issuer).await?;
    store.close().await;
    Ok(())
}

/// `--set` values that put a dashboard's data into `data` and its sockets to these addresses.
pub fn dashboard_sets(
    data: &Path,
    web: SocketAddr,
    otlp_grpc: SocketAddr,
    otlp_http: SocketAddr,
) -> Vec<String> {
    parts::dashboard_sets(data, web, otlp_grpc, otlp_http)
}

/// `--set` values that put the ingress between these addresses.
pub fn ingress_sets(
    bind: SocketAddr,
    authz: SocketAddr,
    ratelimit: SocketAddr,
    upstream: SocketAddr,
) -> Vec<String> {
    parts::ingress_sets(bind, authz, ratelimit, upstream)
}
