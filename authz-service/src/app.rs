//! The wiring: opens the database, makes the first snapshot, binds, serves.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use tokio::net::TcpListener;
use tollgate_identity::tls::{self, Clients, Door};
use tollgate_identity::{Identity, report_outside};
use tollgate_runtime::readiness::Blocker;
use tollgate_runtime::{Service, grpc, http_server, net, reflection};
use tonic::server::NamedService as _;
use tonic::service::Routes;
use tower::ServiceBuilder;

use crate::admin;
use crate::authorize::{Authorizer, KeyAccess};
use crate::ca::Enrolment;
use crate::config::Config;
use crate::decisions::Decisions;
use crate::metrics::Metrics;
use crate::policy::SnapshotCell;
use crate::store::{Store, follow, load};
use crate::token::keys::refresh::{KeyRefresh, Schedule};
use crate::token::keys::source::{HttpKeys, KeySource};
use crate::token::keys::{Freshness, SharedSecrets, ending};
use crate::wire::ext_authz::ExtAuthz;
use crate::wire::forward_auth;
use crate::wire::rollouts::{NAME as ROLLOUTS, RolloutsWire};

/// Where the service listens.
#[derive(Debug, Clone, Copy)]
pub struct Addresses {
    /// `ext_authz`.
    pub grpc: SocketAddr,
    /// The admin API.
    pub http: SocketAddr,
    /// Enrolment and renewal, where there is a certificate authority.
    pub enrolment: Option<SocketAddr>,
}

/// The authorization service, bound and ready to run.
#[derive(Debug)]
pub struct App {
    service: Service,
    store: Store,
    authorizer: Authorizer,
    refresh: KeyRefresh,
    metrics: Metrics,
    grpc: TcpListener,
    /// Shown to enforcers; without it they ask in plaintext.
    identity: Option<Identity>,
    http: Door,
    /// Shown at the admin API.
    http_identity: Option<Identity>,
    enrolment: Option<Enrolment>,
    addresses: Addresses,
    reflection: bool,
    starting: Blocker,
}

impl App {
    /// Opens the database, loads the policy and binds.
    pub async fn build(config: Config, service: Service) -> anyhow::Result<Self> {
        let source =
            HttpKeys::new(config.keys.allow_private_addresses).context("cannot make an HTTP client")?;
        Self::build_with(config, service, Arc::new(source)).await
    }

    /// As [`App::build`], with keys from another source.
    pub async fn build_with(
        config: Config,
        service: Service,
        source: Arc<dyn KeySource>,
    ) -> anyhow::Result<Self> {
        let starting = service.readiness().blocker("authorization server");
        report_outside(&service).context("telemetry.ca_file")?;
        let bind = if config.listen.mtls { net::bind_tls } else { net::bind };
        let grpc = bind(config.listen.grpc, "authorization gRPC (listen.grpc)")?;
        let (name, tls) = (("admin HTTP (listen.http)", "listen.http_tls"), config.listen.http_tls.as_ref());
        let http = Door::bind(config.listen.http, name, tls, Clients::Optional)?;
        let store = Store::open(&config.database.url, service.clock().clone()).await?;
        let enrolment = match &config.ca {
            Some(ca) => Some(Enrolment::build(ca, &store, &service).await?),
            None => None,
        };
        let identity = match (&config.identity, &enrolment) {
            (Some(identity), _) => Some(identity.follow(&service).await.context("no identity")?),
            (None, enrolment) => enrolment.as_ref().map(|enrolment| enrolment.identity().clone()),
        };
        let http_identity = identity.clone();
        let identity = identity.filter(|_| config.listen.mtls);
        let addresses = Addresses {
            grpc: grpc.local_addr()?,
            http: http.local_addr()?,
            enrolment: enrolment.as_ref().map(Enrolment::address),
        };
        let metrics = Metrics::new(&service.telemetry().meter());
        let (snapshot, left_out) =
            load::first_snapshot(&store).await.context("cannot load the policy that is in the database")?;
        for error in left_out {
            metrics.reload_failed("left_out");
            tracing::error!(%error, "STARTED WITHOUT an object that cannot be used; what it granted is not granted");
        }
        metrics.epoch(snapshot.epoch);
        let cell = Arc::new(SnapshotCell::new(snapshot));
        write_bootstrap_token(&store, &config.bootstrap.token_file).await?;
        let clock = service.clock().clone();
        let refresh = KeyRefresh::new(
            store.clone(),
            Arc::clone(&cell),
            source,
            Schedule {
                freshness: Freshness {
                    default: config.keys.refresh,
                    floor: config.keys.refresh_floor,
                    ceiling: config.keys.refresh_ceiling,
                },
                min_interval: config.keys.min_interval,
            },
            (clock.clone(), service.tasks().clone(), metrics.clone()),
        );
        let secrets = SharedSecrets::read(&config.keys.shared_secrets)
            .map_err(|(name, problem)| anyhow::anyhow!("keys.shared_secrets.{name} {problem}"))?;
        let authorizer = Authorizer::new(
            cell,
            KeyAccess { refresh: refresh.clone(), max_stale: config.keys.max_stale, secrets },
            Arc::new(Decisions::new(config.decisions.bounds())),
            (clock, service.telemetry().tracer().clone(), metrics.clone()),
        );
        Ok(Self {
            service,
            store,
            authorizer,
            refresh,
            metrics,
            grpc,
            identity,
            http,
            http_identity,
            enrolment,
            addresses,
            reflection: config.listen.reflection,
            starting,
        })
    }

    /// Where it listens.
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// The policy's store, for whoever runs this service in its own process.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The rules in force.
    pub fn snapshots(&self) -> &Arc<SnapshotCell> {
        self.authorizer.cell()
    }
}

impl tollgate_runtime::App for App {
    async fn run(self) -> anyhow::Result<()> {
        let tasks = self.service.tasks().clone();
        let cell = Arc::clone(self.authorizer.cell());
        let clock = self.service.clock().clone();
        let ending = ending::watch(Arc::clone(&cell), clock, self.metrics.clone(), tasks.stopping());
        tasks.spawn_essential("keys-ending", ending);
        tasks.spawn_essential(
            "policy-follow",
            follow::follow(self.store.clone(), cell, self.metrics.clone(), tasks.stopping()),
        );
        tasks.spawn_essential("keys-refresh", self.refresh.run(tasks.stopping()));

        let router = admin::router(self.store.clone(), self.authorizer.clone(), self.metrics.clone())
            .merge(forward_auth::router(self.authorizer.clone()))
            .layer(http_server::ServerTelemetryLayer::new(&self.service));
        let admin = self.http.incoming(self.http_identity.as_ref(), &self.service);
        let admin = admin.context("admin HTTP (listen.http_tls)")?;
        let serving_http = http_server::serve_incoming(&tasks, admin, router);

        let (health, health_server) = tonic_health::server::health_reporter();
        health.set_serving::<ExtAuthz>().await;
        let (reflection, older) =
            reflection::servers(&[ExtAuthz::NAME, ROLLOUTS]).context("no descriptors to reflect")?;
        let (rollouts, keeper) =
            RolloutsWire::new(self.authorizer.clone(), self.store.clone(), self.metrics.clone());
        tasks.spawn_essential("rollouts", keeper.run(tasks.stopping()));
        let mut routes = Routes::new(health_server)
            .add_service(rollouts.into_service())
            .add_service(ExtAuthz::new(self.authorizer));
        if self.reflection {
            routes = routes.add_service(reflection).add_service(older);
        }
        let calls = ServiceBuilder::new()
            .layer(grpc::ServerTelemetryLayer::new(&self.service))
            .service(routes.prepare());
        let incoming =
            tls::port(self.grpc, self.identity.as_ref(), &self.service).context("cannot set TLS up")?;
        let serving_grpc = grpc::serve(grpc::Routed(calls), incoming, grpc::Bounds::DEFAULT, &tasks);
        drop(self.starting);
        let serving_enrolment = async {
            match self.enrolment {
                Some(enrolment) => enrolment.serve(&self.service).await,
                None => Ok(()),
            }
        };
        let ((), enrolled, ()) = tokio::join!(serving_grpc, serving_enrolment, serving_http);
        enrolled
    }
}

/// While nobody administers, the token that can make the first administrator lies in a file that only our user can read.
async fn write_bootstrap_token(store: &Store, file: &Path) -> anyhow::Result<()> {
    if file.as_os_str().is_empty() {
        return Ok(());
    }
    let Some(token) = store.new_bootstrap_token().await? else {
        // A token of an earlier start is void by now.
        if let Err(error) = tokio::fs::remove_file(file).await
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(file = %file.display(), %error, "cannot remove the used bootstrap token");
        }
        return Ok(());
    };
    let text = format!("{}\n", token.expose());
    write_private(file, text.as_bytes())
        .await
        .with_context(|| format!("cannot write the bootstrap token to {}", file.display()))?;
    tracing::info!(file = %file.display(), "nobody administers yet; this one-use token can make the first administrator");
    Ok(())
}

/// Written beside and renamed, so that the file never exists with the wrong mode or half its content.
async fn write_private(file: &Path, content: &[u8]) -> std::io::Result<()> {
    use tokio::io::AsyncWriteExt as _;

    if let Some(folder) = file.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        tokio::fs::create_dir_all(folder).await?;
    }
    let beside = file.with_extension("new");
    match tokio::fs::remove_file(&beside).await {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut new =
        tokio::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside).await?;
    new.write_all(content).await?;
    new.sync_all().await?;
    tokio::fs::rename(&beside, file).await
}
