//! Each part, configured from the example file of its own binary with this run's addresses laid over it.

mod workloads;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use tollgate_authz::Store;
use tollgate_authz::ca::CertificateAuthority;
use tollgate_dashboard::Logins;
use tollgate_identity::SpiffeId;
use tollgate_identity::config::IdentityConfig;
use tollgate_identity::signing::Profile;
use tollgate_identity::source::AuthorityConfig;
use tollgate_runtime::config::{Env, ServiceConfig, load_text};
use tollgate_runtime::process::ProcessConfig;
use tollgate_runtime::telemetry::TelemetryConfig;
use tollgate_runtime::{App, Service};

use super::{Options, Ports};
use crate::demo::issuer::Issuer;
use crate::policy;

pub(super) use workloads::{Services, Workloads};

const AUTHZ: (&str, &str) = ("config/authz.yaml", include_str!("../../../../config/authz.yaml"));
const RATELIMIT: (&str, &str) = ("config/ratelimit.yaml", include_str!("../../../../config/ratelimit.yaml"));
const DASHBOARD: (&str, &str) = ("config/dashboard.yaml", include_str!("../../../../config/dashboard.yaml"));
const LIMITS: &str = include_str!("../../../../config/limits/insurance.yaml");

/// The trust domain of the demo.
pub(super) const DOMAIN: &str = "tollgate.demo";

const TELEMETRY_FOLDER: &str = "telemetry";
pub(crate) const PAGE_FILE: &str = "dashboard.url";

/// As whom a person comes in by the rate limits' door, with a certificate of the data folder.
/// HTTP ports speak TLS, and plaintext to this machine, where nobody need know the demo's roots.
const DOOR: &str = "{}={plaintext: loopback}";

/// The running parts, in the order in which they were started.
pub(super) struct Parts {
    options: Options,
    services: Vec<Service>,
    processes: Vec<(&'static str, SocketAddr)>,
    host: Service,
    logins: Option<Logins>,
    store: Option<Store>,
    web: Option<SocketAddr>,
    /// Bound and not yet running: its certificate comes from the authority, which reports to it.
    dashboard: Option<(Service, tollgate_dashboard::App)>,
    authority: Option<(CertificateAuthority, SocketAddr)>,
}

/// The parts by the names that `--set` and `/config` know them by.
const NAMES: [&str; 9] = [
    "dashboard",
    "authz",
    "ratelimit",
    "policies-sidecar",
    "policies-next-sidecar",
    "payments-sidecar",
    "quotes-sidecar",
    "egress",
    "ingress",
];

/// Refuses an override of a part that does not exist.
pub(super) fn check_sets(sets: &[String]) -> anyhow::Result<()> {
    for set in sets {
        let part = set.split('.').next().unwrap_or_default();
        anyhow::ensure!(
            NAMES.contains(&part),
            "--set {set}: no part `{part}`; expected one of {}",
            NAMES.join(", ")
        );
    }
    Ok(())
}

impl Parts {
    pub(super) fn new(options: &Options) -> Self {
        Self {
            options: options.clone(),
            services: Vec::new(),
            processes: Vec::new(),
            host: Service::for_test("demo"),
            logins: None,
            store: None,
            web: None,
            dashboard: None,
            authority: None,
        }
    }

    /// The service that the demo's own tasks belong to.
    pub(super) fn host(&self) -> &Service {
        &self.host
    }

    pub(super) fn services(&self) -> impl Iterator<Item = &Service> {
        self.services.iter()
    }

    pub(super) fn processes(&self) -> Vec<(&'static str, SocketAddr)> {
        self.processes.clone()
    }

    pub(super) async fn dashboard(&mut self) -> anyhow::Result<(SocketAddr, SocketAddr, SocketAddr)> {
        let (web, grpc, http) = (self.port(7080), self.port(4317), self.port(4318));
        let sets = dashboard_sets(&self.options.data, web, grpc, http);
        let config: tollgate_dashboard::Config = self.configure("dashboard", DASHBOARD, sets)?;
        let service = self.service("dashboard", &config)?;
        let app = service.scope(tollgate_dashboard::App::build(config, service.clone())).await?;
        let at = *app.addresses();
        self.logins = Some(app.logins());
        self.web = Some(at.web);
        // Where `tollgate dashboard login` finds the page that belongs to this folder.
        std::fs::write(self.options.data.join(PAGE_FILE), format!("http://{}\n", at.web))?;
        self.dashboard = Some((service, app));
        Ok((at.web, at.otlp_grpc, at.otlp_http))
    }

    /// Lets the dashboard run, by its own certificate.
    pub(super) async fn run_dashboard(&mut self) -> anyhow::Result<()> {
        let (service, mut app) = self.dashboard.take().context("the dashboard is not bound")?;
        app.identify_by(IdentityConfig::Authority(self.identity("tollgate-system", "dashboard").await?));
        self.run(service, app);
        Ok(())
    }

    /// How a part gets its certificate: by a join token of its own, used once.
    async fn identity(&self, namespace: &str, name: &str) -> anyhow::Result<AuthorityConfig> {
        let (authority, at) = self.authority.as_ref().context("authz does not run")?;
        let id: SpiffeId = format!("spiffe://{DOMAIN}/ns/{namespace}/sa/{name}").parse()?;
        let token = authority.join_token(&id, "tollgate up").await?;
        let join_token_file = self.options.data.join("ca/join").join(format!("{name}.token"));
        crate::ca::write_private(&join_token_file, &format!("{}\n", token.expose()))?;
        let by_token = AuthorityConfig::by_join_token(at.to_string(), join_token_file);
        Ok(AuthorityConfig { spiffe_id: Some(id), ..by_token })
    }

    pub(super) async fn issue(&self, id: &str, out: &Path) -> anyhow::Result<()> {
        let (authority, _) = self.authority.as_ref().context("authz does not run")?;
        crate::ca::issue(authority, &id.parse()?, &Profile::default(), (None, "tollgate up"), out).await?;
        Ok(())
    }

    /// The same as `--set`.
    async fn identity_set(&self, namespace: &str, name: &str) -> anyhow::Result<String> {
        let identity = IdentityConfig::Authority(self.identity(namespace, name).await?);
        Ok(format!("identity={}", serde_json::to_string(&identity)?))
    }

    pub(super) async fn authz(
        &mut self,
        otlp: SocketAddr,
        issuer: &Issuer,
    ) -> anyhow::Result<(SocketAddr, SocketAddr)> {
        let data = &self.options.data;
        let sets = vec![
            format!("bootstrap.token_file={}", data.join("bootstrap-admin.token").display()),
            format!("listen.grpc={}", self.port(7001)),
            format!("listen.http={}", self.port(7003)),
            DOOR.replace("{}", "listen.http_tls"),
            "listen.mtls=true".to_owned(),
            format!("ca.trust_domain={DOMAIN}"),
            format!("ca.listen={}", self.port(7004)),
            format!("ca.wrapping_key={}", data.join("ca/wrapping.key").display()),
            // People find these by their addresses.
            format!("ca.names={}", found_here(&["ingress", "authz", "ratelimit"])),
            endpoint(otlp),
        ];
        let mut config: tollgate_authz::Config = self.configure("authz", AUTHZ, sets)?;
        config.database.url = policy::database_url(data, &self.options.env);
        // Before the service loads its policy, so that it is ready with the demo's.
        super::seed_demo(&config.database.url, issuer).await?;
        let ca = config.ca.clone().context("there is no certificate authority")?;
        let service = self.service("authz", &config)?;
        let app = service.scope(tollgate_authz::App::build(config, service.clone())).await?;
        let at = *app.addresses();
        let store = app.store().clone();
        let clock = service.clock().clone();
        let enrolment = at.enrolment.context("there is no certificate authority")?;
        let authority = CertificateAuthority::open(ca, store.clone(), clock).await?;
        self.authority = Some((authority, enrolment));
        self.store = Some(store);
        self.run(service, app);
        Ok((at.grpc, at.http))
    }

    pub(super) async fn ratelimit(&mut self, otlp: SocketAddr) -> anyhow::Result<SocketAddr> {
        let folder = limits_folder(&self.options.data)?;
        let sets = vec![
            format!("limits.folder={}", folder.display()),
            format!("listen={}", self.port(7002)),
            format!("http={}", self.port(7005)),
            "http_tls={plaintext: refused}".to_owned(),
            format!("http_callers=[\"{}\"]", crate::ca::OPERATOR_ID),
            self.identity_set("tollgate-system", "ratelimit").await?,
            endpoint(otlp),
        ];
        let config: tollgate_ratelimit::Config = self.configure("ratelimit", RATELIMIT, sets)?;
        let service = self.service("ratelimit", &config)?;
        let app = service.scope(tollgate_ratelimit::App::build(config, service.clone())).await?;
        let at = app.addresses().grpc;
        self.run(service, app);
        Ok(at)
    }

    async fn proxy(
        &mut self,
        name: &'static str,
        file: (&str, &str),
        mut sets: Vec<String>,
    ) -> anyhow::Result<Vec<(String, SocketAddr)>> {
        // All parts share one process here: a proxy waits for the others as well.
        sets.insert(0, "overload.target_delay=200ms".to_owned());
        let config: tollgate_proxy::Config = self.configure(name, file, sets)?;
        let service = self.service(name, &config)?;
        let app = service.scope(tollgate_proxy::App::build(config, service.clone())).await?;
        let listeners = app.addresses().listeners.clone();
        self.run(service, app);
        Ok(listeners)
    }

    pub(super) async fn login_link(&self) -> anyhow::Result<String> {
        let (logins, web) = self.logins.as_ref().zip(self.web).context("the dashboard does not run")?;
        Ok(link(&format!("http://{web}"), &logins.issue_one_click().await?))
    }

    pub(super) async fn create_administrator(&self, name: &str) -> anyhow::Result<String> {
        let store = self.store.as_ref().context("authz does not run")?;
        Ok(store.recover_administrator(name, "tollgate up").await?.token.expose().to_owned())
    }

    /// Last started, first stopped: the dashboard hears what all the others report.
    pub(super) async fn stop(self) {
        self.host.stop().await;
        for service in self.services.into_iter().rev() {
            service.stop().await;
        }
    }

    fn port(&self, documented: u16) -> SocketAddr {
        let port = match self.options.ports {
            Ports::Fixed => documented,
            Ports::Free => 0,
        };
        (Ipv4Addr::LOCALHOST, port).into()
    }

    fn configure<C: ServiceConfig>(
        &self,
        part: &str,
        (file, text): (&str, &str),
        mut sets: Vec<String>,
    ) -> anyhow::Result<C> {
        sets.extend(
            self.options
                .sets
                .iter()
                .filter_map(|set| Some(set.strip_prefix(part)?.strip_prefix('.')?.to_owned())),
        );
        // Of the environment only the short forms count here: one process has many configurations.
        let env =
            Env::of(C::ENV_SHORT.iter().filter_map(|(name, _)| Some((*name, self.options.env.var(name)?))));
        Ok(load_text(Path::new(file), text, &sets, &env)?)
    }

    fn service<C: ServiceConfig>(&mut self, name: &'static str, config: &C) -> anyhow::Result<Service> {
        let documented = config.process().listen.map(|address| address.port());
        let listen = documented.map(|port| self.port(port));
        let process = ProcessConfig { listen, ..config.process().clone() };
        let telemetry = TelemetryConfig { log: String::from("info"), ..config.telemetry().clone() };
        let service = Service::start(name, &process, &telemetry)?;
        service.published().config(config);
        self.processes.extend(service.process_address().map(|address| (name, address)));
        self.services.push(service.clone());
        Ok(service)
    }

    fn run<A: App + 'static>(&self, service: Service, app: A) {
        let tasks = service.tasks().clone();
        tasks.spawn_essential("app", async move {
            if let Err(error) = app.run().await {
                tracing::error!(service = service.name(), "{error:#}");
            }
        });
    }
}

/// Certificates of these parts are good for this machine's own names, too.
fn found_here(parts: &[&str]) -> String {
    let id =
        |part: &&str| format!("\"spiffe://{DOMAIN}/ns/tollgate-system/sa/{part}\": [localhost, 127.0.0.1]");
    format!("{{{}}}", parts.iter().map(id).collect::<Vec<_>>().join(", "))
}

/// What puts a dashboard's data into `data` and its sockets to these addresses.
pub(super) fn dashboard_sets(
    data: &Path,
    web: SocketAddr,
    grpc: SocketAddr,
    http: SocketAddr,
) -> Vec<String> {
    vec![
        format!("store.dir={}", data.join(TELEMETRY_FOLDER).display()),
        format!("web.listen={web}"),
        format!("otlp.grpc={grpc}"),
        format!("otlp.http={http}"),
    ]
}

/// What puts the ingress between these addresses.
pub(super) fn ingress_sets(
    bind: SocketAddr,
    authz: SocketAddr,
    ratelimit: SocketAddr,
    upstream: SocketAddr,
) -> Vec<String> {
    vec![
        format!("listeners.0.bind={bind}"),
        format!("authz.address=http://{authz}"),
        format!("rate_limit.address=http://{ratelimit}"),
        format!("clusters.0.endpoints.static=[\"{upstream}\"]"),
    ]
}

/// A new one-use link to the page of a data folder.
pub(super) async fn login_link(data: &Path) -> anyhow::Result<String> {
    let page = data.join(PAGE_FILE);
    let page = std::fs::read_to_string(&page)
        .with_context(|| format!("no dashboard has run on {}; `tollgate up` makes it", data.display()))?;
    let logins = Logins::of_folder(&data.join(TELEMETRY_FOLDER)).await?;
    Ok(link(page.trim(), &logins.issue_one_click().await?))
}

fn link(page: &str, token: &str) -> String {
    format!("{page}/login#token={token}")
}

fn endpoint(otlp: SocketAddr) -> String {
    format!("telemetry.endpoint=https://{otlp}")
}

/// The limits that operators may edit; made from the example the first time.
fn limits_folder(data: &Path) -> anyhow::Result<PathBuf> {
    let folder = data.join("limits");
    if !folder.exists() {
        std::fs::create_dir_all(&folder)
            .and_then(|()| std::fs::write(folder.join("insurance.yaml"), LIMITS))
            .with_context(|| format!("cannot write the limits to {}", folder.display()))?;
    }
    Ok(folder)
}
