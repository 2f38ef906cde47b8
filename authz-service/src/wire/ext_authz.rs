//! Envoy's `ext_authz` v3: the only place that knows its messages.
//!
//! In here is the question; what becomes of it is `answer`'s, what an allow changes about the request `changes`'s. A
//! body that comes along is not looked at: no rule reads one. A Check without a request, as Envoy's filter for TCP sends
//! it, is about a connection: to policy it is the method [`OF_A_CONNECTION`] on the path `/`, with the server name that
//! TLS asked for as its host, and nobody could present a token.

use std::borrow::Cow;
use std::collections::HashMap;

use bytes::Bytes;
use opentelemetry::Context;
use tonic::{Request, Status};

use super::answer::{self, CheckResponse, Speaks};
use super::changes::{self, Changes, Lines};
use super::check_request::{CheckRequest, Http, Malformed, Pairs, Peer};
use super::enforcer::{Asker, MayNotAsk};
use super::refusal::{Refused, refused};
use super::{login, metadata};
use crate::authorize::{Authorizer, Presented, Question};
use crate::facts::{self, Header, NoHeaders, PathReadings};
use crate::policy::{Snapshot, Verdict};
use crate::x509::{self, PeerCertificate};

/// The method by which policy speaks of connections.
const OF_A_CONNECTION: &str = "CONNECT";

/// The service.
#[derive(Debug, Clone)]
pub struct ExtAuthz {
    authorizer: Authorizer,
}

impl ExtAuthz {
    /// Answers by `authorizer`.
    pub fn new(authorizer: Authorizer) -> Self {
        Self { authorizer }
    }

    /// Answers one check as it came.
    pub(super) async fn check(&self, request: &Request<Bytes>) -> Result<CheckResponse, Status> {
        let asker = Asker::of(request, &self.authorizer.cell().load(), self.authorizer.now())?;
        let context = request.extensions().get::<Context>().cloned().unwrap_or_default();
        let check = CheckRequest::read(request.get_ref())?;
        let check = check.ok_or_else(|| Status::invalid_argument("attributes are missing"))?;
        self.answer_to(&asker, &check, &context).await
    }

    /// Answers one check, asked by the enforcer `local`.
    pub async fn answer(&self, check: &CheckRequest<'_>, context: &Context) -> Result<CheckResponse, Status> {
        let asker = Asker::local(&self.authorizer.cell().load());
        self.answer_to(&asker, check, context).await
    }

    async fn answer_to(
        &self,
        asker: &Asker,
        check: &CheckRequest<'_>,
        context: &Context,
    ) -> Result<CheckResponse, Status> {
        let mut snapshot = self.authorizer.cell().load_full();
        let Some(http) = &check.http else { return self.answer_to_connection(asker, check, context) };
        let certificate = certificate_of(&check.source)?;
        let holder = holder(check, &snapshot, certificate.as_ref());
        let headers = Headers::of(http);
        let speaks = Speaks::of(headers.get("content-type"));
        let request_id = headers.get("x-request-id").filter(|given| is_request_id(given));
        let question = question(check, (asker, &snapshot), &headers)?;
        let question = Question {
            certificate: certificate.as_ref(),
            holder: holder.as_deref(),
            method: http.method,
            host: http.host,
            target: http.path,
            request_id,
            ..question
        };
        let path = match PathReadings::of_target(question.target) {
            Ok(path) => path,
            Err(error) => {
                let id = self.authorizer.malformed(snapshot.epoch, &question, &format!("path: {error}"));
                let id = id.to_string();
                let metadata = metadata::malformed(snapshot.epoch, &id);
                let refused = &Refused::malformed();
                return Ok(answer::refused(refused, speaks, metadata, request_id.unwrap_or(&id)));
            }
        };
        let presented =
            self.authorizer.identify(&mut snapshot, &question, |name| headers.get(name), context).await;
        may_ask(asker, check, &snapshot, &question)?;
        let decided = self.authorizer.decide(&snapshot, &question, path, &presented, context);
        let mut fields = metadata::of_decision(&decided, &presented, snapshot.epoch);
        metadata::claims(&mut fields, &snapshot, &presented);
        let metadata = fields.under_tollgate();
        if decided.decision.verdict == Verdict::Allow {
            let changes = changes::of(&snapshot, &question, &presented, &headers);
            return Ok(answer::allowed(changes, metadata));
        }
        let refused = refused(&decided.decision, &presented);
        let header = |name: &str| headers.get(name);
        let refused = login::for_browser(refused, &snapshot, &question, &presented, http.scheme, header);
        let id = decided.id.to_string();
        Ok(answer::refused(&refused, speaks, metadata, request_id.unwrap_or(&id)))
    }

    fn answer_to_connection(
        &self,
        asker: &Asker,
        check: &CheckRequest<'_>,
        context: &Context,
    ) -> Result<CheckResponse, Status> {
        let snapshot = self.authorizer.cell().load_full();
        let certificate = certificate_of(&check.source)?;
        let question = question(check, (asker, &snapshot), &NoHeaders)?;
        let question = Question { certificate: certificate.as_ref(), host: check.server_name, ..question };
        may_ask(asker, check, &snapshot, &question)?;
        let path =
            PathReadings::of_target(question.target).map_err(|error| Status::internal(error.to_string()))?;
        let nobody = Presented::Unasked;
        let decided = self.authorizer.decide(&snapshot, &question, path, &nobody, context);
        let metadata = metadata::of_decision(&decided, &nobody, snapshot.epoch).under_tollgate();
        if decided.decision.verdict == Verdict::Allow {
            return Ok(answer::allowed(Changes::default(), metadata));
        }
        let refused = refused(&decided.decision, &nobody);
        Ok(answer::refused(&refused, Speaks::Http, metadata, &decided.id.to_string()))
    }
}

/// Whether the asker may ask about the service that it asks about.
fn may_ask(
    asker: &Asker,
    check: &CheckRequest<'_>,
    snapshot: &Snapshot,
    question: &Question<'_>,
) -> Result<(), Status> {
    if let Some(service) = crate::authorize::service_of(snapshot, question) {
        asker.may_ask_about(&service.service.key)?;
    } else if let Some(unknown) = question.service {
        let route = check.context_extensions.get("tollgate.route").unwrap_or_default();
        tracing::debug!(service = unknown, route, "asked about a service that policy does not know");
    }
    Ok(())
}

impl From<Malformed> for Status {
    fn from(malformed: Malformed) -> Self {
        Self::invalid_argument(malformed.to_string())
    }
}

/// The certificate that the client has shown to the proxy, with `include_peer_certificate`.
fn certificate_of(source: &Peer<'_>) -> Result<Option<PeerCertificate>, Status> {
    Some(source.certificate)
        .filter(|certificate| !certificate.is_empty())
        .map(PeerCertificate::from_check)
        .transpose()
        .map_err(|problem| Status::invalid_argument(format!("attributes.source.certificate: {problem}")))
}

/// The certificate that a token may be bound to: the one that the client has shown. Behind an entry of ours the client is
/// at its other end, and the asker says what the entry saw.
fn holder<'a>(
    check: &CheckRequest<'_>,
    snapshot: &Snapshot,
    certificate: Option<&'a PeerCertificate>,
) -> Option<Cow<'a, str>> {
    if Asker::is_entry(check.source.principal, snapshot) {
        let hash = check.context_extensions.get("tollgate.client_certificate")?;
        return x509::thumbprint_of_hash(hash).map(Cow::Owned);
    }
    certificate.map(|shown| Cow::Borrowed(&*shown.thumbprint))
}

/// What is asked of a connection, and of every request on it.
fn question<'a>(
    check: &'a CheckRequest<'_>,
    (asker, snapshot): (&Asker, &Snapshot),
    headers: &'a dyn facts::Headers,
) -> Result<Question<'a>, Status> {
    let said = |key: &str| check.context_extensions.get(key).filter(|value| !value.is_empty());
    let principal = |peer: &'a Peer<'_>| Some(peer.principal).filter(|principal| !principal.is_empty());
    let peer = principal(&check.source);
    if let Some(peer) = peer {
        asker.may_speak_for(peer)?;
    }
    Ok(Question {
        service: said("tollgate.service"),
        destination: principal(&check.destination),
        entry: asker.entry(said("tollgate.point"), peer, snapshot)?,
        peer,
        certificate: None,
        holder: None,
        method: OF_A_CONNECTION,
        host: "",
        target: "/",
        guard: Asker::guard(said("tollgate.guard"))?,
        headers,
        source: check.source.address,
        request_id: None,
    })
}

impl From<MayNotAsk> for Status {
    fn from(why: MayNotAsk) -> Self {
        match why {
            MayNotAsk::Point | MayNotAsk::Guard => Self::invalid_argument(why.to_string()),
            MayNotAsk::Stranger | MayNotAsk::Revoked | MayNotAsk::Source | MayNotAsk::Service => {
                Self::permission_denied(why.to_string())
            }
        }
    }
}

/// A request id that may be echoed: what an ingress mints, and no more than that.
fn is_request_id(text: &str) -> bool {
    !text.is_empty() && text.len() <= 128 && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"')
}

/// Headers in either of the two forms in which Envoy sends them.
#[derive(Debug)]
enum Headers<'a> {
    Joined(&'a Pairs<'a>),
    /// Each with whether there were several lines of it.
    Raw(HashMap<&'a str, (String, bool)>),
}

impl facts::Headers for Headers<'_> {
    fn header(&self, name: &str) -> Option<Header<'_>> {
        match self {
            Self::Joined(map) => map.get(name).map(Header::joined),
            Self::Raw(map) => {
                let (value, several) = map.get(name)?;
                Some(Header { value, may_be_several: *several })
            }
        }
    }
}

impl Lines for Headers<'_> {
    fn names(&self) -> Box<dyn Iterator<Item = &str> + '_> {
        match self {
            Self::Joined(map) => Box::new(map.keys()),
            Self::Raw(map) => Box::new(map.keys().copied()),
        }
    }
}

impl<'a> Headers<'a> {
    fn of(http: &'a Http<'_>) -> Self {
        if http.lines.is_empty() {
            return Self::Joined(&http.headers);
        }
        let mut joined: HashMap<&str, (String, bool)> = HashMap::new();
        for line in &http.lines {
            let value =
                if line.raw.is_empty() { line.value.into() } else { String::from_utf8_lossy(line.raw) };
            joined
                .entry(line.key)
                .and_modify(|(before, several)| {
                    before.push_str(if line.key == "cookie" { "; " } else { "," });
                    before.push_str(&value);
                    *several = true;
                })
                .or_insert_with(|| (value.clone().into_owned(), false));
        }
        Self::Raw(joined)
    }

    fn get(&self, name: &str) -> Option<&str> {
        match self {
            Self::Joined(map) => map.get(name),
            Self::Raw(map) => map.get(name).map(|(value, _)| value.as_str()),
        }
    }
}
