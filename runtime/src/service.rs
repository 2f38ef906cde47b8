//! The handle that each part gets: its name, tasks, readiness, telemetry and clock.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::clock::Clock;
use crate::config::Source;
use crate::descriptors::Descriptors;
use crate::hand_over::Succession;
use crate::process::{self, ProcessConfig, Published};
use crate::readiness::{Blocker, Readiness};
use crate::sockets::Sockets;
use crate::tasks::Tasks;
use crate::telemetry::process_log;
use crate::telemetry::{ExportHandles, SecureEndpoint, Telemetry, TelemetryChannel, TelemetryConfig};

/// A part that has been built: its sockets are bound, and `run` serves them.
pub trait App: Send + Sized {
    /// Whether it can go on in another process: it binds all that it accepts by [`Service::sockets`], and waits for
    /// [`Succession::turn`] before it does.
    const HANDS_OVER: bool = false;

    /// Serves until [`crate::tasks::Stopping`] says so, then finishes what is in flight.
    fn run(self) -> impl Future<Output = anyhow::Result<()>> + Send;
}

/// Everything around a part's own job. Cheap to clone.
#[derive(Clone)]
pub struct Service(Arc<Inner>);

impl std::fmt::Debug for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Service").field("name", &self.name()).finish_non_exhaustive()
    }
}

struct Inner {
    tasks: Tasks,
    readiness: Readiness,
    telemetry: Telemetry,
    clock: Clock,
    descriptors: Descriptors,
    published: Published,
    process_address: Mutex<Option<SocketAddr>>,
    exporting: Mutex<Option<ExportHandles>>,
    secure_telemetry: OnceLock<SecureEndpoint>,
    telemetry_channel: watch::Sender<Option<TelemetryChannel>>,
    source: OnceLock<Source>,
    sockets: Sockets,
    succession: Succession,
    process: ProcessConfig,
    linger: OnceLock<Duration>,
}

/// How long a connection that is told to go is heard once more, at least.
const LEAST_LINGER: Duration = Duration::from_secs(1);

impl Service {
    /// Starts telemetry and the process listener; needs a Tokio runtime around it.
    pub fn start(name: &str, process: &ProcessConfig, telemetry: &TelemetryConfig) -> anyhow::Result<Self> {
        Self::start_at(name, process, telemetry, Clock::system())
    }

    /// As [`Self::start`], with a clock of a test's choice.
    pub fn start_at(
        name: &str,
        process: &ProcessConfig,
        telemetry: &TelemetryConfig,
        clock: Clock,
    ) -> anyhow::Result<Self> {
        let (service, _starting) =
            Self::begin(name, process, telemetry, clock, Sockets::default(), Succession::none())?;
        Ok(service)
    }

    /// As [`Self::start`], with sockets that were passed on, perhaps by a process that serves until this one does. It
    /// is not ready before what comes with it is dropped.
    pub(crate) fn succeed(
        name: &str,
        process: &ProcessConfig,
        telemetry: &TelemetryConfig,
        sockets: Sockets,
        succession: Succession,
    ) -> anyhow::Result<(Self, Blocker)> {
        Self::begin(name, process, telemetry, Clock::system(), sockets, succession)
    }

    fn begin(
        name: &str,
        process: &ProcessConfig,
        telemetry: &TelemetryConfig,
        clock: Clock,
        sockets: Sockets,
        succession: Succession,
    ) -> anyhow::Result<(Self, Blocker)> {
        let (handle, exporting) = Telemetry::new(name, telemetry)?;
        let service = Self::assemble(handle, clock, process.clone(), sockets, succession);
        // Before somebody can ask: who waits at an inherited socket is answered at once.
        let starting = service.readiness().blocker("starting");
        if let Some(secure) = exporting.secure_endpoint() {
            let _ = service.0.secure_telemetry.set(secure);
        }
        *service.0.exporting.lock() = Some(exporting.start(service.0.telemetry_channel.subscribe()));
        if let Some(addr) = process.listen {
            let bound = process::listen(&service, addr)?;
            *service.0.process_address.lock() = Some(bound);
        }
        Ok((service, starting))
    }

    /// A service without exporters and process listener.
    pub fn for_test(name: &str) -> Self {
        Self::for_test_at(name, Clock::system())
    }

    /// As [`Self::for_test`], with a clock of the test's choice.
    pub fn for_test_at(name: &str, clock: Clock) -> Self {
        let process = ProcessConfig { shutdown_grace: Duration::from_secs(5), ..ProcessConfig::default() };
        Self::assemble(Telemetry::off(name), clock, process, Sockets::default(), Succession::none())
    }

    fn assemble(
        telemetry: Telemetry,
        clock: Clock,
        process: ProcessConfig,
        sockets: Sockets,
        succession: Succession,
    ) -> Self {
        let readiness = Readiness::new();
        Self(Arc::new(Inner {
            tasks: Tasks::new(telemetry.clone(), readiness.clone()),
            readiness,
            telemetry,
            clock,
            descriptors: Descriptors::take(),
            published: Published::default(),
            process_address: Mutex::new(None),
            exporting: Mutex::new(None),
            secure_telemetry: OnceLock::new(),
            telemetry_channel: watch::Sender::new(None),
            source: OnceLock::new(),
            sockets,
            succession,
            process,
            linger: OnceLock::new(),
        }))
    }

    /// The part's name.
    pub fn name(&self) -> &str {
        self.0.telemetry.name()
    }

    /// Its tasks.
    pub fn tasks(&self) -> &Tasks {
        &self.0.tasks
    }

    /// What keeps it from being ready.
    pub fn readiness(&self) -> &Readiness {
        &self.0.readiness
    }

    /// Its traces, metrics and logs.
    pub fn telemetry(&self) -> &Telemetry {
        &self.0.telemetry
    }

    /// Where telemetry goes over TLS, if it does: it waits for [`Self::send_telemetry_over`].
    pub fn secure_telemetry(&self) -> Option<&SecureEndpoint> {
        self.0.secure_telemetry.get()
    }

    /// Sends telemetry over channels of whoever knows about certificates.
    pub fn send_telemetry_over(&self, channel: TelemetryChannel) {
        self.0.telemetry_channel.send_replace(Some(channel));
    }

    /// The file descriptors of this process.
    pub fn descriptors(&self) -> Descriptors {
        self.0.descriptors
    }

    /// Its time source.
    pub fn clock(&self) -> &Clock {
        &self.0.clock
    }

    /// Where its process listener is, if it has one.
    pub fn process_address(&self) -> Option<SocketAddr> {
        *self.0.process_address.lock()
    }

    /// What it shows at its process listener.
    pub fn published(&self) -> &Published {
        &self.0.published
    }

    /// Says where the configuration came from. The first answer stays.
    pub fn configured_by(&self, source: Source) {
        let _ = self.0.source.set(source);
    }

    /// Where the configuration came from, if it can be read again.
    pub fn source(&self) -> Option<&Source> {
        self.0.source.get()
    }

    /// Runs `future` as this part: what it logs is sent as this part's.
    pub fn scope<F: Future>(&self, future: F) -> impl Future<Output = F::Output> {
        process_log::within(self.telemetry().clone(), future)
    }

    /// Its listening sockets.
    pub fn sockets(&self) -> &Sockets {
        &self.0.sockets
    }

    /// Whether a process before this one still serves.
    pub fn succession(&self) -> &Succession {
        &self.0.succession
    }

    pub(crate) fn process(&self) -> &ProcessConfig {
        &self.0.process
    }

    /// How long a connection that is told to go, and that asks nothing, is heard once more: as long as others may take to
    /// notice that this process goes, if it was given time for that.
    pub fn linger(&self) -> Duration {
        self.0.linger.get().copied().unwrap_or(LEAST_LINGER)
    }

    /// Turns readiness red, goes on for as long as others need to notice, then stops.
    pub async fn drain(&self) {
        let _draining = self.readiness().blocker("draining");
        self.leave();
        tokio::time::sleep(self.0.process.drain_delay).await;
        self.stop().await;
    }

    /// Stops while another process serves in its place: whoever asks about readiness asks that one.
    pub(crate) async fn yield_to_successor(&self) {
        self.leave();
        self.end().await;
    }

    fn leave(&self) {
        let _ = self.0.linger.set(self.0.process.drain_delay.max(LEAST_LINGER));
        self.tasks().leave();
    }

    /// Turns readiness red, ends the tasks within the grace, and sends the last telemetry.
    pub async fn stop(&self) {
        let _draining = self.readiness().blocker("draining");
        self.end().await;
    }

    async fn end(&self) {
        let forced = self.tasks().drain(self.0.process.shutdown_grace).await;
        if forced > 0 {
            tracing::warn!(service = self.name(), forced, "tasks were cut off at the end of the grace");
        }
        self.telemetry().shutdown();
        let exporting = self.0.exporting.lock().take();
        if let Some(exporting) = exporting {
            exporting.flush().await;
        }
    }
}
