//! One connection, from its first byte to its last.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;

use http::{Request, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tollgate_identity::tls::Lifetime;
use tollgate_proto::Reason;

use super::clock::Found;
use super::io::{Spoken, WatchedStream};
use super::{Closing, Connection, TaskExecutor, refusal};
use crate::pipeline::{self, Proxy};
use crate::record::connection_failed;
use crate::socket::Socket;

/// A connection on which nothing was asked for so long is kept with as little memory as it takes.
const RESTS_AFTER: Duration = Duration::from_secs(5);
/// Room for one read beside the largest head.
const READ_AHEAD: usize = 16 << 10;

/// Serves the requests of one connection until it ends, has nothing more to say, or the proxy stops.
pub(super) async fn serve(
    proxy: &Arc<Proxy>,
    connection: &Arc<Connection>,
    socket: Socket,
    closing: &CancellationToken,
) {
    // On the heap: the task that accepted has no use for its room.
    let mut driving = Box::pin(drive(proxy, connection, socket, closing));
    let driving = pin!(poll_fn(|context| {
        proxy.overload.around(&connection.clock, || driving.as_mut().poll(context))
    }));
    match connection.certificate().map(|certificate| certificate.lifetime) {
        None => driving.await,
        Some(lifetime) => until_the_certificate_ends(connection, lifetime, driving, closing).await,
    }
}

/// No connection outlives its peer's certificate.
async fn until_the_certificate_ends(
    connection: &Connection,
    lifetime: Lifetime,
    mut driving: Pin<&mut impl Future<Output = ()>>,
    closing: &CancellationToken,
) {
    let opened = Instant::now();
    for (step, after) in [lifetime.drain, lifetime.close, lifetime.cut].into_iter().enumerate() {
        tokio::select! {
            () = &mut driving => return,
            () = tokio::time::sleep_until(opened + after) => {}
        }
        match step {
            // In HTTP/1.1 the next answer says that it was the last; in HTTP/2 the connection itself can.
            0 => {
                connection.ending.store(true, Ordering::Relaxed);
                if connection.clock.multiplexed() {
                    closing.cancel();
                }
            }
            1 => closing.cancel(),
            _ => {
                let id = connection.peer_name().unwrap_or_default();
                tracing::info!(peer = %connection.peer, id, "connection cut: the peer's certificate has ended");
            }
        }
    }
}

async fn drive(
    proxy: &Arc<Proxy>,
    connection: &Arc<Connection>,
    socket: Socket,
    closing: &CancellationToken,
) {
    let mut io = WatchedStream::new(socket, Arc::clone(connection));
    // What a connection needs at one time only is on the heap: it keeps the room of its largest moment.
    match Box::pin(recognise(&mut io, proxy, connection, closing)).await {
        First::Spoken(Spoken::Http1) => {
            let mut awake = Some(io);
            while let Some(io) = awake {
                awake = match Box::pin(serve_http1(proxy, connection, io, closing)).await {
                    Some(resting) => rest(resting, connection, closing).await,
                    None => None,
                };
            }
        }
        First::Spoken(Spoken::Http2) => {
            connection.clock.is_multiplexed();
            Box::pin(serve_http2(proxy, connection, io, closing)).await;
        }
        First::SlowHead => refusal::slow_head(proxy, connection, io).await,
        First::Spoken(Spoken::Nothing) | First::Closed => {}
    }
}

enum First {
    Spoken(Spoken),
    SlowHead,
    Closed,
}

async fn recognise(
    io: &mut WatchedStream,
    proxy: &Proxy,
    connection: &Connection,
    closing: &CancellationToken,
) -> First {
    let mut recognising = pin!(io.recognise());
    let mut expired = pin!(Closing::expired(closing, proxy));
    let mut timer = pin!(tokio::time::sleep(connection.clock.longest_sleep()));
    loop {
        tokio::select! {
            biased;
            spoken = &mut recognising => return spoken.map_or(First::Closed, First::Spoken),
            () = &mut expired => {
                // Who has begun to ask may go on.
                let began = connection.clock.quiet_for().is_zero();
                return if began { First::Spoken(Spoken::Http1) } else { First::Closed };
            }
            () = &mut timer => match connection.clock.look() {
                Found::Later(after) => timer.as_mut().reset(Instant::now() + after),
                Found::SlowHead => return First::SlowHead,
                Found::Idle | Found::SlowReader => return First::Closed,
            },
        }
    }
}

/// Waits until a client that asked nothing for a while goes on, or the proxy stops.
async fn rest(
    mut io: WatchedStream,
    connection: &Connection,
    closing: &CancellationToken,
) -> Option<WatchedStream> {
    {
        let mut waking = pin!(io.wakes());
        let mut timer = pin!(tokio::time::sleep(connection.clock.longest_sleep()));
        loop {
            tokio::select! {
                biased;
                woken = &mut waking => {
                    if woken.unwrap_or(false) {
                        break;
                    }
                    return None;
                }
                () = closing.cancelled() => break,
                () = &mut timer => match connection.clock.look() {
                    Found::Later(after) => timer.as_mut().reset(Instant::now() + after),
                    Found::SlowHead | Found::Idle | Found::SlowReader => return None,
                },
            }
        }
    }
    Some(io)
}

/// Serves requests until the connection ends, or until nothing was asked for a while: then it comes back.
async fn serve_http1(
    proxy: &Arc<Proxy>,
    connection: &Arc<Connection>,
    mut io: WatchedStream,
    closing: &CancellationToken,
) -> Option<WatchedStream> {
    let limits = &connection.listener.limits;
    // Before all that hyper holds, so that it is dropped after it.
    let _staying = Staying(connection);
    io.be_strict();
    let mut builder = http1::Builder::new();
    builder
        .max_headers(limits.headers)
        .max_header_size(limits.header_bytes)
        .max_buf_size(limits.header_bytes + READ_AHEAD)
        // Ours distinguishes a slow head from an idle connection.
        .header_read_timeout(None);
    let mut serving = builder.serve_connection(TokioIo::new(io), service(proxy, connection));
    let mut timer = pin!(tokio::time::sleep(connection.clock.longest_sleep().min(RESTS_AFTER)));
    let (mut told, came_late) = (false, closing.is_cancelled());
    if came_late {
        connection.ending.store(true, Ordering::Relaxed);
    }
    let ended = loop {
        tokio::select! {
            biased;
            ended = until_refused(&mut serving, connection) => break ended,
            () = closing.cancelled(), if !told => {
                told = true;
                // The next answer says that it is the last, if there is one: a request may be on its way.
                let said_before = connection.ending.swap(true, Ordering::Relaxed) && !came_late;
                if said_before && !connection.has_switch() {
                    Pin::new(&mut serving).graceful_shutdown();
                }
                timer.as_mut().reset(Instant::now() + proxy.reporter.service.linger());
            }
            () = &mut timer => match connection.clock.look() {
                Found::Later(after) if told => {
                    let (linger, quiet) = (proxy.reporter.service.linger(), connection.clock.quiet_for());
                    // To hyper a 101 is out once it is begun: what is left of it would be lost.
                    if quiet >= linger && !connection.has_switch() {
                        Pin::new(&mut serving).graceful_shutdown();
                    }
                    let left = linger.checked_sub(quiet).filter(|left| !left.is_zero()).unwrap_or(linger);
                    timer.as_mut().reset(Instant::now() + after.min(left));
                }
                Found::Later(_) if rests(connection) => {
                    let parts = serving.into_parts();
                    let mut io = parts.io.into_inner();
                    io.unread(&parts.read_buf);
                    return Some(io);
                }
                Found::Later(after) => {
                    let until_rest = RESTS_AFTER.saturating_sub(connection.clock.quiet_for());
                    let soon = if until_rest.is_zero() { RESTS_AFTER } else { until_rest };
                    timer.as_mut().reset(Instant::now() + after.min(soon));
                }
                Found::SlowHead | Found::Idle => break None,
                // Nothing can be said to who takes nothing.
                Found::SlowReader => {
                    stay(connection);
                    return None;
                }
            },
        }
    };
    match ended {
        Some(Ok(())) => {
            let switch = connection.takes_switch();
            let parts = serving.into_parts();
            let mut io = parts.io.into_inner();
            match switch {
                Some(switch) => {
                    io.unread(&parts.read_buf);
                    Box::pin(switch.carry(io, closing)).await;
                }
                // hyper leaves the closing to whom it would have given the connection.
                None if io.switches() => refusal::last_words(&mut io, &[]).await,
                None => {}
            }
        }
        Some(Err(error)) => {
            stay(connection);
            report(proxy, connection, &error);
        }
        None if connection.clock.must_refuse() => {
            let io = serving.into_parts().io.into_inner();
            if let Some(violation) = io.refused() {
                refusal::malformed(proxy, connection, io, violation).await;
            }
        }
        None if connection.clock.look() == Found::SlowHead => {
            refusal::slow_head(proxy, connection, serving.into_parts().io.into_inner()).await;
        }
        None => {}
    }
    None
}

/// Whether nothing is under way on a connection, and has not been for a while.
fn rests(connection: &Connection) -> bool {
    connection.clock.is_at_rest(RESTS_AFTER) && !connection.has_switch()
}

/// A connection that may go over to another protocol, while it is served. It and what it goes over to hold each other;
/// wherever the serving ends, by a certificate's end or the proxy's too, this lets go of what was not gone over to.
struct Staying<'c>(&'c Connection);

impl Drop for Staying<'_> {
    fn drop(&mut self) {
        drop(self.0.takes_switch());
    }
}

/// The client did not take the answer with which its connection would have gone over to another protocol.
fn stay(connection: &Connection) {
    if let Some(switch) = connection.takes_switch() {
        switch.was_not_taken();
    }
}

/// Drives a connection to its end, or to the point where what comes next must be refused.
async fn until_refused<F: Future + Unpin>(serving: &mut F, connection: &Connection) -> Option<F::Output> {
    poll_fn(|context| match Pin::new(&mut *serving).poll(context) {
        Poll::Ready(ended) => Poll::Ready(Some(ended)),
        Poll::Pending if connection.clock.must_refuse() => Poll::Ready(None),
        Poll::Pending => Poll::Pending,
    })
    .await
}

async fn serve_http2(
    proxy: &Arc<Proxy>,
    connection: &Arc<Connection>,
    io: WatchedStream,
    closing: &CancellationToken,
) {
    let limits = &connection.listener.limits;
    let tasks = proxy.reporter.service.tasks().clone();
    let mut builder = http2::Builder::new(TaskExecutor::new(tasks, "stream"));
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams)
        .max_header_list_size(u32::try_from(limits.header_bytes).unwrap_or(u32::MAX))
        .initial_stream_window_size(1 << 18)
        .initial_connection_window_size(1 << 20)
        .max_send_buf_size(limits.buffered_bytes)
        .keep_alive_interval(limits.idle_timeout.max(Duration::from_secs(10)));
    let mut serving = pin!(builder.serve_connection(TokioIo::new(io), service(proxy, connection)));
    let mut timer = pin!(tokio::time::sleep(connection.clock.longest_sleep()));
    let (mut told, mut draining) = (false, false);
    loop {
        tokio::select! {
            biased;
            ended = serving.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(%error, peer = %connection.peer, "connection ended early");
                }
                return;
            }
            () = closing.cancelled(), if !told => {
                told = true;
                if connection.clock.requests() > 0 {
                    draining = true;
                    serving.as_mut().graceful_shutdown();
                } else {
                    // Who has just come is on the point of asking.
                    timer.as_mut().reset(Instant::now() + proxy.reporter.service.linger());
                }
            }
            () = connection.spent.notified(), if !draining => {
                draining = true;
                serving.as_mut().graceful_shutdown();
            }
            () = &mut timer => match connection.clock.look() {
                Found::SlowReader => return,
                _ if told && !draining => {
                    draining = true;
                    serving.as_mut().graceful_shutdown();
                    timer.as_mut().reset(Instant::now() + refusal::LAST_WORDS);
                }
                Found::Idle if !draining => {
                    draining = true;
                    serving.as_mut().graceful_shutdown();
                    timer.as_mut().reset(Instant::now() + refusal::LAST_WORDS);
                }
                // It was told to go, and nothing is under way.
                Found::Idle => return,
                Found::SlowHead => timer.as_mut().reset(Instant::now() + connection.clock.longest_sleep()),
                Found::Later(after) => timer.as_mut().reset(Instant::now() + after),
            },
        }
    }
}

/// The pipeline, in the shape that hyper calls.
fn service(
    proxy: &Arc<Proxy>,
    connection: &Arc<Connection>,
) -> impl hyper::service::Service<
    Request<Incoming>,
    Response = http::Response<crate::body::ResponseBody>,
    Error = Infallible,
    Future: Send + 'static,
> + use<> {
    let (proxy, connection) = (Arc::clone(proxy), Arc::clone(connection));
    service_fn(move |request| {
        let (proxy, connection) = (Arc::clone(&proxy), Arc::clone(&connection));
        async move { Ok(pipeline::serve(proxy, connection, request).await) }
    })
}

/// A head that cannot be read was answered by hyper; it is ours to record.
fn report(proxy: &Proxy, connection: &Connection, error: &hyper::Error) {
    if !error.is_parse() {
        tracing::debug!(%error, peer = %connection.peer, "connection ended early");
        return;
    }
    let (status, reason) = if error.is_parse_too_large() {
        (StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, Reason::RequestTooLarge)
    } else {
        (StatusCode::BAD_REQUEST, Reason::RequestMalformed)
    };
    connection_failed(&proxy.reporter, connection, status, reason, &error.to_string());
}
