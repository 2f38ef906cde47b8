//! The door of the admin API: who is let in, by the policy asked about this very API.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::{FromRequest as _, Request, State};
use axum::http::header::{AUTHORIZATION, FORWARDED, VIA, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use opentelemetry::Context;
use tollgate_identity::tls::Peer;

use super::Admin;
use super::caller::{Caller, Visit};
use super::extract::too_large;
use super::problem::Problem;
use super::request::RequestId;
use crate::authorize::Presented;
use crate::facts::{ADMIN_ISSUER, Header, Headers};
use crate::policy::Snapshot;
use crate::store::hash_secret;
use crate::token::{TokenPlace, VerifiedToken, find};
use crate::wire::authzen::MayAsk;
use crate::x509::PeerCertificate;

/// Longest reason that is kept.
pub(super) const MAX_REASON_BYTES: usize = 1024;

/// Lets in whom the policy lets in, and tells handlers who it is.
///
/// The body is read in between, and the caller judged once more: whoever sends it slowly does not keep a right that
/// was withdrawn.
pub(super) async fn authorize(State(admin): State<Admin>, request: Request, next: Next) -> Response {
    let for_people = request.uri().path() == PAGE_FOR_PEOPLE;
    match admitted(&admin, request).await {
        Ok(request) => next.run(request).await,
        Err(problem) => {
            let mut response = problem.into_response();
            if for_people && response.status() == StatusCode::UNAUTHORIZED {
                let basic = HeaderValue::from_static(r#"Basic realm="tollgate", charset="UTF-8""#);
                response.headers_mut().append(WWW_AUTHENTICATE, basic);
            }
            response
        }
    }
}

async fn admitted(admin: &Admin, request: Request) -> Result<Request, Problem> {
    let (visit, context) = visit_of(&request);
    let caller = admit(admin, visit, context).await?;
    let (mut parts, body) = request.into_parts();
    let body = if [Method::POST, Method::PUT].contains(&parts.method) {
        let whole = Bytes::from_request(Request::from_parts(parts.clone(), body), &()).await;
        let whole = whole.map_err(|rejection| match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => too_large(),
            _ => Problem::malformed(format!("body: {}", rejection.body_text())),
        })?;
        caller.still_admitted(admin)?;
        Body::from(whole)
    } else {
        body
    };
    let (of_authzen, asks) = (caller.clone(), admin.clone());
    parts.extensions.insert(MayAsk::new(move |service| of_authzen.may_see_service(&asks, service)));
    parts.extensions.insert(caller);
    Ok(Request::from_parts(parts, body))
}

/// Paths that do not exist tell so only to those who may know which do.
pub(super) async fn unknown_path(State(admin): State<Admin>, request: Request) -> Problem {
    let (visit, context) = visit_of(&request);
    drop(request);
    match admit(&admin, visit, context).await {
        Ok(_) => Problem::new(StatusCode::NOT_FOUND, "not_found", "there is nothing at this path"),
        Err(problem) => problem,
    }
}

/// What the decision needs of a request; its body is not read before.
fn visit_of(request: &Request) -> (Visit, Context) {
    let extensions = request.extensions();
    let leaf = extensions.get::<Peer>().and_then(|peer| peer.leaf.clone());
    let visit = Visit {
        certificate: leaf.as_deref().map(PeerCertificate::of),
        workload: leaf.map(|leaf| leaf.id.clone()),
        method: request.method().as_str().to_owned(),
        path: request.uri().path().to_owned(),
        headers: SentHeaders::of(request.headers(), request.uri().path()),
        request_id: extensions.get::<RequestId>().map(|id| id.0.clone()).unwrap_or_default(),
        source: source_of(request),
    };
    (visit, extensions.get::<Context>().cloned().unwrap_or_default())
}

/// The caller's address: the connection's own, unless somebody says to have passed the request on. What such a header
/// says is anybody's word, so then the address is not known.
fn source_of(request: &Request) -> Option<IpAddr> {
    let passed_on = ["x-forwarded-for", FORWARDED.as_str(), VIA.as_str()];
    if passed_on.iter().any(|name| request.headers().contains_key(*name)) {
        return None;
    }
    Some(request.extensions().get::<Peer>()?.address.ip())
}

async fn admit(admin: &Admin, visit: Visit, context: Context) -> Result<Caller, Problem> {
    let reason = visit.header("x-tollgate-change-reason").unwrap_or_default().to_owned();
    bounded(&reason)?;
    let mut snapshot = admin.authorizer.cell().load_full();
    let presented = match administrator(&snapshot, |name| visit.header(name))? {
        Some(token) => Presented::Verified(Arc::new(token)),
        None => {
            let question = visit.question(&visit.method, &visit.path);
            let header = |name: &str| visit.header(name);
            admin.authorizer.identify(&mut snapshot, &question, header, &context).await
        }
    };
    Caller::admit(admin, visit, reason, (snapshot, presented))
}

/// A reason is kept for ever, so it is short, wherever it stands.
pub(super) fn bounded(reason: &str) -> Result<(), Problem> {
    if reason.len() > MAX_REASON_BYTES {
        return Err(Problem::malformed(format!("the reason is longer than {MAX_REASON_BYTES} bytes")));
    }
    Ok(())
}

/// The holder of an opaque token.
pub(super) fn administrator<'h>(
    snapshot: &Snapshot,
    header: impl Fn(&str) -> Option<&'h str>,
) -> Result<Option<VerifiedToken>, Problem> {
    let found = find(&[TokenPlace::Bearer], "/", |name| header(name));
    let token =
        found.map_err(|refusal| Problem::malformed(refusal.detail))?.map(|found| hash_secret(found.token));
    // Looking up a hash tells by its timing at most something about hashes.
    let Some(name) = token.and_then(|hash| snapshot.administrator(&hash)) else { return Ok(None) };
    Ok(Some(VerifiedToken::of_subject(ADMIN_ISSUER, name)))
}

/// The page that a person opens in a browser, which knows HTTP Basic and no bearer.
pub(super) const PAGE_FOR_PEOPLE: &str = "/docs";

/// The token that was given as a password.
fn of_basic(value: &str) -> Option<String> {
    let decoded = STANDARD.decode(value.strip_prefix("Basic ")?.trim()).ok()?;
    let pair = String::from_utf8(decoded).ok()?;
    Some(format!("Bearer {}", pair.split_once(':')?.1))
}

/// The headers of a request to this API, by name; whether there were several lines of one is known.
#[derive(Debug)]
pub(super) struct SentHeaders(BTreeMap<String, (String, bool)>);

impl SentHeaders {
    fn of(headers: &HeaderMap, path: &str) -> Self {
        let joined = headers.keys().map(|name| {
            let values: Vec<_> =
                headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
            // Joined as Envoy would, so that a second token is seen.
            let value = values.join(",");
            let basic =
                (path == PAGE_FOR_PEOPLE && name == AUTHORIZATION).then(|| of_basic(&value)).flatten();
            (name.as_str().to_owned(), (basic.unwrap_or(value), values.len() > 1))
        });
        Self(joined.collect())
    }
}

impl Headers for SentHeaders {
    fn header(&self, name: &str) -> Option<Header<'_>> {
        let (value, several) = self.0.get(name)?;
        Some(Header { value, may_be_several: *several })
    }
}
