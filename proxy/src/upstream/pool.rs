//! Connections to one endpoint, kept and used again.
//!
//! ```text
//! HTTP/1.1   idle --take--> in use --body ended--> idle        at most `max_idle`, the latest used first
//!                              \---broke, client gone---> closed
//! HTTP/2     one connection, shared by all requests; replaced when it closes
//! ```
//!
//! A kept connection may have been closed by the upstream a moment ago. A request that was not written to it yet
//! comes back and takes the next one; a request that was written never does.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tollgate_runtime::tasks::Tasks;

use super::cluster::Picked;
use crate::body::RequestBody;
use crate::config::{ClusterConfig, Protocol};
use crate::error::ProxyError;
use crate::listener::TaskExecutor;

/// Bytes of one answer's head.
const MAX_HEAD: usize = 128 << 10;

#[derive(Debug)]
pub(super) struct Pool {
    address: SocketAddr,
    protocol: Protocol,
    connect_timeout: Duration,
    max_idle: usize,
    idle_timeout: Duration,
    idle: Mutex<Vec<Idle>>,
    shared: Mutex<Option<http2::SendRequest<RequestBody>>>,
    /// One opens the shared connection, the others wait for it.
    opening: Semaphore,
    tasks: Tasks,
}

#[derive(Debug)]
struct Idle {
    sender: http1::SendRequest<RequestBody>,
    since: Instant,
}

/// The connection that an answer comes from. Dropped before the answer's end it closes the connection.
#[derive(Debug)]
pub(crate) struct Lease {
    sender: Option<http1::SendRequest<RequestBody>>,
    picked: Picked,
}

impl Lease {
    /// The answer is complete: the connection may serve the next request.
    pub(crate) fn give_back(&mut self) {
        if let Some(sender) = self.sender.take() {
            self.picked.endpoint.pool.keep(sender);
        }
    }
}

impl Picked {
    /// Sends a request to this endpoint and waits for the head of the answer.
    pub(crate) async fn send(
        self,
        request: Request<RequestBody>,
    ) -> Result<(Response<Incoming>, Lease), ProxyError> {
        let pool = &self.endpoint.pool;
        match pool.protocol {
            Protocol::H1 => {
                let (response, sender) = pool.send_h1(request).await?;
                Ok((response, Lease { sender: Some(sender), picked: self }))
            }
            Protocol::H2 => {
                let response = pool.send_h2(request).await?;
                Ok((response, Lease { sender: None, picked: self }))
            }
        }
    }
}

impl Pool {
    pub(super) fn new(address: SocketAddr, config: &ClusterConfig, tasks: Tasks) -> Self {
        Self {
            address,
            protocol: config.protocol,
            connect_timeout: config.connect_timeout,
            max_idle: config.max_idle,
            idle_timeout: config.idle_timeout,
            idle: Mutex::new(Vec::new()),
            shared: Mutex::new(None),
            opening: Semaphore::new(1),
            tasks,
        }
    }

    pub(super) fn close(&self) {
        self.idle.lock().clear();
        *self.shared.lock() = None;
    }

    async fn send_h1(
        &self,
        mut request: Request<RequestBody>,
    ) -> Result<(Response<Incoming>, http1::SendRequest<RequestBody>), ProxyError> {
        loop {
            let (mut sender, reused) = match self.take() {
                Some(mut sender) => match sender.ready().await {
                    Ok(()) => (sender, true),
                    Err(_closed) => continue,
                },
                // On the heap, because it is rare and large.
                None => (Box::pin(self.open_h1()).await?, false),
            };
            match sender.try_send_request(request).await {
                Ok(response) => return Ok((response, sender)),
                Err(mut error) => match error.take_message() {
                    Some(unsent) if reused => request = unsent,
                    _ => return Err(classify(error.into_error())),
                },
            }
        }
    }

    async fn send_h2(&self, mut request: Request<RequestBody>) -> Result<Response<Incoming>, ProxyError> {
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
                return Err(ProxyError::UpstreamReset(None));
            }
            match sender.try_send_request(request).await {
                Ok(response) => return Ok(response),
                Err(mut error) => match error.take_message() {
                    Some(unsent) if reused => {
                        self.forget_shared();
                        request = unsent;
                    }
                    _ => return Err(classify(error.into_error())),
                },
            }
        }
    }

    /// The connection used last, which is the likeliest to be open.
    fn take(&self) -> Option<http1::SendRequest<RequestBody>> {
        let mut idle = self.idle.lock();
        while let Some(Idle { sender, since }) = idle.pop() {
            if since.elapsed() > self.idle_timeout {
                // All below it are older still.
                idle.clear();
                return None;
            }
            if !sender.is_closed() {
                return Some(sender);
            }
        }
        None
    }

    fn keep(&self, sender: http1::SendRequest<RequestBody>) {
        if sender.is_closed() || self.tasks.stopping().is_cancelled() {
            return;
        }
        let mut idle = self.idle.lock();
        if idle.len() < self.max_idle {
            idle.push(Idle { sender, since: Instant::now() });
        }
    }

    fn shared(&self) -> Option<http2::SendRequest<RequestBody>> {
        self.shared.lock().as_ref().filter(|sender| !sender.is_closed()).cloned()
    }

    fn forget_shared(&self) {
        let mut shared = self.shared.lock();
        if shared.as_ref().is_some_and(http2::SendRequest::is_closed) {
            *shared = None;
        }
    }

    async fn connect(&self) -> Result<TokioIo<TcpStream>, ProxyError> {
        let stream = match tokio::time::timeout(self.connect_timeout, TcpStream::connect(self.address)).await
        {
            Ok(connected) => connected.map_err(ProxyError::UpstreamConnect)?,
            Err(_elapsed) => return Err(ProxyError::UpstreamConnect(std::io::ErrorKind::TimedOut.into())),
        };
        let _ = stream.set_nodelay(true);
        Ok(TokioIo::new(stream))
    }

    async fn open_h1(&self) -> Result<http1::SendRequest<RequestBody>, ProxyError> {
        let io = self.connect().await?;
        let (sender, connection) =
            http1::Builder::new().max_header_size(MAX_HEAD).handshake(io).await.map_err(classify)?;
        self.tasks.spawn("upstream-connection", connection);
        Ok(sender)
    }

    async fn open_h2(&self) -> Result<http2::SendRequest<RequestBody>, ProxyError> {
        let Ok(_permit) = self.opening.acquire().await else {
            return Err(ProxyError::Internal("the semaphore is never closed"));
        };
        if let Some(sender) = self.shared() {
            return Ok(sender);
        }
        let io = self.connect().await?;
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
        self.tasks.spawn("upstream-connection", connection);
        *self.shared.lock() = Some(sender.clone());
        Ok(sender)
    }
}

fn classify(error: hyper::Error) -> ProxyError {
    if error.is_parse() || error.is_parse_status() {
        ProxyError::UpstreamProtocol(error)
    } else {
        ProxyError::UpstreamReset(Some(error))
    }
}
