//! Copies of requests: sent beside the real one, waited for by nobody, never retried, never counted.
//!
//! ```text
//! copy --no body-----------------------------> sent --> answer thrown away (and compared, where asked)
//!   \--follows the body--> whole --------------^
//!                      \-> too long, broken off: dropped
//! ```

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::uri::Authority;
use http::{HeaderValue, Request, StatusCode, request};
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::Cluster;
use super::forward::once as forward_copy;
use crate::body::{RequestBody, Tee};
use crate::error::ProxyError;
use crate::pipeline::address;
use crate::record::Reporter;
use crate::route::Mirror;
use crate::snapshot::Snapshot;
use crate::stages::headers::COPY;

/// Bytes of an answer that are read so that its connection can be used again.
const MAX_DISCARDED: usize = 256 << 10;

/// A copy that is not on its way yet.
pub(crate) struct Copy {
    cluster: Arc<Cluster>,
    reporter: Arc<Reporter>,
    parts: request::Parts,
    timeout: Duration,
    body_bytes: usize,
    compare: bool,
    permit: OwnedSemaphorePermit,
}

/// What the real request tells its copy, if the two are compared.
pub(crate) struct Primary(Option<oneshot::Sender<(Option<StatusCode>, Duration)>>);

impl Primary {
    pub(crate) fn compare_with(self, status: Option<StatusCode>, took: Duration) {
        if let Some(sender) = self.0 {
            let _ = sender.send((status, took));
        }
    }
}

/// Copies a head, if there is room for one more copy.
pub(crate) fn copy(
    mirror: &Mirror,
    reporter: &Arc<Reporter>,
    snapshot: &Snapshot,
    parts: &request::Parts,
    host: &Authority,
) -> Option<Copy> {
    let cluster = snapshot.clusters.get(&mirror.cluster)?;
    let Ok(permit) = Arc::clone(&mirror.room).try_acquire_owned() else {
        reporter.metrics.mirrored(&cluster.name, "no_room");
        return None;
    };
    let (mut copied, ()) = Request::new(()).into_parts();
    copied.method = parts.method.clone();
    copied.uri = parts.uri.clone();
    copied.headers = parts.headers.clone();
    mirror.redact(&mut copied.headers, &mut copied.uri);
    copied.headers.insert(COPY, HeaderValue::from_static("1"));
    address(&mut copied, host, cluster.protocol(), cluster.scheme()).ok()?;
    Some(Copy {
        cluster: Arc::clone(cluster),
        reporter: Arc::clone(reporter),
        parts: copied,
        timeout: mirror.timeout,
        body_bytes: mirror.body_bytes,
        compare: mirror.compare,
        permit,
    })
}

impl Copy {
    /// Lets the copy go its way: at once without a body, else when the body has passed. What is given back first
    /// tells it about the real answer.
    pub(crate) fn follow(self, body: &Incoming) -> (Option<Primary>, Option<Tee>) {
        let (tee, whole) = if body.is_end_stream() {
            (None, None)
        } else {
            let (sender, whole) = oneshot::channel();
            (Some(Tee::new(self.body_bytes, sender)), Some(whole))
        };
        let (sender, primary) = oneshot::channel();
        let sender = self.compare.then_some(sender);
        let tasks = self.reporter.service.tasks().clone();
        tasks.spawn("mirror", async move { self.send(whole, primary).await });
        (Some(Primary(sender)), tee)
    }

    async fn send(
        self,
        body: Option<oneshot::Receiver<Bytes>>,
        primary: oneshot::Receiver<(Option<StatusCode>, Duration)>,
    ) {
        let Self { cluster, reporter, parts, timeout, compare, permit: _permit, .. } = self;
        let metrics = &reporter.metrics;
        let body = match body {
            None => Bytes::new(),
            Some(whole) => match tokio::time::timeout(timeout, whole).await {
                Ok(Ok(body)) => body,
                _ => return metrics.mirrored(&cluster.name, "body_not_copied"),
            },
        };
        let began = Instant::now();
        let request = Request::from_parts(parts, RequestBody::whole(body));
        let answered = tokio::time::timeout(timeout, send_and_discard(&cluster, request)).await;
        let took = began.elapsed();
        let status = answered.ok().and_then(Result::ok);
        metrics.mirrored(&cluster.name, if status.is_some() { "sent" } else { "failed" });
        if compare && let Ok((real, real_took)) = primary.await {
            metrics.compared(&cluster.name, real == status, took.as_secs_f64() - real_took.as_secs_f64());
            tracing::debug!(
                cluster = &*cluster.name,
                status = status.map(|status| status.as_u16()),
                real_status = real.map(|status| status.as_u16()),
                took_us = took.as_micros(),
                real_took_us = real_took.as_micros(),
                "mirrored"
            );
        }
    }
}

async fn send_and_discard(
    cluster: &Arc<Cluster>,
    request: Request<RequestBody>,
) -> Result<StatusCode, ProxyError> {
    let (mut response, mut lease) = forward_copy(cluster, request).await?;
    let mut discarded = 0;
    while let Some(Ok(frame)) = response.frame().await {
        discarded += frame.data_ref().map_or(0, Bytes::len);
        if discarded > MAX_DISCARDED {
            return Ok(response.status());
        }
    }
    if response.body().is_end_stream() {
        lease.give_back();
    }
    Ok(response.status())
}
