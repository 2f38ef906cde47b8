//! Connections to one endpoint, kept and used again.
//!
//! ```text
//! HTTP/1.1   idle --take--> in use --body ended--> idle        at most `max_idle`, the latest used first
//!                              \---broke, client gone---> closed
//! HTTP/2     one connection, shared by all requests; replaced when it closes
//! ```
//!
//! A kept connection may have been closed by the upstream a moment ago. A request that was not written to it yet
//! comes back and takes the next one; a request that was written never does. How many may be open at once is the
//! breaker's to say; beyond that requests wait for one that is given back.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tollgate_runtime::tasks::Tasks;

use super::breaker::{Breaker, Full, Place};
use super::cluster::Picked;
use super::dial::{Dialed, Dialer, until};
use crate::body::RequestBody;
use crate::config::{ClusterConfig, Protocol};
use crate::error::ProxyError;
use crate::listener::TaskExecutor;
use crate::proxy_protocol::Ends;

/// Bytes of one answer's head.
const MAX_HEAD: usize = 128 << 10;

#[derive(Debug)]
pub(super) struct Pool {
    address: SocketAddr,
    protocol: Protocol,
    dialer: Arc<Dialer>,
    connect_timeout: Duration,
    max_idle: usize,
    idle_timeout: Duration,
    idle: Mutex<Vec<Idle>>,
    shared: Mutex<Option<Shared>>,
    /// One opens the shared connection, the others wait for it.
    opening: Semaphore,
    /// Connections that are open, used or not.
    open: Arc<AtomicUsize>,
    breaker: Arc<Breaker>,
    tasks: Tasks,
}

/// A connection is open until this is dropped.
#[derive(Debug)]
struct Open {
    count: Arc<AtomicUsize>,
    _place: Place,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What went wrong with a request.
#[derive(Debug)]
pub(super) enum Problem {
    Upstream(ProxyError),
    /// There is neither a connection nor room to wait for one.
    Full(Full),
}

impl From<ProxyError> for Problem {
    fn from(error: ProxyError) -> Self {
        Self::Upstream(error)
    }
}

/// A request on its way. It is still in here when nothing of it was sent.
pub(super) type Outgoing = Option<Request<RequestBody>>;

const NOTHING_TO_SEND: ProxyError = ProxyError::Internal("a request is sent once");

/// An HTTP/1.1 connection in use; HTTP/2 has none of its own.
pub(super) type Sender = Option<Exclusive>;

/// A connection for one request at a time.
#[derive(Debug)]
pub(super) struct Exclusive {
    sender: http1::SendRequest<RequestBody>,
    /// A certificate at one of its ends is about to end: it is used no more.
    retire: Option<tokio::time::Instant>,
    /// A certificate at one of its ends has ended.
    cut: Option<tokio::time::Instant>,
}

/// A connection for any number of requests.
#[derive(Debug)]
struct Shared {
    sender: http2::SendRequest<RequestBody>,
    retire: Option<tokio::time::Instant>,
}

#[derive(Debug)]
struct Idle {
    connection: Exclusive,
    since: Instant,
}

fn is_past(retire: Option<tokio::time::Instant>) -> bool {
    retire.is_some_and(|retire| retire <= tokio::time::Instant::now())
}

/// The connection that an answer comes from. Dropped before the answer's end it closes the connection.
#[derive(Debug)]
pub(crate) struct Lease {
    sender: Sender,
    picked: Picked,
    /// The request is under way until its answer ends.
    _request: Place,
    /// It goes on, as a connection that speaks something else than HTTP.
    beyond: Option<Open>,
}

impl Lease {
    pub(super) fn new(sender: Sender, picked: Picked, request: Place) -> Self {
        Self { sender, picked, _request: request, beyond: None }
    }

    /// The answer is complete: the connection may serve the next request.
    pub(crate) fn give_back(&mut self) {
        if let Some(sender) = self.sender.take() {
            self.picked.endpoint.pool.keep(sender);
        }
    }

    /// The connection switched to another protocol and stays open until this is dropped.
    pub(crate) fn stays_open(&mut self) {
        self.beyond = self.picked.endpoint.pool.one_more_open();
    }

    /// When the connection must end, whatever it is used for.
    pub(crate) fn cut(&self) -> Option<tokio::time::Instant> {
        self.sender.as_ref()?.cut
    }

    /// The answer broke off, which is a failure like any other.
    pub(crate) fn broke_off(&self) {
        self.picked.failed(&ProxyError::UpstreamReset(None));
    }
}

impl Picked {
    /// The connection may serve another request.
    pub(super) fn give_back(&self, sender: Exclusive) {
        self.endpoint.pool.keep(sender);
    }

    /// Sends a request to this endpoint and waits for the head of the answer.
    pub(super) async fn send(&self, request: &mut Outgoing) -> Result<(Response<Incoming>, Sender), Problem> {
        let pool = &self.endpoint.pool;
        match pool.protocol {
            Protocol::H1 => pool.send_h1(request).await.map(|(response, sender)| (response, Some(sender))),
            Protocol::H2 => pool.send_h2(request).await.map(|response| (response, None)),
        }
    }
}

/// A connection that was waited for.
enum Connection {
    New(Exclusive),
    Freed(Exclusive),
}

impl Pool {
    pub(super) fn new(
        address: SocketAddr,
        config: &ClusterConfig,
        dialer: Arc<Dialer>,
        tasks: Tasks,
        breaker: Arc<Breaker>,
    ) -> Self {
        Self {
            address,
            protocol: config.protocol,
            dialer,
            connect_timeout: config.connect_timeout,
            max_idle: config.max_idle,
            idle_timeout: config.idle_timeout,
            idle: Mutex::new(Vec::new()),
            shared: Mutex::new(None),
            opening: Semaphore::new(1),
            open: Arc::default(),
            breaker,
            tasks,
        }
    }

    pub(super) fn close(&self) {
        self.idle.lock().clear();
        *self.shared.lock() = None;
    }

    /// Closes connections that nobody has used for too long.
    pub(super) fn close_unused(&self) {
        self.idle.lock().retain(|idle| idle.since.elapsed() <= self.idle_timeout);
    }

    /// Connections that are open and not in use.
    pub(super) fn idle(&self) -> usize {
        self.idle.lock().len()
    }

    async fn send_h1(&self, request: &mut Outgoing) -> Result<(Response<Incoming>, Exclusive), Problem> {
        loop {
            let (mut connection, reused) = match self.take() {
                Some(mut kept) => match kept.sender.ready().await {
                    Ok(()) => (kept, true),
                    Err(_closed) => continue,
                },
                // On the heap, because it is rare and large.
                None => match Box::pin(self.one_more(whose(request))).await? {
                    Connection::New(connection) => (connection, false),
                    Connection::Freed(connection) => (connection, true),
                },
            };
            let sent = connection.sender.try_send_request(request.take().ok_or(NOTHING_TO_SEND)?).await;
            match sent {
                Ok(response) => return Ok((response, connection)),
                Err(mut error) => {
                    *request = error.take_message();
                    if request.is_none() || !reused {
                        return Err(classify(error.into_error()).into());
                    }
                }
            }
        }
    }

    /// Another connection: a new one while there may be more of them, else the next that is given back.
    async fn one_more(&self, ends: Option<Ends>) -> Result<Connection, Problem> {
        if let Some(place) = self.place() {
            return self.open_h1(place, ends).await.map(Connection::New).map_err(Problem::Upstream);
        }
        let _waiting = self.breaker.pending().map_err(Problem::Full)?;
        loop {
            let mut freed = std::pin::pin!(self.breaker.freed.notified());
            // From here on nothing that is given back goes unnoticed.
            freed.as_mut().enable();
            if let Some(mut kept) = self.take() {
                match kept.sender.ready().await {
                    Ok(()) => return Ok(Connection::Freed(kept)),
                    Err(_closed) => continue,
                }
            }
            if let Some(place) = self.place() {
                return self.open_h1(place, ends).await.map(Connection::New).map_err(Problem::Upstream);
            }
            freed.await;
        }
    }

    /// A place for one more connection, if there is one.
    fn place(&self) -> Option<Open> {
        let place = self.breaker.connection(self.open.load(Ordering::Relaxed) == 0)?;
        self.open.fetch_add(1, Ordering::Relaxed);
        Some(Open { count: Arc::clone(&self.open), _place: place })
    }

    /// Counts a connection that is open already.
    fn one_more_open(&self) -> Option<Open> {
        let place = self.breaker.connection(true)?;
        self.open.fetch_add(1, Ordering::Relaxed);
        Some(Open { count: Arc::clone(&self.open), _place: place })
    }

    async fn send_h2(&self, request: &mut Outgoing) -> Result<Response<Incoming>, Problem> {
        loop {
            let (mut sender, reused) = match self.shared() {
                Some(sender) => (sender, true),
                None => (Box::pin(self.open_h2()).await?, false),
            };
            if sender.ready().await.is_err() {
                self.forget_shared();
                if reused {
                    continue;
                }
                return Err(ProxyError::UpstreamReset(None).into());
            }
            let sent = sender.try_send_request(request.take().ok_or(NOTHING_TO_SEND)?).await;
            match sent {
                Ok(response) => return Ok(response),
                Err(mut error) => {
                    *request = error.take_message();
                    if request.is_none() || !reused {
                        return Err(classify(error.into_error()).into());
                    }
                    self.forget_shared();
                }
            }
        }
    }

    /// The connection used last, which is the likeliest to be open.
    fn take(&self) -> Option<Exclusive> {
        let mut idle = self.idle.lock();
        while let Some(Idle { connection, since }) = idle.pop() {
            if since.elapsed() > self.idle_timeout {
                // All below it are older still.
                idle.clear();
                return None;
            }
            if !connection.sender.is_closed() && !is_past(connection.retire) {
                return Some(connection);
            }
        }
        None
    }

    fn keep(&self, connection: Exclusive) {
        let is_over = connection.sender.is_closed() || is_past(connection.retire) || self.dialer.announces();
        if is_over || self.tasks.stopping().is_cancelled() {
            // Whoever waits may open another in its place.
            drop(connection);
            if is_over && self.breaker.is_waited_for() {
                self.breaker.freed.notify_waiters();
            }
            return;
        }
        {
            let mut idle = self.idle.lock();
            // Whoever waits for a connection gets it, however few are kept.
            if idle.len() < self.max_idle.max(1) {
                idle.push(Idle { connection, since: Instant::now() });
            }
        }
        if self.breaker.is_waited_for() {
            self.breaker.freed.notify_waiters();
        }
    }

    fn shared(&self) -> Option<http2::SendRequest<RequestBody>> {
        let shared = self.shared.lock();
        let usable = |shared: &&Shared| !shared.sender.is_closed() && !is_past(shared.retire);
        shared.as_ref().filter(usable).map(|shared| shared.sender.clone())
    }

    fn forget_shared(&self) {
        let mut shared = self.shared.lock();
        if shared.as_ref().is_some_and(|shared| shared.sender.is_closed()) {
            *shared = None;
        }
    }

    pub(super) async fn connect(&self, ends: Option<Ends>) -> Result<Dialed, ProxyError> {
        match tokio::time::timeout(self.connect_timeout, self.dialer.dial_for(self.address, ends)).await {
            // There is no descriptor for it, which is nobody's fault but ours.
            Ok(Err(error)) if error.kind() == std::io::ErrorKind::QuotaExceeded => {
                Err(ProxyError::Overloaded { retry_after: Duration::from_secs(1) })
            }
            Ok(dialed) => dialed.map_err(ProxyError::UpstreamConnect),
            Err(_elapsed) => Err(ProxyError::UpstreamConnect(std::io::ErrorKind::TimedOut.into())),
        }
    }

    async fn open_h1(&self, open: Open, ends: Option<Ends>) -> Result<Exclusive, ProxyError> {
        let Dialed { stream, retire, cut, entry } = self.connect(ends).await?;
        let io = TokioIo::new(stream);
        let (sender, connection) =
            http1::Builder::new().max_header_size(MAX_HEAD).handshake(io).await.map_err(classify)?;
        self.tasks.spawn("upstream-connection", async move {
            let (_open, _entry) = (open, entry);
            until(cut, connection.with_upgrades()).await;
        });
        Ok(Exclusive { sender, retire, cut })
    }

    async fn open_h2(&self) -> Result<http2::SendRequest<RequestBody>, ProxyError> {
        let Ok(_permit) = self.opening.acquire().await else {
            return Err(ProxyError::Internal("the semaphore is never closed"));
        };
        if let Some(sender) = self.shared() {
            return Ok(sender);
        }
        let open = self.place();
        let Dialed { stream, retire, cut, entry } = self.connect(None).await?;
        let io = TokioIo::new(stream);
        let (sender, connection) =
            http2::Builder::new(TaskExecutor::new(self.tasks.clone(), "upstream-stream"))
                .timer(TokioTimer::new())
                .initial_stream_window_size(1 << 20)
                .initial_connection_window_size(4 << 20)
                .max_header_list_size(128 << 10)
                .keep_alive_interval(Duration::from_secs(20))
                .handshake(io)
                .await
                .map_err(classify)?;
        self.tasks.spawn("upstream-connection", async move {
            let (_open, _entry) = (open, entry);
            until(cut, connection).await;
        });
        *self.shared.lock() = Some(Shared { sender: sender.clone(), retire });
        Ok(sender)
    }
}

/// Whose request it is, where the upstream is told.
fn whose(request: &Outgoing) -> Option<Ends> {
    request.as_ref()?.extensions().get::<Ends>().copied()
}

fn classify(error: hyper::Error) -> ProxyError {
    if error.is_parse() || error.is_parse_status() {
        ProxyError::UpstreamProtocol(error)
    } else {
        ProxyError::UpstreamReset(Some(error))
    }
}
