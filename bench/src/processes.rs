//! The real binaries, each in a process of its own, pinned to its core.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use tempfile::TempDir;
use tollgate::demo::issuer::{Grant, Issuer};
use tollgate_runtime::clock::Clock;
use tollgate_runtime::config::Secret;

use crate::upstream;

/// The core of the proxy under test.
pub(crate) const PROXY_CORE: u32 = 0;
/// The core of everything else.
pub(crate) const HELPER_CORE: u32 = 1;
const READY_WITHIN: Duration = Duration::from_secs(20);
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

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to kill.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
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
        };
        let token = issuer.token(&grant, &Clock::system())?;

        pin(std::process::id(), HELPER_CORE)?;
        let upstream = upstream::start()?;
        let [authz, authz_http, ratelimit, otlp, otlp_http, web, ingress] = free_addresses()?;
        let endpoint = format!("telemetry.endpoint=http://{otlp}");
        let start = |name: &str, config: &str, core: u32, sets: &[String]| {
            start(&binaries.join(name), config, core, sets).with_context(|| format!("{name} does not start"))
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
        let ingress_process = start("tollgate-proxy", "config/ingress.yaml", PROXY_CORE, &sets)?;
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
        self.ingress_process.0.id()
    }
}

/// Binds all threads of a process to one core.
pub(crate) fn pin(pid: u32, core: u32) -> anyhow::Result<()> {
    let status = Command::new("taskset")
        .args(["-a", "-c", "-p", &core.to_string(), &pid.to_string()])
        .stdout(Stdio::null())
        .status()
        .context("taskset (util-linux) cannot be run")?;
    if !status.success() {
        bail!("process {pid} cannot be pinned to core {core}; the benchmark needs two cores");
    }
    Ok(())
}

fn start(binary: &Path, config: &str, core: u32, sets: &[String]) -> anyhow::Result<Running> {
    let mut command = Command::new("taskset");
    command.args(["-c", &core.to_string()]).arg(binary).args(["--config", config]);
    for set in sets {
        command.args(["--set", set]);
    }
    Ok(Running(command.stdout(Stdio::null()).spawn()?))
}

fn wait_for(address: SocketAddr) -> anyhow::Result<()> {
    let started = Instant::now();
    while std::net::TcpStream::connect(address).is_err() {
        if started.elapsed() > READY_WITHIN {
            bail!("nothing listens on {address}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Ports that were free a moment ago, all different.
fn free_addresses<const N: usize>() -> anyhow::Result<[SocketAddr; N]> {
    let held: Vec<TcpListener> =
        (0..N).map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).collect::<Result<_, _>>()?;
    let mut addresses = [SocketAddr::from((Ipv4Addr::LOCALHOST, 0)); N];
    for (address, listener) in addresses.iter_mut().zip(&held) {
        *address = listener.local_addr()?;
    }
    Ok(addresses)
}
