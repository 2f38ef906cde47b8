//! The wiring: limits, counters, limiter, server.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::net::TcpListener;
use tollgate_identity::tls::{self, Callers, Clients, Door};
use tollgate_identity::{Identity, report_outside};
use tollgate_runtime::grpc::{self, Bounds, ServerTelemetryLayer, Waiting};
use tollgate_runtime::{Service, http_server, net, reflection};
use tonic::service::Routes;
use tonic_health::ServingStatus;

use crate::admin;
use crate::arrivals::Arrivals;
use crate::config::Config;
use crate::counters::{Counters, MemoryStore, RedisStore, settle, snapshot};
use crate::limiter::Limiter;
use crate::limits::LimitSet;
use crate::metrics::{Metrics, QuotaMetrics};
use crate::quota::{Hub, replicas};
use crate::reload::Limits;
use crate::wire::rlqs;
use crate::wire::rls::{self, RateLimitPort};
use crate::xds;

/// How long the start waits for Redis. Without it the service starts all the same: what is answered
/// while Redis is away is configured.
const REDIS_START_TIMEOUT: Duration = Duration::from_secs(1);
/// Calls in flight on one connection; a proxy multiplexes all of its calls on one or a few.
const MAX_STREAMS_PER_CONNECTION: u32 = 4_096;

/// The rate-limit service, its sockets bound.
#[derive(Debug)]
pub struct App {
    service: Service,
    addresses: Addresses,
    listener: TcpListener,
    identity: Option<Identity>,
    callers: Option<Callers>,
    http: Option<Door>,
    http_callers: Option<Callers>,
    limiter: Limiter,
    hub: Hub,
    reflection: bool,
    snapshot: Option<PathBuf>,
}

/// Where it listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    /// The rate limit service (gRPC).
    pub grpc: SocketAddr,
    /// The HTTP door, where there is one.
    pub http: Option<SocketAddr>,
}

impl App {
    /// Reads the limits, connects the counters and binds the listener.
    pub async fn build(config: Config, service: Service) -> anyhow::Result<Self> {
        report_outside(&service).context("telemetry.ca_file")?;
        let domains = config.limits.domains();
        let snapshot = config.counters.snapshot.clone().filter(|_| config.counters.redis.url.is_none());
        let (limits, set) = match &config.limits.folder {
            Some(folder) => {
                let (limits, set) = Limits::load(folder, domains)?;
                (Some(limits), set)
            }
            None => (None, LimitSet::default()),
        };
        let metrics = Metrics::new(service.telemetry().meter());
        let counters = Arc::new(counters(&config, &service, &metrics).await?);
        metrics.observe_memory(&counters);
        let replica = uuid::Uuid::new_v4().to_string();
        settle::keep_settled(&service, &counters, &replica);
        let arrivals = Arrivals::new(config.arrivals.max_bytes);
        let limiter = Limiter::new(
            set,
            Arc::clone(&counters),
            config.manner(),
            arrivals,
            service.clock().clone(),
            metrics.clone(),
        );
        let hub = Hub::new(
            limiter.clone(),
            config.quota.settings(),
            counters.redis().is_some(),
            service.clock().clone(),
            QuotaMetrics::new(&service.telemetry().meter()),
        );
        hub.keep_current(&service);
        replicas::keep_shared(&service, &hub, &counters, &replica);

        let bind = if config.identity.is_some() { net::bind_tls } else { net::bind };
        let listener = bind(config.listen, "rate limit service (listen)")?;
        let identity = match &config.identity {
            Some(identity) => Some(identity.follow(&service).await.context("no identity")?),
            None => None,
        };
        let callers = identity.as_ref().map(|identity| Callers::new(&config.callers, identity));
        let http_callers = identity.as_ref().map(|identity| Callers::new(&config.http_callers, identity));
        let (name, tls) = (("HTTP door (http)", "http_tls"), config.http_tls.as_ref());
        let http = config.http.map(|listen| Door::bind(listen, name, tls, Clients::Required)).transpose()?;
        let addresses = Addresses {
            grpc: listener.local_addr().context("the listener has no address")?,
            http: http.as_ref().map(Door::local_addr).transpose().context("the HTTP door has no address")?,
        };
        if let Some(limits) = limits {
            limits.keep_current(&service, limiter.clone(), hub.clone(), metrics.clone());
        }
        if let Some(server) = config.limits.xds {
            xds::keep_current(&service, server, domains, limiter.clone(), hub.clone(), metrics);
        }
        Ok(Self {
            service,
            addresses,
            listener,
            identity,
            callers,
            http,
            http_callers,
            limiter,
            hub,
            reflection: config.reflection,
            snapshot,
        })
    }

    /// Where it listens, with the ports the system chose.
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }
}

impl tollgate_runtime::App for App {
    async fn run(self) -> anyhow::Result<()> {
        let (health, health_service) = tonic_health::server::health_reporter();
        health.set_service_status(rls::NAME, ServingStatus::Serving).await;

        tracing::info!(address = %self.addresses.grpc, "rate limit service is listening");
        if let Some(door) = self.http {
            let tasks = self.service.tasks().clone();
            let router =
                admin::router(self.limiter.clone(), self.hub.clone(), tasks.clone(), self.http_callers)
                    .layer(http_server::ServerTelemetryLayer::new(&self.service));
            let incoming =
                door.incoming(self.identity.as_ref(), &self.service).context("HTTP door (http_tls)")?;
            self.service.tasks().spawn("http-door", async move {
                http_server::serve_incoming(&tasks, incoming, router).await;
            });
        }
        let counted = self.limiter.clone();
        let (reflection, older) =
            reflection::servers(&[rls::NAME, rlqs::NAME]).context("no descriptors to reflect")?;
        let tasks = self.service.tasks().clone();
        let quotas = rlqs::server(self.hub, tasks.clone());
        let mut routes = Routes::new(quotas).add_service(health_service);
        if self.reflection {
            routes = routes.add_service(reflection).add_service(older);
        }
        let telemetry = ServerTelemetryLayer::new(&self.service);
        let port = RateLimitPort::new(self.limiter, self.callers, telemetry, routes.prepare());
        let incoming =
            tls::port(self.listener, self.identity.as_ref(), &self.service).context("cannot set TLS up")?;
        // What waits here waits for Redis, which answers many calls at once.
        let waiting = Waiting::WithConnection;
        let bounds = Bounds { streams: MAX_STREAMS_PER_CONNECTION, waiting, ..Bounds::DEFAULT };
        grpc::serve(port, incoming, bounds, &tasks).await;
        if let Some(file) = &self.snapshot {
            keep(file, &counted, &self.service).await;
        }
        Ok(())
    }
}

/// The counters of an earlier run, where they were written and can be read.
fn earlier(config: &Config, service: &Service) -> Option<MemoryStore> {
    let file = config.counters.snapshot.as_ref()?;
    match snapshot::read(file, config.bounds(), service.clock().unix_seconds()) {
        Ok(found) => {
            if let Some(store) = &found {
                tracing::info!(file = %file.display(), counters = store.len(), "counters of the run before");
            }
            found
        }
        Err(error) => {
            let file = file.display();
            tracing::warn!(%file, %error, "the counters of the run before cannot be used; counting begins with nothing");
            None
        }
    }
}

/// Writes the counters where the next run finds them; what it counted while stopping is in them.
async fn keep(file: &Path, limiter: &Limiter, service: &Service) {
    let (file, limiter, now_seconds) = (file.to_owned(), limiter.clone(), service.clock().unix_seconds());
    let shown = file.display().to_string();
    let written =
        service.tasks().blocking(move || snapshot::write(limiter.counters().memory(), &file, now_seconds));
    match written.await {
        Ok(Ok(counters)) => tracing::info!(file = shown, counters, "counters are kept for the next run"),
        Ok(Err(error)) => tracing::error!(file = shown, %error, "counters cannot be kept for the next run"),
        Err(error) => tracing::error!(file = shown, %error, "counters cannot be kept for the next run"),
    }
}

async fn counters(config: &Config, service: &Service, metrics: &Metrics) -> anyhow::Result<Counters> {
    let settings = &config.counters;
    let Some(target) = settings.redis.target() else {
        let memory = earlier(config, service).unwrap_or_else(|| MemoryStore::new(config.bounds()));
        return Ok(Counters::in_memory(memory, metrics.clone()));
    };
    let memory = MemoryStore::new(config.bounds());
    if target.url.expose().starts_with("rediss://") {
        // One provider of cryptography in the whole process; whoever came first has installed the same.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    }
    let redis =
        RedisStore::start(target, &settings.redis.key_prefix, settings.redis.timeout, service.tasks());
    let (url, on_error) = (redis.shown_url(), settings.on_error);
    if tokio::time::timeout(REDIS_START_TIMEOUT, redis.linked()).await.is_err() {
        tracing::warn!(url, ?on_error, "redis is not reachable yet");
    } else {
        tracing::info!(url, "counting in redis");
    }
    Ok(Counters::in_redis(redis, memory, on_error, settings.remember_over, metrics.clone()))
}
