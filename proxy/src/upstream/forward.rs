//! Sending a request upstream: an endpoint, a time, and where the route says so further tries.
//!
//! ```text
//! breaker --> pick --> send --answer--> done
//!              ^        \--failure, or an answer that may be tried again--> budget --> wait --.
//!              '---------------------------- another endpoint, if there is one <-------------'
//! ```
//!
//! A request whose body is gone is never sent again: what can be is one without a body, one whose body is in hand,
//! and one of which nothing was sent.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{Method, Request, Response};
use http_body::Body as _;
use hyper::body::Incoming;
use smallvec::SmallVec;

use super::Cluster;
use super::cluster::Picked;
use super::pool::{Lease, Outgoing, Problem, Sender};
use crate::body::{RequestBody, Upload};
use crate::error::ProxyError;
use crate::proxy_protocol::Ends;
use crate::record::Upstream;
use crate::route::Route;

/// An answer, and where it comes from.
struct Answered {
    response: Response<Incoming>,
    sender: Sender,
    picked: Picked,
}

/// A try without an answer.
struct Failed {
    error: ProxyError,
    /// The request, if nothing of it was sent.
    unsent: Outgoing,
    /// It was this try's time that was over.
    timed_out: bool,
}

/// The head of an answer, and the connection that its body comes by.
type Forwarded = Result<(Response<Incoming>, Lease), ProxyError>;

/// Nothing is waited for.
const NO_BODY: Pace = Pace { timeout: Duration::MAX, min_bytes_per_second: 0 };

/// Sends a request to an endpoint of `cluster` and waits for the head of the answer.
pub(crate) async fn forward(
    cluster: &Arc<Cluster>,
    route: &Route,
    key: Option<u64>,
    request: &mut Outgoing,
    upload: Option<(&Upload, Pace)>,
    upstream: &mut Upstream,
) -> Forwarded {
    let pace = upload.map_or(NO_BODY, |(_, pace)| pace);
    let upload = upload.map(|(upload, _)| upload);
    let place = cluster.admit()?;
    if route.retry.is_some() || route.hedge.is_some() {
        // On the heap: what keeps a request for another try is large, and most routes never try again.
        let request = request.take().ok_or(ProxyError::Internal("a request is forwarded once"))?;
        let persisting = Box::pin(persist(cluster, route, key, request, upload.is_some(), upstream));
        let Answered { response, sender, picked } = in_time(route.timeout, upload, pace, persisting).await?;
        return Ok((response, Lease::new(sender, picked, place)));
    }
    let picked = cluster.pick(key, &[])?;
    upstream.address = Some(picked.address());
    let began = upstream.began;
    let sent = async { picked.send(request).await.map_err(|problem| cluster.error(problem)) };
    match in_time(route.timeout, upload, pace, sent).await {
        Ok((response, sender)) => {
            picked.answered(response.status(), response.headers(), began);
            Ok((response, Lease::new(sender, picked, place)))
        }
        Err(error) => {
            picked.failed(&error);
            Err(error)
        }
    }
}

/// The same for a caller who waits until `at` and no longer, which is not the upstream's fault. On the heap, because most
/// callers do not say so.
pub(crate) fn forward_until<'f>(
    at: tokio::time::Instant,
    cluster: &'f Arc<Cluster>,
    route: &'f Route,
    key: Option<u64>,
    request: &'f mut Outgoing,
    upload: Option<(&'f Upload, Pace)>,
    upstream: &'f mut Upstream,
) -> Pin<Box<impl Future<Output = Forwarded> + 'f>> {
    let began = tokio::time::Instant::now();
    Box::pin(async move {
        let forwarding = forward(cluster, route, key, request, upload, upstream);
        let late = |_| Err(ProxyError::UpstreamTimeout(at.saturating_duration_since(began)));
        tokio::time::timeout_at(at, forwarding).await.unwrap_or_else(late)
    })
}

/// Sends a request once, to any endpoint, and waits as long as the caller does.
pub(super) async fn once(
    cluster: &Arc<Cluster>,
    request: Request<RequestBody>,
) -> Result<(Response<Incoming>, Lease), ProxyError> {
    let place = cluster.admit()?;
    let picked = cluster.pick(None, &[])?;
    let sent = picked.send(&mut Some(request)).await.map_err(|problem| cluster.error(problem));
    sent.map(|(response, sender)| (response, Lease::new(sender, picked, place)))
}

impl Cluster {
    fn error(&self, problem: Problem) -> ProxyError {
        match problem {
            Problem::Upstream(error) => error,
            Problem::Full(full) => self.full(full),
        }
    }
}

async fn persist(
    cluster: &Arc<Cluster>,
    route: &Route,
    key: Option<u64>,
    request: Request<RequestBody>,
    uploads: bool,
    upstream: &mut Upstream,
) -> Result<Answered, ProxyError> {
    let ends = Instant::now() + route.timeout;
    let repeatable = Repeatable::of(&request);
    let may_act_twice = match &route.retry {
        Some(retry) => retry.admits(request.method()),
        None => is_idempotent(request.method()),
    };
    let mut tried = SmallVec::<[SocketAddr; 4]>::new();
    let mut request = request;
    // Held until the next try has ended.
    let mut _budget;
    let mut next = 0;
    loop {
        let left = ends.saturating_duration_since(Instant::now());
        let per_try = route.retry.as_ref().and_then(|retry| retry.per_try_timeout);
        // A body under way has its own clock: see `in_time`.
        let limit = if uploads { per_try } else { Some(per_try.map_or(left, |limit| limit.min(left))) };
        let picked = cluster.pick(key, &tried)?;
        tried.push(picked.address());
        upstream.address = Some(picked.address());
        let first = one_try(cluster, picked, request, limit);
        let second = repeatable.as_ref().filter(|_| may_act_twice);
        let outcome = match (&route.hedge, second) {
            (Some(hedge), Some(second)) => {
                let hedged = hedged(cluster, first, hedge.after, second, key, limit, &mut tried, upstream);
                Box::pin(hedged).await
            }
            _ => first.await,
        };
        next += 1;
        let left = ends.saturating_duration_since(Instant::now());
        let again = repeatable.as_ref().filter(|_| may_act_twice).map(Repeatable::request);
        let wait;
        (request, wait) = match outcome {
            Ok(answered) => {
                let (status, headers) = (answered.response.status(), answered.response.headers());
                let wait = route
                    .retry
                    .as_ref()
                    .and_then(|retry| retry.after_answer(status, headers, next, left, rand::random()));
                let (Some(again), Some(wait)) = (again, wait) else { return Ok(answered) };
                let Ok(place) = cluster.breaker.retry() else { return Ok(answered) };
                _budget = place;
                answered.discard();
                (again, wait)
            }
            Err(failed) => {
                let wait = route.retry.as_ref().and_then(|retry| {
                    retry.after_failure(&failed.error, failed.timed_out, next, left, rand::random())
                });
                // Of what was never sent nothing can have been acted on, whatever the method.
                let again = failed.unsent.or(again);
                let (Some(again), Some(wait)) = (again, wait) else { return Err(failed.error) };
                let Ok(place) = cluster.breaker.retry() else { return Err(failed.error) };
                _budget = place;
                (again, wait)
            }
        };
        upstream.resends += 1;
        tokio::time::sleep(wait).await;
    }
}

/// A request that can be sent again, kept apart from the one that was.
struct Repeatable {
    parts: http::request::Parts,
    body: bytes::Bytes,
}

impl Repeatable {
    fn of(request: &Request<RequestBody>) -> Option<Self> {
        let body = request.body().in_hand()?;
        let (mut parts, ()) = Request::new(()).into_parts();
        parts.method = request.method().clone();
        parts.uri = request.uri().clone();
        parts.version = request.version();
        parts.headers = request.headers().clone();
        if let Some(ends) = request.extensions().get::<Ends>() {
            parts.extensions.insert(*ends);
        }
        Some(Self { parts, body })
    }

    fn request(&self) -> Request<RequestBody> {
        Request::from_parts(self.parts.clone(), RequestBody::whole(self.body.clone()))
    }
}

impl Answered {
    /// Nobody wants this answer: its connection is used again only when there is nothing left to read from it.
    fn discard(mut self) {
        if self.response.body().is_end_stream()
            && let Some(sender) = self.sender.take()
        {
            self.picked.give_back(sender);
        }
    }
}

async fn one_try(
    cluster: &Cluster,
    picked: Picked,
    request: Request<RequestBody>,
    limit: Option<Duration>,
) -> Result<Answered, Failed> {
    let began = Instant::now();
    let mut outgoing = Some(request);
    let sent = picked.send(&mut outgoing);
    let sent = match limit {
        None => sent.await,
        Some(limit) => match tokio::time::timeout(limit, sent).await {
            Ok(sent) => sent,
            Err(_elapsed) => {
                let error = ProxyError::UpstreamTimeout(limit);
                picked.failed(&error);
                return Err(Failed { error, unsent: None, timed_out: true });
            }
        },
    };
    match sent {
        Ok((response, sender)) => {
            picked.answered(response.status(), response.headers(), Some(began));
            Ok(Answered { response, sender, picked })
        }
        Err(problem) => {
            let error = cluster.error(problem);
            picked.failed(&error);
            Err(Failed { error, unsent: outgoing, timed_out: false })
        }
    }
}

/// Lets a second try begin when the first takes long; the better of the two is taken, the other one dropped.
#[expect(clippy::too_many_arguments, reason = "two tries and what each of them needs")]
async fn hedged(
    cluster: &Arc<Cluster>,
    first: impl Future<Output = Result<Answered, Failed>>,
    after: Duration,
    again: &Repeatable,
    key: Option<u64>,
    limit: Option<Duration>,
    tried: &mut SmallVec<[SocketAddr; 4]>,
    upstream: &mut Upstream,
) -> Result<Answered, Failed> {
    let mut first = std::pin::pin!(first);
    tokio::select! {
        biased;
        outcome = &mut first => return outcome,
        () = tokio::time::sleep(after) => {}
    }
    let (Ok(_budget), Ok(picked)) = (cluster.breaker.retry(), cluster.pick(key, tried)) else {
        return first.await;
    };
    tried.push(picked.address());
    upstream.resends += 1;
    let mut second = std::pin::pin!(one_try(cluster, picked, again.request(), limit));
    let answered = tokio::select! {
        outcome = &mut first => match outcome {
            Ok(answered) => Ok(answered),
            Err(_) => second.await,
        },
        outcome = &mut second => match outcome {
            Ok(answered) => Ok(answered),
            Err(_) => first.await,
        },
    };
    if let Ok(answered) = &answered {
        upstream.address = Some(answered.picked.address());
    }
    answered
}

fn is_idempotent(method: &Method) -> bool {
    method.is_safe() || matches!(*method, Method::PUT | Method::DELETE)
}

/// How patient this is with a body.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    /// How long it may stand still.
    pub(crate) timeout: Duration,
    /// What must come of it while it is waited for.
    pub(crate) min_bytes_per_second: u32,
}

/// Waits for the head of the answer. As long as the request's body moves its upstream cannot be late; when the
/// body stands still it is the client who is.
async fn in_time<T>(
    limit: Duration,
    upload: Option<&Upload>,
    pace: Pace,
    sent: impl Future<Output = Result<T, ProxyError>>,
) -> Result<T, ProxyError> {
    let mut sent = std::pin::pin!(sent);
    let Some(upload) = upload else {
        return match tokio::time::timeout(limit, sent).await {
            Ok(answered) => answered,
            Err(_elapsed) => Err(ProxyError::UpstreamTimeout(limit)),
        };
    };
    let (mut seen, mut waited, mut untouched) = (0, Duration::ZERO, Duration::ZERO);
    let mut wait = limit.min(pace.timeout);
    let answered = loop {
        match tokio::time::timeout(wait, sent.as_mut()).await {
            Ok(answered) => break answered,
            Err(_elapsed) => match upload.since_its_end() {
                Some(since) => match limit.checked_sub(since).filter(|left| !left.is_zero()) {
                    Some(left) => wait = left,
                    None => return Err(ProxyError::UpstreamTimeout(limit)),
                },
                None => {
                    let period = wait;
                    wait = limit.min(pace.timeout);
                    let (bytes, now) = (upload.bytes(), upload.waited());
                    let (moved, waiting) = (bytes - seen, now.saturating_sub(waited));
                    (seen, waited) = (bytes, now);
                    let least = (waiting.as_secs_f64() * f64::from(pace.min_bytes_per_second)) as u64;
                    match moved {
                        // Who does not take what there is, is late; who does not send it, as well.
                        0 if waiting < period / 2 => {
                            untouched += period;
                            if untouched >= limit {
                                return Err(ProxyError::UpstreamTimeout(limit));
                            }
                        }
                        0 => return Err(ProxyError::BodyTimeout(period)),
                        _ if moved < least => return Err(ProxyError::BodySlow),
                        _ => untouched = Duration::ZERO,
                    }
                }
            },
        }
    };
    answered.map_err(|error| match upload {
        upload if upload.too_large() => ProxyError::BodyTooLarge,
        upload if upload.broken() => ProxyError::ClientGone,
        _ => error,
    })
}
