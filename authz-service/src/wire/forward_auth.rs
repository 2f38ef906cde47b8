//! HTTP forward-auth: a proxy sends the head of a request here and does as the status says.
//!
//! Traefik's `forwardAuth` and nginx's `auth_request` both work: the request in question stands in `x-forwarded-method`,
//! `-proto`, `-host` and `-uri`, its other headers are the request's own. These headers are believed because the asker
//! is an enforcer, and for no other reason. An answer of 200 lets pass, with claim headers to copy; any other goes to
//! the client as it is. What an allow would remove has to be removed by the proxy: list the headers there as copied
//! from the answer, which drops a client's own. A query cannot be changed this way: a client that says a
//! parameter in which an issuer has a claim said is refused.

use std::collections::HashMap;
use std::net::IpAddr;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use axum::routing::any;
use opentelemetry::Context;
use tollgate_identity::tls::Peer;

use super::changes::{self, Lines};
use super::enforcer::{Asker, MayNotAsk};
use super::login;
use super::refusal::{Refused, refused};
use crate::authorize::{Authorizer, Question, service_of};
use crate::facts::{Guard, Header, Headers, PathReadings};
use crate::policy::Verdict;

/// Where it is asked.
const PATH: &str = "/forward-auth";

/// The one route. It needs no credentials of its own: who asks is an enforcer, or is told nothing.
pub(crate) fn router(authorizer: Authorizer) -> Router {
    Router::new().route(PATH, any(forward_auth)).with_state(authorizer)
}

async fn forward_auth(State(authorizer): State<Authorizer>, request: Request) -> Response<Body> {
    let (parts, _body) = request.into_parts();
    let asker = parts.extensions.get::<Peer>();
    let context = parts.extensions.get::<Context>().cloned().unwrap_or_default();
    match answer(&authorizer, asker, parts.uri.query().unwrap_or_default(), &parts.headers, &context).await {
        Ok(response) => response,
        Err(Fault::Asker(why)) => plain(StatusCode::FORBIDDEN, &why.to_string()),
        Err(Fault::Question(why)) => plain(StatusCode::BAD_REQUEST, &why),
    }
}

/// Why there is no answer: the proxy that asks is set up wrongly. This is for its operator to read.
enum Fault {
    Asker(MayNotAsk),
    Question(String),
}

impl From<MayNotAsk> for Fault {
    fn from(why: MayNotAsk) -> Self {
        Self::Asker(why)
    }
}

async fn answer(
    authorizer: &Authorizer,
    peer: Option<&Peer>,
    query: &str,
    headers: &HeaderMap,
    context: &Context,
) -> Result<Response<Body>, Fault> {
    let mut snapshot = authorizer.cell().load_full();
    let asker = Asker::with(peer, &snapshot, authorizer.now())?;
    let asked = Asked::read(query, headers)?;
    let headers = Joined::of(headers);
    let question = Question {
        service: asked.service,
        destination: None,
        entry: asker.entry(None, None, &snapshot)?,
        peer: None,
        certificate: None,
        holder: None,
        method: asked.method,
        host: asked.host,
        target: asked.target,
        guard: Guard::Deny,
        request_id: headers.get("x-request-id"),
        headers: &headers,
        source: asked.source,
    };
    let Ok(path) = PathReadings::of_target(question.target) else {
        let id = authorizer.malformed(snapshot.epoch, &question, "path").to_string();
        return Ok(refusal(&Refused::malformed(), question.request_id.unwrap_or(&id)));
    };
    let presented = authorizer.identify(&mut snapshot, &question, |name| headers.get(name), context).await;
    if let Some(rules) = service_of(&snapshot, &question) {
        asker.may_ask_about(&rules.service.key)?;
    }
    let decided = authorizer.decide(&snapshot, &question, path, &presented, context);
    if decided.decision.verdict == Verdict::Deny {
        let refused = refused(&decided.decision, &presented);
        let header = |name: &str| headers.get(name);
        let refused = login::for_browser(refused, &snapshot, &question, &presented, asked.scheme, header);
        let id = decided.id.to_string();
        return Ok(refusal(&refused, question.request_id.unwrap_or(&id)));
    }
    let changes = changes::of(&snapshot, &question, &presented, &headers);
    if changes.presumes {
        // The proxy sends the query on as it is, so this cannot be put right.
        return Ok(refusal(&Refused::malformed(), question.request_id.unwrap_or(&decided.id.to_string())));
    }
    let mut response = Response::new(Body::empty());
    for (name, value) in changes.set.iter().filter(|(name, _)| name != "cookie") {
        put(response.headers_mut(), name, value);
    }
    Ok(response)
}

/// The request in question, as the proxy tells it.
struct Asked<'a> {
    service: Option<&'a str>,
    method: &'a str,
    scheme: &'a str,
    host: &'a str,
    target: &'a str,
    source: Option<IpAddr>,
}

impl<'a> Asked<'a> {
    fn read(query: &'a str, headers: &'a HeaderMap) -> Result<Self, Fault> {
        let said = |name: &str| one(headers, name);
        let needed = |name: &str| {
            said(name)?.ok_or_else(|| Fault::Question(format!("the proxy must say {name}, once")))
        };
        let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        let services: Vec<_> = pairs.filter(|(name, _)| *name == "service").map(|(_, key)| key).collect();
        if services.len() > 1 {
            return Err(Fault::Question("the parameter service stands there twice".to_owned()));
        }
        Ok(Self {
            service: services.first().copied(),
            method: needed("x-forwarded-method")?,
            scheme: said("x-forwarded-proto")?.unwrap_or("https"),
            host: needed("x-forwarded-host")?,
            target: needed("x-forwarded-uri")?,
            source: source(headers),
        })
    }
}

/// The client's address: the last one that was written down, which is the asking proxy's own word.
fn source(headers: &HeaderMap) -> Option<IpAddr> {
    let last = headers.get_all("x-forwarded-for").iter().next_back()?.to_str().ok()?;
    last.rsplit(',').next()?.trim().parse().ok()
}

/// A header of which there must not be two: one might be the proxy's and the other its client's.
fn one<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, Fault> {
    let mut lines = headers.get_all(name).iter();
    match (lines.next(), lines.next()) {
        (None, _) => Ok(None),
        (Some(line), None) => match line.to_str() {
            Ok(text) if !text.is_empty() => Ok(Some(text)),
            _ => Err(Fault::Question(format!("{name} is empty or no ASCII text"))),
        },
        (Some(_), Some(_)) => Err(Fault::Question(format!("{name} stands there twice"))),
    }
}

/// Headers as Envoy would hand them over: repeats joined, so that a second token is seen.
#[derive(Debug)]
struct Joined(HashMap<String, String>);

impl Joined {
    fn of(headers: &HeaderMap) -> Self {
        let mut joined: HashMap<String, String> = HashMap::with_capacity(headers.keys_len());
        for (name, value) in headers {
            let value = String::from_utf8_lossy(value.as_bytes());
            joined
                .entry(name.as_str().to_owned())
                .and_modify(|before| {
                    before.push_str(if *name == header::COOKIE { "; " } else { "," });
                    before.push_str(&value);
                })
                .or_insert_with(|| value.into_owned());
        }
        Self(joined)
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }
}

impl Headers for Joined {
    fn header(&self, name: &str) -> Option<Header<'_>> {
        self.0.header(name)
    }
}

impl Lines for Joined {
    fn names(&self) -> Box<dyn Iterator<Item = &str> + '_> {
        Box::new(self.0.keys().map(String::as_str))
    }
}

fn refusal(refused: &Refused, request_id: &str) -> Response<Body> {
    let mut response = Response::new(Body::from(refused.body(false, request_id)));
    *response.status_mut() = StatusCode::from_u16(refused.status).unwrap_or(StatusCode::FORBIDDEN);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    for (name, value) in refused.headers() {
        put(headers, name, &value);
    }
    response
}

fn put(headers: &mut HeaderMap, name: &str, value: &str) {
    // Both were checked where they were made; what is no header all the same is left out.
    if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::from_str(value)) {
        headers.insert(name, value);
    }
}

fn plain(status: StatusCode, text: &str) -> Response<Body> {
    let mut response = Response::new(Body::from(format!("{text}\n")));
    *response.status_mut() = status;
    response
}
