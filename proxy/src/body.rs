//! What streams through: a request's body towards the upstream, and an answer's towards the client.
//!
//! Bodies are counted on the way and never held. The answer's body carries the request's [`Recording`]: whatever
//! ends it, its last byte, an error or the client going away, writes the record.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, StatusCode};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::sync::oneshot;
use tokio::time::{Instant, Sleep};
use tollgate_proto::Reason;

use crate::error::grpc_answer;
use crate::record::Recording;
use crate::stages::grpc_web::{Decoder, NotBase64, Web};
use crate::upstream::Lease;

/// Why a body broke off.
pub(crate) type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// How far a request's body has come.
#[derive(Debug)]
pub(crate) struct Upload {
    began: Instant,
    bytes: AtomicU64,
    /// Microseconds that the client was waited for, and since when it is; 0 while it is not.
    waited: AtomicU64,
    waits_since: AtomicU64,
    /// Microseconds after which it ended.
    ended_after: AtomicU64,
    ended: AtomicBool,
    too_large: AtomicBool,
    broken: AtomicBool,
}

impl Upload {
    fn new() -> Self {
        Self {
            began: Instant::now(),
            bytes: AtomicU64::new(0),
            waited: AtomicU64::new(0),
            waits_since: AtomicU64::new(0),
            ended_after: AtomicU64::new(0),
            ended: AtomicBool::new(false),
            too_large: AtomicBool::new(false),
            broken: AtomicBool::new(false),
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// The upstream wants more than there is.
    fn waits(&self) {
        let _ = self.waits_since.compare_exchange(0, self.now().max(1), Ordering::Relaxed, Ordering::Relaxed);
    }

    /// There is more, or the end.
    fn goes_on(&self) {
        let since = self.waits_since.swap(0, Ordering::Relaxed);
        if since > 0 {
            self.waited.fetch_add(self.now().saturating_sub(since), Ordering::Relaxed);
        }
    }

    fn end(&self) {
        self.ended_after.store(self.now(), Ordering::Relaxed);
        self.ended.store(true, Ordering::Relaxed);
    }

    /// How long the client was waited for so far.
    pub(crate) fn waited(&self) -> Duration {
        let since = self.waits_since.load(Ordering::Relaxed);
        let now = if since > 0 { self.now().saturating_sub(since) } else { 0 };
        Duration::from_micros(self.waited.load(Ordering::Relaxed) + now)
    }

    /// How long ago it ended, if it did.
    pub(crate) fn since_its_end(&self) -> Option<Duration> {
        let after = self.ended_after.load(Ordering::Relaxed);
        self.ended().then(|| Duration::from_micros(self.now().saturating_sub(after)))
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }

    pub(crate) fn too_large(&self) -> bool {
        self.too_large.load(Ordering::Relaxed)
    }

    pub(crate) fn broken(&self) -> bool {
        self.broken.load(Ordering::Relaxed)
    }
}

/// A request's body.
#[derive(Debug)]
pub(crate) struct RequestBody(Source);

#[derive(Debug)]
enum Source {
    Nothing,
    Uploading(Uploading),
    /// In hand as a whole.
    Whole(Bytes),
}

#[derive(Debug)]
struct Uploading {
    incoming: Incoming,
    upload: Arc<Upload>,
    limit: u64,
    tee: Option<Box<Tee>>,
    /// What is undone on the way.
    decoder: Option<Decoder>,
}

/// Keeps what passes, for a copy of the request.
#[derive(Debug)]
pub(crate) struct Tee {
    kept: BytesMut,
    room: usize,
    whole: oneshot::Sender<Bytes>,
}

impl Tee {
    pub(crate) fn new(room: usize, whole: oneshot::Sender<Bytes>) -> Self {
        Self { kept: BytesMut::new(), room, whole }
    }

    /// Keeps one more piece; none of it is left when it does not fit.
    fn keep(mut self: Box<Self>, data: &Bytes) -> Option<Box<Self>> {
        if self.kept.len() + data.len() > self.room {
            return None;
        }
        self.kept.extend_from_slice(data);
        Some(self)
    }

    fn end(self) {
        let _ = self.whole.send(self.kept.freeze());
    }
}

#[derive(Debug, thiserror::Error)]
#[error("request body over the limit")]
struct TooLarge;

impl RequestBody {
    /// No body costs nothing; the second value follows the progress of any other.
    pub(crate) fn new(
        incoming: Incoming,
        limit: Option<u64>,
        tee: Option<Tee>,
        decoder: Option<Decoder>,
    ) -> (Self, Option<Arc<Upload>>) {
        if incoming.is_end_stream() {
            return (Self(Source::Nothing), None);
        }
        let upload = Arc::new(Upload::new());
        let limit = limit.unwrap_or(u64::MAX);
        let tee = tee.map(Box::new);
        let uploading = Uploading { incoming, upload: Arc::clone(&upload), limit, tee, decoder };
        (Self(Source::Uploading(uploading)), Some(upload))
    }

    /// The whole body, if it is in hand.
    pub(crate) fn in_hand(&self) -> Option<Bytes> {
        match &self.0 {
            Source::Nothing => Some(Bytes::new()),
            Source::Whole(bytes) => Some(bytes.clone()),
            Source::Uploading(_) => None,
        }
    }

    /// A body that is in hand.
    pub(crate) fn whole(bytes: Bytes) -> Self {
        Self(if bytes.is_empty() { Source::Nothing } else { Source::Whole(bytes) })
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Uploading { incoming, upload, limit, tee, decoder } = match &mut self.0 {
            Source::Nothing => return Poll::Ready(None),
            Source::Whole(bytes) => {
                let bytes = std::mem::take(bytes);
                self.0 = Source::Nothing;
                return Poll::Ready(Some(Ok(Frame::data(bytes))));
            }
            Source::Uploading(uploading) => uploading,
        };
        let mut frame = match Pin::new(&mut *incoming).poll_frame(context) {
            Poll::Ready(frame) => {
                upload.goes_on();
                frame
            }
            Poll::Pending => {
                upload.waits();
                return Poll::Pending;
            }
        };
        if matches!(&frame, Some(Ok(frame)) if frame.is_trailers()) {
            // Nobody has judged what a client says after its body, and no protocol that we carry needs it: gRPC has
            // trailers in answers alone.
            frame = None;
        }
        Poll::Ready(match frame {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    let before = upload.bytes.fetch_add(data.len() as u64, Ordering::Relaxed);
                    if before + data.len() as u64 > *limit {
                        upload.too_large.store(true, Ordering::Relaxed);
                        return Poll::Ready(Some(Err(TooLarge.into())));
                    }
                    let decoded = decoder.as_mut().map(|decoder| decoder.read(data)).transpose();
                    let decoded = match decoded {
                        Ok(decoded) => decoded,
                        Err(error) => {
                            upload.broken.store(true, Ordering::Relaxed);
                            *tee = None;
                            return Poll::Ready(Some(Err(error.into())));
                        }
                    };
                    // What is kept is what is sent.
                    *tee = tee.take().and_then(|tee| tee.keep(decoded.as_ref().unwrap_or(data)));
                    if let Some(decoded) = decoded {
                        return Poll::Ready(Some(Ok(Frame::data(decoded))));
                    }
                }
                Some(Ok(frame))
            }
            Some(Err(error)) => {
                upload.broken.store(true, Ordering::Relaxed);
                Some(Err(error.into()))
            }
            None if decoder.as_ref().is_some_and(|decoder| !decoder.is_complete()) => {
                upload.broken.store(true, Ordering::Relaxed);
                Some(Err(NotBase64.into()))
            }
            None => {
                upload.end();
                if let Some(tee) = tee.take() {
                    tee.end();
                }
                None
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Source::Nothing => true,
            Source::Whole(_) => false,
            // What is decoded may end in the middle of something.
            Source::Uploading(uploading) => uploading.decoder.is_none() && uploading.incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Source::Nothing => SizeHint::with_exact(0),
            Source::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Source::Uploading(uploading) if uploading.decoder.is_some() => SizeHint::default(),
            Source::Uploading(uploading) => uploading.incoming.size_hint(),
        }
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        if let Source::Uploading(Uploading { incoming, upload, tee, decoder, .. }) = &mut self.0 {
            // With a known length nobody asks for the end after the last byte.
            if incoming.is_end_stream() && !upload.ended() {
                upload.end();
                let is_whole = decoder.as_ref().is_none_or(Decoder::is_complete);
                if let Some(tee) = tee.take().filter(|_| is_whole) {
                    tee.end();
                }
            }
        }
    }
}

/// What an answer consists of, before it is recorded.
#[derive(Debug)]
pub(crate) enum Content {
    /// An answer of our own.
    Own(Bytes),
    /// The upstream's, the connection it comes from, and how long it may take.
    Upstream(Incoming, Lease, Option<Box<Patience>>),
}

/// How long an answer may stand still, and how long it may take.
#[derive(Debug)]
pub(crate) struct Patience {
    idle: Option<Duration>,
    ends: Option<Instant>,
    timer: Pin<Box<Sleep>>,
}

impl Patience {
    /// Nothing, where an answer may take as long as it likes.
    pub(crate) fn new(idle: Option<Duration>, ends: Option<Instant>) -> Option<Box<Self>> {
        if idle.is_none() && ends.is_none() {
            return None;
        }
        let mut patience = Box::new(Self { idle, ends, timer: Box::pin(tokio::time::sleep(Duration::ZERO)) });
        patience.begin();
        Some(patience)
    }

    /// Waits anew.
    fn begin(&mut self) {
        let idle = self.idle.map(|idle| Instant::now() + idle);
        let first = [idle, self.ends].into_iter().flatten().min();
        if let Some(first) = first {
            self.timer.as_mut().reset(first);
        }
    }
}

/// An answer took too long after it had begun.
#[derive(Debug, thiserror::Error)]
#[error("the answer did not end in time")]
struct TooSlow;

/// An answer's body.
#[derive(Debug)]
pub(crate) struct ResponseBody {
    content: Content,
    recording: Recording,
    web: Option<Web>,
    /// A piece is out that the client has not taken yet.
    held: bool,
    sent: u64,
    ended: bool,
}

impl ResponseBody {
    pub(crate) fn new(content: Content, recording: Recording) -> Self {
        let web = recording.web().filter(|_| matches!(content, Content::Upstream(..)));
        Self { content, recording, web, held: false, sent: 0, ended: false }
    }

    /// Nothing, of which somebody else keeps the record.
    pub(crate) fn unrecorded() -> Self {
        Self::new(Content::Own(Bytes::new()), Recording::elsewhere())
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        if std::mem::take(&mut this.held) {
            this.recording.let_go();
        }
        let frame = match &mut this.content {
            Content::Own(bytes) if bytes.is_empty() => None,
            Content::Own(bytes) => Some(Ok(Frame::data(std::mem::take(bytes)))),
            Content::Upstream(incoming, _, patience) => match Pin::new(incoming).poll_frame(context) {
                Poll::Ready(frame) => {
                    if let Some(patience) = patience {
                        patience.begin();
                    }
                    frame
                }
                Poll::Pending => {
                    let Some(patience) = patience else { return Poll::Pending };
                    std::task::ready!(patience.timer.as_mut().poll(context));
                    this.recording.too_slow();
                    if !this.recording.is_grpc() {
                        return Poll::Ready(Some(Err(TooSlow.into())));
                    }
                    // A call has a way to say so; the upstream is told by the end of its stream.
                    this.content = Content::Own(Bytes::new());
                    Some(Ok(Frame::trailers(deadline_exceeded())))
                }
            },
        };
        Poll::Ready(match frame {
            Some(Ok(frame)) => {
                if let Some(trailers) = frame.trailers_ref() {
                    this.recording.trailers(trailers);
                }
                let frame = match &this.web {
                    None => frame,
                    Some(web) => written(web, frame),
                };
                if let Some(data) = frame.data_ref() {
                    this.sent += data.len() as u64;
                    this.held = true;
                    this.recording.holds();
                }
                Some(Ok(frame))
            }
            Some(Err(error)) => {
                this.recording.broke_off();
                if let Content::Upstream(_, lease, _) = &this.content {
                    lease.broke_off();
                }
                Some(Err(error.into()))
            }
            None => {
                this.ended = true;
                None
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Own(bytes) => bytes.is_empty(),
            Content::Upstream(incoming, ..) => incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Own(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Content::Upstream(..) if self.web.is_some() => SizeHint::default(),
            Content::Upstream(incoming, ..) => incoming.size_hint(),
        }
    }
}

/// A piece of an answer, as browsers can read it.
fn written(web: &Web, frame: Frame<Bytes>) -> Frame<Bytes> {
    match frame.into_data() {
        Ok(data) => Frame::data(web.data(data)),
        Err(frame) => {
            Frame::data(frame.into_trailers().map_or_else(|_| Bytes::new(), |said| web.trailers(&said)))
        }
    }
}

/// How a call ends whose time is over.
fn deadline_exceeded() -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(2);
    grpc_answer(StatusCode::GATEWAY_TIMEOUT, Reason::UpstreamTimeout, &mut trailers);
    trailers.remove(CONTENT_TYPE);
    trailers
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        if self.held {
            self.recording.let_go();
        }
        // An own body is in hand as a whole; an answer without one (HEAD, 304) is never polled.
        let complete = match &mut self.content {
            Content::Own(_) => true,
            Content::Upstream(incoming, lease, _) => {
                let complete = self.ended || incoming.is_end_stream();
                // An upstream that answered before it had the whole request would make the next one wait.
                if complete && self.recording.is_request_sent() {
                    lease.give_back();
                }
                complete
            }
        };
        self.recording.finish(self.sent, complete);
    }
}
