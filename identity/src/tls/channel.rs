//! A gRPC channel to a workload, or to a server outside, which renews its connection before a certificate at either end
//! does.
//!
//! ```text
//! calls ──> channel ──connection──────── retire: the next call opens another
//!                        └── the calls under way on it end by themselves; at the certificate's end it is cut
//! ```

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Instant;

use arc_swap::ArcSwap;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;
use tokio_rustls::client::TlsStream;
use tollgate_runtime::clock::Clock;
use tonic::transport::{Channel, Endpoint, Uri};
use tower::service_fn;

use super::client::connect_to;
use super::{
    CertificatesFault, FileRoots, Lifetime, MinimumVersion, Origin, client_config, connect, origin_config,
};
use crate::identity::Identity;
use crate::spiffe_id::IdPattern;

/// Microseconds after the channel was made at which its connection should not be used any more; none yet.
const NEVER: u64 = u64::MAX;

/// Where gRPC calls go. Nothing is opened before the first.
pub struct GrpcChannel {
    way: Option<Arc<Way>>,
    endpoint: Endpoint,
    current: ArcSwap<Made>,
}

/// How a connection is opened.
struct Way {
    /// Shown, where we are a workload to the other end.
    identity: Option<Identity>,
    config: Arc<ClientConfig>,
    address: String,
    /// What the other end is called, where it is known by that.
    name: Option<ServerName<'static>>,
    clock: Clock,
}

struct Made {
    channel: Channel,
    at: Instant,
    retire: Arc<AtomicU64>,
}

impl GrpcChannel {
    /// In plaintext.
    pub fn plain(endpoint: Endpoint) -> Self {
        let current = ArcSwap::from_pointee(Made::of(endpoint.connect_lazy()));
        Self { way: None, endpoint, current }
    }

    /// Over mTLS to one of `expected`. The endpoint says where; its scheme does not count.
    pub fn mutual(
        endpoint: Endpoint,
        identity: Identity,
        expected: Vec<IdPattern>,
        clock: Clock,
    ) -> Result<Self, rustls::Error> {
        let config = client_config(&identity, expected, MinimumVersion::Tls13, vec![b"h2".to_vec()])?;
        let address = address_of(&endpoint);
        let way = Way { identity: Some(identity), config, address, name: None, clock };
        Ok(Self::secure(way, endpoint))
    }

    /// Over TLS to a server outside, which proves the name that the endpoint has for it. It is shown no certificate.
    pub fn named(endpoint: Endpoint, roots: FileRoots, clock: Clock) -> Result<Self, CertificatesFault> {
        let address = address_of(&endpoint);
        let wrong = |problem: String| CertificatesFault::Server { address: address.clone(), problem };
        let host = endpoint.uri().host().unwrap_or_default().trim_matches(['[', ']']);
        let name = ServerName::try_from(host.to_owned()).map_err(|error| wrong(error.to_string()))?;
        let origin = Origin {
            roots,
            subject_names: Vec::new(),
            identity: None,
            minimum: MinimumVersion::Tls12,
            alpn: vec![b"h2".to_vec()],
        };
        let config = origin_config(origin).map_err(|error| wrong(error.to_string()))?;
        let way = Way { identity: None, config, address, name: Some(name), clock };
        Ok(Self::secure(way, endpoint))
    }

    fn secure(way: Way, endpoint: Endpoint) -> Self {
        let way = Arc::new(way);
        let current = ArcSwap::from_pointee(way.make(&endpoint));
        Self { way: Some(way), endpoint, current }
    }

    /// For the next call.
    pub fn channel(&self) -> Channel {
        let current = self.current.load();
        let Some(way) = self.way.as_ref().filter(|_| current.is_due()) else {
            return current.channel.clone();
        };
        let new = Arc::new(way.make(&self.endpoint));
        let before = self.current.compare_and_swap(&*current, Arc::clone(&new));
        // Somebody else may have been quicker.
        if Arc::ptr_eq(&before, &current) { new.channel.clone() } else { before.channel.clone() }
    }
}

impl fmt::Debug for GrpcChannel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GrpcChannel").field("to", self.endpoint.uri()).finish_non_exhaustive()
    }
}

impl Made {
    fn of(channel: Channel) -> Self {
        Self { channel, at: Instant::now(), retire: Arc::new(AtomicU64::new(NEVER)) }
    }

    fn is_due(&self) -> bool {
        let retire = self.retire.load(Ordering::Relaxed);
        retire != NEVER && self.at.elapsed().as_micros() >= u128::from(retire)
    }
}

impl Way {
    fn make(self: &Arc<Self>, endpoint: &Endpoint) -> Made {
        let (way, retire, at) = (Arc::clone(self), Arc::new(AtomicU64::new(NEVER)), Instant::now());
        let due = Arc::clone(&retire);
        let connector = service_fn(move |_: Uri| {
            let (way, due) = (Arc::clone(&way), Arc::clone(&due));
            async move {
                let (stream, lifetime) = way.open().await?;
                if let Some(lifetime) = lifetime {
                    let after = (at.elapsed() + lifetime.retire).as_micros();
                    due.store(u64::try_from(after).unwrap_or(NEVER), Ordering::Relaxed);
                }
                Ok::<_, io::Error>(TokioIo::new(stream))
            }
        });
        Made { channel: endpoint.connect_with_connector_lazy(connector), at, retire }
    }

    async fn open(&self) -> io::Result<(Bounded, Option<Lifetime>)> {
        let stream = match &self.name {
            Some(name) => connect_to(Arc::clone(&self.config), &self.address, name.clone()).await?,
            None => connect(Arc::clone(&self.config), &self.address).await?,
        };
        let peer = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
        let lifetime = Lifetime::opened(self.identity.as_ref(), peer, &self.clock);
        let end = lifetime.map(|lifetime| Box::pin(tokio::time::sleep(lifetime.cut)));
        Ok((Bounded { stream, end }, lifetime))
    }
}

fn address_of(endpoint: &Endpoint) -> String {
    let host = endpoint.uri().host().unwrap_or_default();
    format!("{host}:{}", endpoint.uri().port_u16().unwrap_or(443))
}

/// A connection that ends with a certificate.
struct Bounded {
    stream: TlsStream<TcpStream>,
    end: Option<Pin<Box<Sleep>>>,
}

impl Bounded {
    fn ended(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        if self.end.as_mut().is_some_and(|end| end.as_mut().poll(context).is_ready()) {
            return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "a certificate has ended"));
        }
        Ok(())
    }
}

impl AsyncRead for Bounded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.ended(context)?;
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Bounded {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.ended(context)?;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
