//! The wiring: opens the store, binds the sockets, serves the page and OTLP.

use std::net::SocketAddr;

use anyhow::Context as _;
use tokio::net::TcpListener;
use tollgate_identity::config::IdentityConfig;
use tollgate_identity::tls::{self, Callers, Clients, Door};
use tollgate_identity::{IdPattern, report_outside};
use tollgate_runtime::{Service, http_server, net};

use crate::api::{self, ApiState};
use crate::config::{Config, Sync};
use crate::ingest::{self, Ingest, IngestLimits};
use crate::login::Logins;
use crate::metrics::Metrics;
use crate::store::{Store, StoreOptions};

/// Where the dashboard listens.
#[derive(Debug, Clone, Copy)]
pub struct Addresses {
    /// The page and its API.
    pub web: SocketAddr,
    /// OTLP over gRPC.
    pub otlp_grpc: SocketAddr,
    /// OTLP over HTTP.
    pub otlp_http: SocketAddr,
}

/// The dashboard, built and bound.
#[derive(Debug)]
pub struct App {
    addresses: Addresses,
    service: Service,
    state: ApiState,
    ingest: Ingest,
    web: Door,
    scheme: &'static str,
    otlp_grpc: TcpListener,
    otlp_http: Door,
    identity: Option<IdentityConfig>,
    callers: Vec<IdPattern>,
}

impl App {
    /// Binds, takes back what was acknowledged before, and starts the store's writer.
    pub async fn build(config: Config, service: Service) -> anyhow::Result<Self> {
        report_outside(&service).context("telemetry.ca_file")?;
        let (name, tls) = (("page (web.listen)", "web.tls"), config.web.tls.as_ref());
        let web = Door::bind(config.web.listen, name, tls, Clients::None)?;
        let bind = if config.identity.is_some() { net::bind_tls } else { net::bind };
        let otlp_grpc = bind(config.otlp.grpc, "OTLP gRPC (otlp.grpc)")?;
        let (name, tls) = (("OTLP HTTP (otlp.http)", "otlp.http_tls"), config.otlp.http_tls.as_ref());
        let otlp_http = Door::bind(config.otlp.http, name, tls, Clients::Required)?;
        let addresses = Addresses {
            web: web.local_addr()?,
            otlp_grpc: otlp_grpc.local_addr()?,
            otlp_http: otlp_http.local_addr()?,
        };
        let metrics = Metrics::new(&service.telemetry().meter(), service.clock().clone());
        let dir = config.store.dir.clone();
        let options = StoreOptions {
            dir: dir.clone(),
            durable: config.store.sync == Sync::Full,
            seal_records: config.store.seal_records,
            seal_after: config.store.seal_after,
            keep_days: config.store.keep_days,
            max_bytes: config.store.max_bytes,
            queue: config.otlp.queue,
        };
        let store = Store::open(options, &service, metrics, ingest::replay)
            .await
            .with_context(|| format!("cannot open the telemetry store in {}", dir.display()))?;
        let logins =
            Logins::open(&dir, service.clock().clone(), config.web.session, config.web.login_link).await?;
        let limits = IngestLimits {
            max_request_bytes: config.otlp.max_request_bytes,
            max_inflight_bytes: config.otlp.max_inflight_bytes,
            keep_days: config.store.keep_days,
        };
        let ingest = Ingest::new(store.clone(), service.clock().clone(), limits);
        let state = ApiState::new(store, logins, config.store.keep_days, config.web.hosts, &service);
        let (identity, callers) = (config.identity, config.otlp.callers);
        let scheme = web.scheme();
        Ok(Self { addresses, service, state, ingest, web, scheme, otlp_grpc, otlp_http, identity, callers })
    }

    /// Where it listens.
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// `https`, or `http` where the page has no TLS.
    pub fn scheme(&self) -> &'static str {
        self.scheme
    }

    /// Takes an identity that could not be known when the addresses were: the authority itself reports to us.
    pub fn identify_by(&mut self, identity: IdentityConfig) {
        self.identity = Some(identity);
    }

    /// Issues links that sign in once.
    pub fn logins(&self) -> Logins {
        self.state.logins.clone()
    }

    /// A link that signs its bearer in once. The token is in the fragment, which browsers send to nobody.
    pub async fn login_link(&self) -> anyhow::Result<String> {
        let token = self.state.logins.issue_one_click().await?;
        Ok(format!("{}://{}/login#token={token}", self.scheme, self.addresses.web))
    }
}

impl tollgate_runtime::App for App {
    async fn run(self) -> anyhow::Result<()> {
        let tasks = self.service.tasks();
        // Asked for once, by whoever needs it first.
        let identity = &self.state.identity;
        let follow = || async {
            match &self.identity {
                Some(identity) => identity.follow(&self.service).await.map(Some).context("no identity"),
                None => Ok(None),
            }
        };
        let known = || async { identity.get_or_try_init(follow).await.map(Option::as_ref) };
        let telemetry = http_server::ServerTelemetryLayer::new(&self.service);
        let page = api::router(&self.state).layer(telemetry);
        // The page is there before the authority that signs our certificate is.
        let web = async {
            let identity = if self.web.needs_nobody() { None } else { known().await? };
            let incoming = self.web.incoming(identity, &self.service).context("page (web.tls)")?;
            http_server::serve_incoming(tasks, incoming, page).await;
            Ok(())
        };
        // No telemetry layer here: see `ingest::grpc`.
        let otlp_http = async {
            let identity = if self.otlp_http.needs_nobody() { None } else { known().await? };
            let callers = identity.map(|identity| Callers::new(&self.callers, identity));
            let incoming =
                self.otlp_http.incoming(identity, &self.service).context("OTLP HTTP (otlp.http_tls)")?;
            let router = ingest::http_router(self.ingest.clone(), callers);
            http_server::serve_incoming(tasks, incoming, router).await;
            Ok(())
        };
        let otlp_grpc = async {
            let identity = known().await?;
            let callers = identity.map(|identity| Callers::new(&self.callers, identity));
            let port = tls::port(self.otlp_grpc, identity, &self.service)?;
            ingest::serve_grpc(self.ingest.clone(), port, callers, tasks).await;
            Ok(())
        };
        tokio::try_join!(web, otlp_http, otlp_grpc).map(drop)
    }
}
