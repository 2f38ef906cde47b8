//! A set of endpoints that answer alike: who belongs to it, who of them may be used, and what became of requests.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use http::{HeaderMap, StatusCode};
use parking_lot::Mutex;
use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};
use tollgate_identity::Identity;
use tollgate_runtime::tasks::Tasks;

use super::balance::Way;
use super::breaker::{Breaker, Full, Place};
use super::dial::Dialer;
use super::eject::{Answers, Cause, Ejector, Event};
use super::endpoint::Endpoint;
use super::health::{self, Health};
use super::loops::Loops;
use super::selection::{Candidate, Selection};
use super::tally::Outcome;
use super::{discover, report};
use crate::config::{Balance, ClusterConfig, Endpoint as Address, Endpoints, HealthCheck, Protocol};
use crate::error::{Fault, ProxyError};
use crate::proxy_protocol::Ends;
use crate::record::Reporter;
use crate::route::descriptor::Facts;
use crate::route::{Key, Modifier};

/// One cluster, running.
#[derive(Debug)]
pub(crate) struct Cluster {
    config: ClusterConfig,
    pub(crate) name: Arc<str>,
    pub(crate) version: Option<Arc<str>>,
    /// What its answers say of its end.
    pub(crate) deprecation: Option<Modifier>,
    /// What decides, if one key always goes to one endpoint.
    key: Option<Key>,
    way: Way,
    pub(super) dialer: Arc<Dialer>,
    pub(super) breaker: Arc<Breaker>,
    pub(super) selection: ArcSwap<Selection>,
    pub(super) members: Mutex<Members>,
    turn: AtomicUsize,
    reporter: Arc<Reporter>,
    origin: Instant,
    running: AtomicBool,
    closing: CancellationToken,
}

/// Who belongs to a cluster.
#[derive(Debug)]
pub(super) struct Members {
    pub(super) list: Vec<Member>,
    pub(super) ejector: Ejector,
    /// What went wrong when endpoints were last looked for.
    pub(super) discovery_error: Option<String>,
}

/// One endpoint, and what was last said about it.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) endpoint: Arc<Endpoint>,
    pub(super) locality: Option<String>,
    pub(super) health: Health,
    pub(super) last_check: Option<String>,
    pub(super) last_event: Option<String>,
}

/// An endpoint that was picked for a request, counted as busy until this is dropped.
#[derive(Debug)]
pub(crate) struct Picked {
    pub(super) cluster: Arc<Cluster>,
    pub(super) endpoint: Arc<Endpoint>,
}

impl Cluster {
    /// A cluster of a checked configuration; [`Self::start`] looks after it.
    pub(crate) fn build(
        config: &ClusterConfig,
        identity: Option<&Identity>,
        reporter: &Arc<Reporter>,
        loops: &Arc<Loops>,
    ) -> anyhow::Result<Arc<Self>> {
        let cluster = Self {
            dialer: Arc::new(Dialer::build(config, identity, &reporter.service, loops)?),
            name: config.name.as_str().into(),
            version: config.version.as_deref().map(Arc::from),
            deprecation: config
                .deprecation
                .as_ref()
                .and_then(|one| Modifier::of_deprecation(one, "deprecation").ok()),
            key: config.balance.key().and_then(|key| Key::compile(key, "balance").ok()),
            way: match config.balance {
                Balance::LeastRequest | Balance::PeakEwma => Way::CheaperOfTwo,
                Balance::RoundRobin => Way::InTurn,
                Balance::Random | Balance::RingHash(_) | Balance::Maglev(_) => Way::Random,
            },
            breaker: Breaker::new(&config.breaker),
            selection: ArcSwap::default(),
            members: Mutex::new(Members {
                list: Vec::new(),
                ejector: Ejector::new(&config.outlier_detection),
                discovery_error: None,
            }),
            turn: AtomicUsize::new(0),
            reporter: Arc::clone(reporter),
            origin: Instant::now(),
            running: AtomicBool::new(false),
            closing: CancellationToken::new(),
            config: config.clone(),
        };
        match &config.endpoints {
            Endpoints::Static(fixed) => cluster.consist_of(fixed),
            Endpoints::OriginalDestination(app) => {
                let at = |port: &u16| Address::Address(SocketAddr::new(app.address, *port));
                cluster.consist_of(&app.ports.iter().map(at).collect::<Vec<_>>());
            }
            Endpoints::Dns(_) | Endpoints::File(_) | Endpoints::EndpointSlices(_) => {}
        }
        Ok(Arc::new(cluster))
    }

    /// Looks after the endpoints from now on: finds them, asks how they are, lets them back in.
    pub(crate) fn start(self: &Arc<Self>) {
        if self.running.swap(true, Ordering::Relaxed) {
            return;
        }
        let tasks = self.tasks();
        tasks.spawn("cluster-sweep", Arc::clone(self).sweep());
        if let Some(check) = self.config.health_check.clone() {
            tasks.spawn("cluster-health", health::run(Arc::clone(self), check));
        }
        match self.config.endpoints.clone() {
            Endpoints::Static(_) | Endpoints::OriginalDestination(_) => {}
            Endpoints::Dns(dns) => {
                drop(tasks.spawn("cluster-dns", discover::dns::run(Arc::clone(self), dns)))
            }
            Endpoints::File(file) => {
                drop(tasks.spawn("cluster-file", discover::file::run(Arc::clone(self), file)))
            }
            #[cfg(feature = "kubernetes")]
            Endpoints::EndpointSlices(slices) => {
                drop(tasks.spawn("cluster-slices", discover::slices::run(Arc::clone(self), slices)))
            }
            #[cfg(not(feature = "kubernetes"))]
            Endpoints::EndpointSlices(_) => self.not_discovered("built without `kubernetes`".to_owned()),
        }
    }

    /// Whether its endpoints are told whose connection it is.
    pub(crate) fn announces(&self) -> bool {
        self.dialer.announces()
    }

    pub(crate) fn config(&self) -> &ClusterConfig {
        &self.config
    }

    /// `http` or `https`
    pub(crate) fn scheme(&self) -> &'static str {
        self.dialer.scheme()
    }

    pub(crate) fn protocol(&self) -> Protocol {
        self.config.protocol
    }

    /// A place for one more request.
    pub(crate) fn admit(&self) -> Result<Place, ProxyError> {
        self.breaker.request().map_err(|full| self.full(full))
    }

    pub(super) fn full(&self, full: Full) -> ProxyError {
        self.reporter.metrics.breaker_open(&self.name, full.as_str());
        ProxyError::BreakerOpen { cluster: Arc::clone(&self.name), full }
    }

    /// What decides for a client that wanted this port, where nothing else does.
    pub(super) fn key_of(&self, wanted: u16) -> Option<u64> {
        matches!(self.config.endpoints, Endpoints::OriginalDestination(_)).then(|| wanted.into())
    }

    /// What decides which endpoint a request goes to, where one key always goes to one endpoint: of the workload beside us
    /// that is the port that the client `wanted`.
    pub(crate) fn key(&self, facts: &Facts<'_>, wanted: u16) -> Option<u64> {
        self.key_of(wanted).or_else(|| self.key.as_ref()?.number(facts, &self.name))
    }

    /// Whether an address is one of its endpoints.
    pub(crate) fn consists_of(&self, address: SocketAddr) -> bool {
        self.members.lock().list.iter().any(|member| member.endpoint.address == address)
    }

    /// Whether somebody's connection is one that was opened to an endpoint of this cluster, and has come back.
    pub(crate) fn has_opened(&self, ends: Ends) -> bool {
        self.dialer.has_opened(ends)
    }

    /// An endpoint for the next try, not one of `not` if there is another.
    pub(crate) fn pick(self: &Arc<Self>, key: Option<u64>, not: &[SocketAddr]) -> Result<Picked, ProxyError> {
        let selection = self.selection.load();
        let turn = || self.turn.fetch_add(1, Ordering::Relaxed);
        let endpoint = match &self.config.endpoints {
            // There is no other: the client has said which.
            Endpoints::OriginalDestination(_) => selection.at_port(key).ok_or_else(|| {
                ProxyError::PortRefused(key.and_then(|port| port.try_into().ok()).unwrap_or_default())
            })?,
            _ => selection
                .pick(self.way, turn, key, not)
                .ok_or_else(|| ProxyError::NoHealthyUpstream(self.name.to_string()))?,
        };
        endpoint.in_flight.fetch_add(1, Ordering::Relaxed);
        Ok(Picked { cluster: Arc::clone(self), endpoint: Arc::clone(endpoint) })
    }

    /// Consists of these endpoints from now on. Who stays keeps connections and standing.
    pub(crate) fn consist_of(&self, places: &[Address]) {
        let mut members = self.members.lock();
        let mut before = std::mem::take(&mut members.list);
        let mut list: Vec<Member> = Vec::with_capacity(places.len());
        for place in places {
            if list.iter().any(|member| member.endpoint.address == place.address()) {
                continue;
            }
            let kept = before.iter().position(|member| member.endpoint.address == place.address());
            let mut member = kept.map_or_else(|| self.member(place.address()), |at| before.swap_remove(at));
            member.locality = place.locality().map(str::to_owned);
            list.push(member);
        }
        for gone in before {
            gone.endpoint.pool.close();
        }
        members.ejector.set_hosts(list.iter().map(|member| member.endpoint.address));
        members.list = list;
        members.discovery_error = None;
        self.select(&members);
    }

    fn member(&self, address: SocketAddr) -> Member {
        let tasks = self.tasks();
        let endpoint = Endpoint::new(address, &self.config, &self.dialer, tasks, &self.breaker);
        endpoint.is_used_from_now();
        Member {
            endpoint: Arc::new(endpoint),
            locality: None,
            health: Health::default(),
            last_check: None,
            last_event: None,
        }
    }

    /// Endpoints could not be looked for; the old ones stay.
    pub(super) fn not_discovered(&self, problem: String) {
        let mut members = self.members.lock();
        if members.discovery_error.as_ref() != Some(&problem) {
            tracing::warn!(cluster = &*self.name, "endpoints could not be looked for: {problem}");
        }
        members.discovery_error = Some(problem);
    }

    /// There is nowhere to go.
    pub(super) fn consist_of_nothing(&self) {
        let problem = self.members.lock().discovery_error.take();
        self.consist_of(&[]);
        self.members.lock().discovery_error = problem;
    }

    /// Consists of these endpoints, though not all is well with them.
    #[cfg_attr(not(feature = "kubernetes"), expect(dead_code, reason = "only slices are used in part"))]
    pub(super) fn consist_of_all_the_same(&self, places: &[Address], problem: String) {
        let before = self.members.lock().discovery_error.take();
        self.consist_of(places);
        // What was said is not said again.
        self.members.lock().discovery_error = before;
        self.not_discovered(problem);
    }

    /// Works out who may be used, and swaps it in.
    fn select(&self, members: &Members) {
        let candidates: Vec<Candidate<'_>> = members
            .list
            .iter()
            .map(|member| Candidate {
                endpoint: &member.endpoint,
                locality: member.locality.as_deref(),
                in_use: members.ejector.is_in_use(member.endpoint.address),
            })
            .collect();
        let after = Selection::new(&candidates, &self.config);
        let (panic, usable, of) = (after.panic, after.usable, after.of);
        let before = self.selection.swap(Arc::new(after));
        if panic && !before.panic && of > 0 {
            tracing::warn!(
                cluster = &*self.name,
                "{usable} of {of} endpoints may be used, below panic_threshold: all of them are"
            );
        }
    }

    /// What came of one try.
    pub(super) fn note(&self, endpoint: &Endpoint, outcome: Outcome) {
        if let Some(cause) = endpoint.tally.note(outcome, &self.config.outlier_detection) {
            self.bad(endpoint.address, cause);
        }
    }

    #[cold]
    fn bad(&self, host: SocketAddr, cause: Cause) {
        let mut members = self.members.lock();
        if let Some(event) = members.ejector.bad(host, cause, self.origin.elapsed(), rand::random()) {
            self.carry_out(&mut members, &[event]);
        }
    }

    /// Says what was decided, and works out who may be used now.
    fn carry_out(&self, members: &mut Members, events: &[Event]) {
        for event in events {
            let (host, text) = match event {
                Event::Ejected { host, cause, lasts, times } => {
                    self.reporter.metrics.ejection(&self.name, "ejected", cause.as_str());
                    let text = format!("left out for {:.0} s (time {times}): {cause}", lasts.as_secs_f64());
                    tracing::warn!(cluster = &*self.name, endpoint = %host, "endpoint {text}");
                    (host, text)
                }
                Event::Spared { host, cause, why } => {
                    self.reporter.metrics.ejection(&self.name, "spared", cause.as_str());
                    (host, format!("not left out in spite of {cause}: {why}"))
                }
                Event::Returned { host } => (host, "back in use".to_owned()),
            };
            let Some(member) = members.list.iter_mut().find(|one| one.endpoint.address == *host) else {
                continue;
            };
            if matches!(event, Event::Returned { .. }) {
                member.endpoint.is_used_from_now();
            }
            if member.last_event.as_ref() != Some(&text) && !matches!(event, Event::Ejected { .. }) {
                tracing::info!(cluster = &*self.name, endpoint = %host, "endpoint {text}");
            }
            member.last_event = Some(text);
        }
        if events.iter().any(|event| !matches!(event, Event::Spared { .. })) {
            self.select(members);
        }
    }

    async fn sweep(self: Arc<Self>) {
        loop {
            tokio::select! {
                () = self.closed() => return,
                () = tokio::time::sleep(self.config.outlier_detection.interval) => {}
            }
            let mut members = self.members.lock();
            let answers: Vec<Answers> = members
                .list
                .iter()
                .map(|member| {
                    let (total, failed) = member.endpoint.tally.take();
                    Answers { host: member.endpoint.address, total, failed }
                })
                .collect();
            let events = members.ejector.sweep(self.origin.elapsed(), &answers, rand::random);
            self.carry_out(&mut members, &events);
            for member in &members.list {
                member.endpoint.pool.close_unused();
            }
        }
    }

    /// What an endpoint answered when asked how it is.
    pub(super) fn heard(&self, address: SocketAddr, answer: Result<(), String>, check: &HealthCheck) {
        let mut members = self.members.lock();
        let Some(member) = members.list.iter_mut().find(|one| one.endpoint.address == address) else {
            return;
        };
        let change = member.health.observe(answer.is_ok(), check);
        let text = answer.err().unwrap_or_else(|| "well".to_owned());
        if let Some(ill) = change {
            tracing::warn!(cluster = &*self.name, endpoint = %address, ill, "health check: {text}");
            if !ill {
                member.endpoint.is_used_from_now();
            }
        }
        member.last_check = Some(text);
        if let Some(ill) = change {
            members.ejector.set_failing(address, ill);
            self.select(&members);
        }
    }

    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        self.members.lock().list.iter().map(|member| member.endpoint.address).collect()
    }

    pub(super) fn tasks(&self) -> &Tasks {
        self.reporter.service.tasks()
    }

    /// For how long it has been there.
    pub(super) fn age(&self) -> Duration {
        self.origin.elapsed()
    }

    /// Returns once nobody routes here any more.
    pub(super) fn closed(&self) -> WaitForCancellationFuture<'_> {
        self.closing.cancelled()
    }

    /// What there is to say about it.
    pub(crate) fn report(&self) -> report::Cluster {
        report::of(self)
    }

    /// Stops looking after it, and closes the connections that nobody uses; those in use close with their request.
    pub(crate) fn close(&self) {
        self.closing.cancel();
        for member in &self.members.lock().list {
            member.endpoint.pool.close();
        }
    }
}

impl Picked {
    pub(crate) fn address(&self) -> SocketAddr {
        self.endpoint.address
    }

    /// It answered what it was asked at `began`.
    pub(super) fn answered(&self, status: StatusCode, headers: &HeaderMap, began: Option<Instant>) {
        self.endpoint.learn(began);
        // gRPC, which tells failures in a header, needs HTTP/2.
        let outcome = match self.cluster.config.protocol {
            Protocol::H1 => Outcome::of_status(status),
            Protocol::H2 => Outcome::of(status, headers),
        };
        self.cluster.note(&self.endpoint, outcome);
    }

    /// It did not answer, or not to the end.
    pub(crate) fn failed(&self, error: &ProxyError) {
        let its_fault = error.fault() == Fault::Upstream
            && !matches!(error, ProxyError::BreakerOpen { .. } | ProxyError::NoHealthyUpstream(_));
        if its_fault {
            self.cluster.note(&self.endpoint, Outcome::LocalOrigin);
        }
    }
}

impl Drop for Picked {
    fn drop(&mut self) {
        self.endpoint.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}
