//! Who we are and whom we trust, now: one handle that every listener and client of the process shares.
//!
//! ```text
//! source ──new material──> Identity ──at the next handshake──> listeners, clients
//!    └── a fault keeps the last good material, and says for how long it still holds
//! ```
//!
//! A change reaches new handshakes only. It cuts no connection: that is for the end of the peer's certificate to do.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Once};
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};
use rustls::crypto::CryptoProvider;
use tokio::sync::watch;
use tollgate_runtime::Service;
use tollgate_runtime::clock::Clock;
use tollgate_runtime::telemetry::KnownBy;

use crate::bundle::TrustBundles;
use crate::credential::Credential;
use crate::metrics;
use crate::renewal;
use crate::source::{Source, SourceFault};
use crate::spiffe_id::{IdFault, IdPattern};
use crate::tls::{CertificatesFault, FileRoots, GrpcChannel};

/// What a source brings.
#[derive(Debug, Clone)]
pub struct Material {
    /// Our own certificate and key.
    pub credential: Credential,
    /// Whom we trust.
    pub bundles: TrustBundles,
}

/// The process's identity; cheap to clone.
#[derive(Debug, Clone)]
pub struct Identity {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    current: ArcSwap<Material>,
    /// Unix seconds since which the certificate is in force.
    since: AtomicI64,
    /// Where it comes from.
    source: &'static str,
    rotations: watch::Sender<u64>,
    clock: Clock,
    provider: Arc<CryptoProvider>,
}

/// The one implementation of cryptography in this system.
///
/// With the first call it begins to gather its randomness, in a thread of its own: that takes some forty milliseconds, in
/// which the thread of the first handshake would serve nobody.
pub fn provider() -> Arc<CryptoProvider> {
    static GATHERS: Once = Once::new();

    let provider = rustls::crypto::aws_lc_rs::default_provider();
    GATHERS.call_once(|| {
        let source = provider.secure_random;
        let gather = move || source.fill(&mut [0; 32]);
        // Where there is no thread for it, the first handshake does it.
        let _ = std::thread::Builder::new().name("randomness".to_owned()).spawn(gather);
    });
    Arc::new(provider)
}

/// Sends the service's telemetry to a collector outside the mesh, where one is configured: it is known by its name, and
/// takes no identity.
pub fn report_outside(service: &Service) -> Result<(), CertificatesFault> {
    let Some(secure) = service.secure_telemetry() else { return Ok(()) };
    let KnownBy::Name(roots) = &secure.known_by else { return Ok(()) };
    let roots = FileRoots::follow(roots.clone(), service)?;
    let channel = GrpcChannel::named(secure.endpoint.clone(), roots, service.clock().clone())?;
    service.send_telemetry_over(Arc::new(move || channel.channel()));
    Ok(())
}

impl Identity {
    /// An identity that does not change.
    pub fn fixed(material: Material, clock: Clock) -> Self {
        Self::of("fixed", material, clock)
    }

    fn of(source: &'static str, material: Material, clock: Clock) -> Self {
        let (rotations, _) = watch::channel(0);
        let current = ArcSwap::from_pointee(material);
        let since = AtomicI64::new(clock.unix_seconds().cast_signed());
        Self { inner: Arc::new(Inner { current, since, source, rotations, clock, provider: provider() }) }
    }

    /// Waits for the first material and then keeps it current until the service stops.
    ///
    /// What is unusable at the start is an error: somebody has to mend it. A source that does not answer is waited for,
    /// and so is one that refuses, loudly and slowly; the service is not ready in the meantime.
    pub async fn follow(mut source: Box<dyn Source>, service: &Service) -> Result<Self, SourceFault> {
        let _waiting = service.readiness().blocker("workload identity");
        let stopping = service.tasks().stopping();
        let mut failures = 0;
        let first = loop {
            let fault = tokio::select! {
                () = stopping.cancelled() => return Err(SourceFault::Stopped),
                next = source.next() => match next {
                    Ok(material) => break material,
                    Err(fault @ (SourceFault::Unavailable(_) | SourceFault::Refused(_))) => fault,
                    Err(fault) => return Err(fault),
                },
            };
            failures += 1;
            let name = source.name();
            if let SourceFault::Refused(_) = fault {
                tracing::error!(source = name, error = %fault, failures, "no identity: it is refused until somebody acts");
            } else {
                tracing::warn!(source = name, error = %fault, failures, "no identity yet; trying again");
            }
            tokio::select! {
                () = stopping.cancelled() => return Err(SourceFault::Stopped),
                () = tokio::time::sleep(wait_after(&fault, failures)) => {}
            }
        };
        let identity = Self::of(source.name(), first, service.clock().clone());
        identity.tell(source.name());
        identity.report(service)?;
        let (following, stopping) = (identity.clone(), service.tasks().stopping());
        service.tasks().spawn_essential("identity", async move {
            tokio::select! {
                () = stopping.cancelled() => {}
                () = following.keep_current(source) => {}
            }
        });
        Ok(identity)
    }

    /// Sends the service's telemetry by this identity, where that is configured, and tells when certificates end.
    fn report(&self, service: &Service) -> Result<(), SourceFault> {
        metrics::observe(self, &service.telemetry().meter());
        let Some(secure) = service.secure_telemetry() else { return Ok(()) };
        let KnownBy::Id(spiffe_id) = &secure.known_by else { return Ok(()) };
        let expected = match spiffe_id {
            Some(id) => id.parse().map_err(|fault| format!("telemetry.spiffe_id `{id}` {fault}")),
            None => self.of_our_own("dashboard").map_err(|fault| fault.to_string()),
        };
        let expected = vec![expected.map_err(SourceFault::Telemetry)?];
        let clock = service.clock().clone();
        let channel = GrpcChannel::mutual(secure.endpoint.clone(), self.clone(), expected, clock);
        let channel = channel.map_err(|error| SourceFault::Telemetry(error.to_string()))?;
        service.send_telemetry_over(Arc::new(move || channel.channel()));
        Ok(())
    }

    async fn keep_current(&self, mut source: Box<dyn Source>) {
        let mut failures = 0;
        loop {
            match source.next().await {
                Ok(material) => {
                    failures = 0;
                    self.replace(material);
                    self.tell(source.name());
                }
                Err(fault) => {
                    failures += 1;
                    let leaf = &self.material().credential.leaf;
                    let (name, id, seconds_left) = (source.name(), &leaf.id, leaf.not_after - self.now());
                    match fault {
                        SourceFault::Refused(_) => tracing::error!(
                            source = name, error = %fault, %id, seconds_left,
                            "identity not renewed: it is refused until somebody acts; the old one holds until its end"
                        ),
                        _ if seconds_left <= 0 => tracing::error!(
                            source = name, error = %fault, %id, seconds_left,
                            "identity not renewed, and the old one has ended: no handshake succeeds"
                        ),
                        _ => tracing::warn!(
                            source = name, error = %fault, %id, seconds_left,
                            "identity not renewed; the old one stays in use"
                        ),
                    }
                    tokio::time::sleep(wait_after(&fault, failures)).await;
                }
            }
        }
    }

    /// Puts new material in force for the handshakes to come.
    pub fn replace(&self, material: Material) {
        let serial = material.credential.leaf.serial.clone();
        let before = self.inner.current.swap(Arc::new(material));
        // Whom we trust changes without a new certificate of ours, too.
        if before.credential.leaf.serial != serial {
            self.inner.since.store(self.now(), Ordering::Relaxed);
        }
        self.inner.rotations.send_modify(|count| *count += 1);
    }

    fn tell(&self, source: &str) {
        let material = self.material();
        let leaf = &material.credential.leaf;
        let seconds_left = leaf.not_after - self.now();
        tracing::info!(source, id = %leaf.id, serial = leaf.serial, seconds_left, "identity in force");
    }

    /// What is in force.
    pub fn material(&self) -> Guard<Arc<Material>> {
        self.inner.current.load()
    }

    /// A service of Tollgate itself, in our own trust domain: `ns/tollgate-system/sa/NAME`.
    pub fn of_our_own(&self, service: &str) -> Result<IdPattern, IdFault> {
        let material = self.material();
        let domain = material.credential.leaf.id.trust_domain();
        format!("spiffe://{domain}/ns/tollgate-system/sa/{service}").parse()
    }

    /// Unix seconds since which our certificate is in force.
    pub fn since(&self) -> i64 {
        self.inner.since.load(Ordering::Relaxed)
    }

    /// Where it comes from, as [`Source::name`] has it.
    pub fn source(&self) -> &'static str {
        self.inner.source
    }

    /// Counts the changes, and tells of each.
    pub fn rotations(&self) -> watch::Receiver<u64> {
        self.inner.rotations.subscribe()
    }

    pub(crate) fn now(&self) -> i64 {
        self.inner.clock.unix_seconds().cast_signed()
    }

    pub(crate) fn provider(&self) -> &Arc<CryptoProvider> {
        &self.inner.provider
    }
}

/// How long to wait before the source is asked again.
fn wait_after(fault: &SourceFault, failures: u32) -> Duration {
    match fault {
        SourceFault::Refused(_) => renewal::retry_after_refusal(draw()),
        _ => renewal::retry_after(failures, draw()),
    }
}

/// A number from 0 to 1 that no other workload draws.
pub(crate) fn draw() -> f64 {
    let mut bytes = [0; 4];
    // Without randomness there is no jitter, which harms nobody who is alone.
    let _ = aws_lc_rs::rand::fill(&mut bytes);
    f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX)
}
