//! A connection that goes over from HTTP/1.1 to another protocol, WebSocket most of all (RFC 9110, 7.8).
//!
//! ```text
//! request --admitted by its route--> pipeline as any other --101 from the upstream--> 101 to the client
//!     \--403 `upgrade_refused`          \--any other answer: closed after it              |
//!                                                        bytes both ways, until one end of [`carry`]
//! ```
//!
//! Bytes that come before the 101 are refused with the request (see [`super::framing`]): until then nobody knows what
//! they mean. The record of the request is written when the bytes have ended, with their count.

use std::sync::Arc;
use std::time::Duration;

use http::header::{CONNECTION, ORIGIN, UPGRADE};
use http::{HeaderMap, HeaderValue, Response, request};
use hyper::body::{Body as _, Incoming};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tollgate_proto::Reason;

use super::carry::{Ended, carry};
use super::flow::Side;
use super::io::WatchedStream;
use super::room::Place;
use super::websocket::Farewell;
use super::{Connection, Flow, Listener};
use crate::body::{Content, ResponseBody};
use crate::error::ProxyError;
use crate::head::Host;
use crate::record::Recording;
use crate::route::Route;
use crate::stages::headers;
use crate::upstream::Lease;

/// A client's wish to go over to another protocol.
#[derive(Debug)]
pub(crate) struct Wish {
    protocol: HeaderValue,
    origin: Option<HeaderValue>,
    has_body: bool,
}

impl Wish {
    /// What a request asks for, before that is stripped from it. On the heap: most ask for nothing.
    pub(crate) fn of(parts: &request::Parts, body: &Incoming) -> Option<Box<Self>> {
        let protocol = headers::asks_for_upgrade(parts)?;
        let origin = parts.headers.get(ORIGIN).cloned();
        Some(Box::new(Self { protocol, origin, has_body: !body.is_end_stream() }))
    }

    /// Whether the route lets it. `admitted`: its `cors`, if it has one, admits the page that asks.
    pub(crate) fn admit(&self, route: &Route, host: &Host, admitted: bool) -> Result<(), ProxyError> {
        if self.has_body {
            return Err(ProxyError::Malformed("a request to switch protocols has a body"));
        }
        let wanted = self.protocol.as_bytes();
        if !route.upgrades.iter().any(|one| one.as_bytes().eq_ignore_ascii_case(wanted)) {
            return Err(ProxyError::UpgradeRefused("the route has no such protocol among its `upgrades`"));
        }
        // Pages may open a WebSocket to anybody, without being asked for leave: CORS does not hold there.
        let foreign = self.origin.as_ref().is_some_and(|origin| !is_of(origin, host));
        if route.cors.is_some() && foreign && !admitted {
            return Err(ProxyError::UpgradeRefused("`cors` does not admit the origin"));
        }
        Ok(())
    }

    /// Whether there is room.
    pub(crate) fn enter(self, listener: &Listener) -> Result<Box<Going>, ProxyError> {
        match listener.open.upgraded.try_enter(listener.limits.upgrades) {
            Some(place) => Ok(Box::new(Going { protocol: self.protocol, _place: place })),
            None => Err(ProxyError::UpgradesFull),
        }
    }
}

/// Whether a page of this origin comes from the host that it asks.
fn is_of(origin: &HeaderValue, host: &Host) -> bool {
    let authority = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
    authority.is_some_and(|(_, authority)| authority.eq_ignore_ascii_case(host.authority().as_str()))
}

/// A request that may go over to another protocol, if the upstream does.
#[derive(Debug)]
pub(crate) struct Going {
    protocol: HeaderValue,
    _place: Place,
}

impl Going {
    fn is_websocket(&self) -> bool {
        self.protocol.as_bytes().eq_ignore_ascii_case(b"websocket")
    }

    /// Says to the next one what is wished for.
    pub(crate) fn ask(&self, headers: &mut HeaderMap) {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, self.protocol.clone());
    }
}

/// Takes the upstream at its word, if it has switched to what was asked for.
pub(crate) fn switched(
    response: &mut Response<Incoming>,
    going: Option<Box<Going>>,
    route: &Route,
    connection: &Connection,
) -> Result<Switching, ProxyError> {
    let said = response.headers().get(UPGRADE);
    let going = going.filter(|going| {
        said.is_some_and(|said| said.as_bytes().eq_ignore_ascii_case(going.protocol.as_bytes()))
    });
    let Some(going) = going else { return Err(ProxyError::UpstreamSwitched) };
    if connection.clock.is_refused() {
        return Err(ProxyError::Malformed("bytes before the answer to a request to switch protocols"));
    }
    Ok(Switching {
        upstream: hyper::upgrade::on(response),
        going,
        idle_timeout: route.idle_timeout.unwrap_or(connection.listener.limits.idle_timeout),
        ends: route.stream_timeout.map(|limit| Instant::now() + limit),
    })
}

/// An upstream that has switched.
#[derive(Debug)]
pub(crate) struct Switching {
    upstream: OnUpgrade,
    going: Box<Going>,
    idle_timeout: Duration,
    ends: Option<Instant>,
}

impl Switching {
    /// Answers the client, and makes its connection go over.
    pub(crate) fn answer(
        self,
        response: Response<Content>,
        mut recording: Recording,
        connection: &Connection,
    ) -> Response<ResponseBody> {
        let (mut parts, content) = response.into_parts();
        let Content::Upstream(_, mut lease, _) = content else {
            return recording.refuse(ProxyError::Internal("it is the upstream that switches"));
        };
        lease.stays_open();
        self.going.ask(&mut parts.headers);
        let flow = Arc::new(Flow::new());
        recording.switched(&mut parts.headers, &flow);
        connection.goes_over(Box::new(Switch { switching: self, lease, recording, flow }));
        Response::from_parts(parts, ResponseBody::unrecorded())
    }
}

/// A connection whose last answer was a 101.
#[derive(Debug)]
pub(crate) struct Switch {
    switching: Switching,
    lease: Lease,
    recording: Recording,
    flow: Arc<Flow>,
}

impl Switch {
    /// The client went away, or was cut, before it had the 101.
    pub(super) fn was_not_taken(mut self) {
        let details = "the client did not take the answer that its connection goes over".to_owned();
        self.recording.switch_ended(Reason::ClientGone, "DC", details);
    }

    /// Carries what the two sides have to say to each other.
    pub(super) async fn carry(mut self: Box<Self>, client: WatchedStream, closing: &CancellationToken) {
        if client.refused().is_some() {
            let details = "bytes before the answer to a request to switch protocols".to_owned();
            return self.recording.switch_ended(Reason::RequestMalformed, "DPE", details);
        }
        let Switching { upstream, idle_timeout, ends, going } = &mut self.switching;
        let upstream = match upstream.await {
            Ok(upstream) => Farewell::new(TokioIo::new(upstream), going.is_websocket(), closing),
            Err(error) => {
                self.lease.broke_off();
                return self.recording.switch_ended(Reason::UpstreamReset, "UC", error.to_string());
            }
        };
        let ends = [
            (*ends, Ended::TooLong),
            (self.lease.cut(), Ended::Certificate("a certificate towards the upstream has ended")),
        ];
        let ended = carry(client, upstream, &self.flow, ends, *idle_timeout, closing).await;
        if matches!(ended, Ended::Broken(Side::Upstream, _)) {
            self.lease.broke_off();
        }
        let (reason, flags, details) = ended.said();
        self.recording.switch_ended(reason, flags, details);
    }
}
