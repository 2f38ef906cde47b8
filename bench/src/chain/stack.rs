//! The real binaries, each in a process of its own, pinned to its core.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;
use tollgate::demo::issuer::{Grant, Issuer};
use tollgate_runtime::clock::Clock;
use tollgate_runtime::config::Secret;

use super::upstream;
use crate::process::{HELPER_CORE, Running, TESTED_CORE, free_addresses, pin, wait_for};

/// Never reached, so that every request is counted and none refused.
const LIMITS: &str = "domain: insurance\ndescriptors:\n  - key: subject\n    rate_limit: {name: per-subject, unit: hour, requests_per_unit: 4000000000}\n";

/// Everything around the proxies, and our proxy.
pub(crate) struct Stack {
    pub(crate) authz: SocketAddr,
    pub(crate) ratelimit: SocketAddr,
    pub(crate) otlp: SocketAddr,
    pub(crate) upstream: SocketAddr,
    pub(crate) ingress: SocketAddr,
    pub(crate) token: String,
    ingress_process: Running,
    _helpers: Vec<Running>,
    _folder: TempDir,
}

impl Stack {
    /// Starts them and waits until our ingress answers.
    pub(crate) fn start(binaries: &Path) -> anyhow::Result<Self> {
        let folder = TempDir::new()?;
        let data = folder.path();
        let issuer = Issuer::open_or_create(data)?;
        let database = format!("sqlite://{}", data.join("authz.db").display());
        tokio::runtime::Runtime::new()?
            .block_on(tollgate::up::seed_demo(&Secret::new(&database), &issuer))?;
        let limits = data.join("limits");
        std::fs::create_dir(&limits)?;
        std::fs::write(limits.join("insurance.yaml"), LIMITS)?;
        let grant = Grant {
            subject: "reader".to_owned(),
            client: "bench".to_owned(),
            scopes: vec!["policies:read".to_owned()],
            ttl: Duration::from_secs(3600),
            expired: false,
            bound_to: None,
        };
        let token = issuer.token(&grant, &Clock::system())?;

        pin(std::process::id(), HELPER_CORE)?;
        let upstream = upstream::start()?;
        let [authz, authz_http, ratelimit, otlp, otlp_http, web, ingress] = free_addresses()?;
        let endpoint = format!("telemetry.endpoint=http://{otlp}");
        let start = |name: &str, config: &str, core: u32, sets: &[String]| {
            let mut arguments = vec!["--config".to_owned(), config.to_owned()];
            arguments.extend(sets.iter().flat_map(|set| ["--set".to_owned(), set.clone()]));
            Running::start(&binaries.join(name), core, &arguments)
        };
        let helpers = vec![
            start(
                "tollgate-dashboard",
                "config/dashboard.yaml",
                HELPER_CORE,
                &tollgate::up::dashboard_sets(data, web, otlp, otlp_http),
            )?,
            start(
                "tollgate-authz",
                "config/authz.yaml",
                HELPER_CORE,
                &[
                    format!("database.url={database}"),
                    format!("listen.grpc={authz}"),
                    format!("listen.http={authz_http}"),
                    format!("bootstrap.token_file={}", data.join("bootstrap-admin.token").display()),
                    "process.listen=null".to_owned(),
                    endpoint.clone(),
                ],
            )?,
            start(
                "tollgate-ratelimit",
                "config/ratelimit.yaml",
                HELPER_CORE,
                &[
                    format!("listen={ratelimit}"),
                    "http=null".to_owned(),
                    format!("limits.folder={}", limits.display()),
                    "process.listen=null".to_owned(),
                    endpoint.clone(),
                ],
            )?,
        ];
        for address in [authz, ratelimit, otlp] {
            wait_for(address)?;
        }
        let mut sets = tollgate::up::ingress_sets(ingress, authz, ratelimit, upstream);
        // One client address sends everything here; its limit would be what is measured.
        sets.push("listeners.0.limit_by_address.per_second=0".to_owned());
        sets.push("process.listen=null".to_owned());
        sets.push(endpoint);
        let ingress_process = start("tollgate-proxy", "config/ingress.yaml", TESTED_CORE, &sets)?;
        wait_for(ingress)?;
        Ok(Self {
            authz,
            ratelimit,
            otlp,
            upstream,
            ingress,
            token,
            ingress_process,
            _helpers: helpers,
            _folder: folder,
        })
    }

    pub(crate) fn ingress_pid(&self) -> u32 {
        self.ingress_process.id()
    }
}
