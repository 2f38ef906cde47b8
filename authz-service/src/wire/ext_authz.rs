//! Envoy's `ext_authz` v3: the only place that knows its messages.
//!
//! The upstream gets exactly what was judged: an allow changes nothing, except that headers which are ours to
//! say (`x-tollgate-*`) and that a client has sent are removed.

use std::collections::HashMap;
use std::net::IpAddr;

use opentelemetry::Context;
use tollgate_proto::Reason;
use tollgate_proto::envoy_types::pb::envoy::config::core::v3::address::Address;
use tollgate_proto::envoy_types::pb::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use tollgate_proto::envoy_types::pb::envoy::config::core::v3::{HeaderValue, HeaderValueOption};
use tollgate_proto::envoy_types::pb::envoy::service::auth::v3::attribute_context::{HttpRequest, Peer};
use tollgate_proto::envoy_types::pb::envoy::service::auth::v3::authorization_server::Authorization;
use tollgate_proto::envoy_types::pb::envoy::service::auth::v3::check_response::HttpResponse;
use tollgate_proto::envoy_types::pb::envoy::service::auth::v3::{
    AttributeContext, CheckRequest, CheckResponse, DeniedHttpResponse, OkHttpResponse,
};
use tollgate_proto::envoy_types::pb::envoy::r#type::v3::HttpStatus;
use tollgate_proto::envoy_types::pb::google::protobuf::Struct;
use tollgate_proto::envoy_types::pb::google::rpc::Status as RpcStatus;
use tonic::{Code, Request, Response, Status};

use super::metadata::{self, Fields};
use super::refusal::{Refused, refused};
use crate::authorize::{Authorizer, Decided, Presented, Question};
use crate::facts::{self, Entry, Header, PathReadings};
use crate::policy::Verdict;
use crate::policy::model::Enforcer;
use crate::policy::spec::Point;
use crate::x509::PeerCertificate;

/// The enforcer that asks in plaintext on loopback.
const LOCAL: &str = "local";
/// Headers that are ours to say.
const OUR_HEADERS: &str = "x-tollgate-";

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

    /// Answers one check, asked by the enforcer `local`.
    pub async fn answer(
        &self,
        attributes: &AttributeContext,
        context: &Context,
    ) -> Result<CheckResponse, Status> {
        let mut snapshot = self.authorizer.cell().load_full();
        let request = http_of(attributes)?;
        let extensions = &attributes.context_extensions;
        let enforcer = snapshot.enforcer(LOCAL).cloned();
        let certificate = certificate_of(attributes)?;
        let headers = Headers::of(request);
        let request_id = headers.get("x-request-id").filter(|given| is_request_id(given));
        let question = question(attributes, (request, &headers), enforcer.as_deref(), certificate.as_ref())?;
        let question = Question { request_id, ..question };
        let path = match PathReadings::of_target(question.target) {
            Ok(path) => path,
            Err(error) => {
                let id = self.authorizer.malformed(snapshot.epoch, &question, &format!("path: {error}"));
                return Ok(malformed(snapshot.epoch, &id.to_string(), request_id));
            }
        };
        let presented =
            self.authorizer.identify(&mut snapshot, &question, |name| headers.get(name), context).await;
        if let Some(service) = crate::authorize::service_of(&snapshot, &question) {
            may_ask(enforcer.as_deref(), &service.service.key)?;
        } else if let Some(unknown) = question.service {
            let route = extensions.get("tollgate.route").map_or("", String::as_str);
            tracing::debug!(service = unknown, route, "asked about a service that policy does not know");
        }
        let decided = self.authorizer.decide(&snapshot, &question, path, &presented, context);
        Ok(shape(&decided, &presented, &headers, snapshot.epoch, request_id))
    }
}

#[tonic::async_trait]
impl Authorization for ExtAuthz {
    async fn check(&self, request: Request<CheckRequest>) -> Result<Response<CheckResponse>, Status> {
        // Until callers prove who they are, only this machine is answered.
        if !request.remote_addr().is_some_and(|address| address.ip().is_loopback()) {
            return Err(Status::permission_denied("only enforcers may ask"));
        }
        let context = request.extensions().get::<Context>().cloned().unwrap_or_default();
        let message = request.into_inner();
        let attributes =
            message.attributes.ok_or_else(|| Status::invalid_argument("attributes are missing"))?;
        self.answer(&attributes, &context).await.map(Response::new)
    }
}

fn http_of(attributes: &AttributeContext) -> Result<&HttpRequest, Status> {
    (attributes.request.as_ref().and_then(|request| request.http.as_ref()))
        .ok_or_else(|| Status::invalid_argument("attributes.request.http is missing"))
}

/// The certificate that the client has shown to the proxy, with `include_peer_certificate`.
fn certificate_of(attributes: &AttributeContext) -> Result<Option<PeerCertificate>, Status> {
    let source = attributes.source.as_ref().filter(|peer| !peer.certificate.is_empty());
    source
        .map(|peer| PeerCertificate::from_check(&peer.certificate))
        .transpose()
        .map_err(|problem| Status::invalid_argument(format!("attributes.source.certificate: {problem}")))
}

fn question<'a>(
    attributes: &'a AttributeContext,
    (http, headers): (&'a HttpRequest, &'a Headers<'a>),
    enforcer: Option<&Enforcer>,
    certificate: Option<&'a PeerCertificate>,
) -> Result<Question<'a>, Status> {
    let extensions = &attributes.context_extensions;
    let said = |key: &str| extensions.get(key).map(String::as_str).filter(|value| !value.is_empty());
    // A plain Envoy says no point. Whoever set it up on this machine without one made it a gateway.
    let point = match (enforcer, said("tollgate.point")) {
        (Some(enforcer), _) => enforcer.point,
        (None, None) => Point::Ingress,
        (None, Some(point)) => Point::parse(point)
            .ok_or_else(|| Status::invalid_argument("context extension tollgate.point is not a point"))?,
    };
    let principal = |peer: Option<&'a str>| peer.filter(|principal| !principal.is_empty());
    let peer = principal(attributes.source.as_ref().map(|peer| peer.principal.as_str()));
    if let (Some(enforcer), Some(peer)) = (enforcer, peer)
        && !enforcer.sources.is_empty()
        && !enforcer.sources.iter().any(|pattern| pattern.matches(peer))
    {
        return Err(Status::permission_denied("the enforcer may not speak for this source"));
    }
    Ok(Question {
        service: said("tollgate.service"),
        destination: principal(attributes.destination.as_ref().map(|peer| peer.principal.as_str())),
        entry: if point.is_entry() { Entry::Outside } else { Entry::Inside },
        peer,
        certificate,
        method: &http.method,
        host: &http.host,
        target: &http.path,
        headers,
        source: attributes.source.as_ref().and_then(address_of),
        request_id: None,
    })
}

/// The address of a peer, where it has one that is an IP address.
fn address_of(peer: &Peer) -> Option<IpAddr> {
    match peer.address.as_ref()?.address.as_ref()? {
        Address::SocketAddress(socket) => socket.address.parse().ok(),
        Address::Pipe(_) | Address::EnvoyInternalAddress(_) => None,
    }
}

fn may_ask(enforcer: Option<&Enforcer>, service: &str) -> Result<(), Status> {
    match enforcer.and_then(|enforcer| enforcer.services.as_ref()) {
        Some(services) if !services.contains(service) => {
            Err(Status::permission_denied("the enforcer may not ask about this service"))
        }
        _ => Ok(()),
    }
}

/// A request id that may be echoed: what an ingress mints, and no more than that.
fn is_request_id(text: &str) -> bool {
    !text.is_empty() && text.len() <= 128 && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"')
}

/// Headers in either of the two forms in which Envoy sends them.
#[derive(Debug)]
enum Headers<'a> {
    Joined(&'a HashMap<String, String>),
    /// Each with whether there were several lines of it.
    Raw(HashMap<&'a str, (String, bool)>),
}

impl facts::Headers for Headers<'_> {
    fn header(&self, name: &str) -> Option<Header<'_>> {
        match self {
            Self::Joined(map) => map.get(name).map(|value| Header::joined(value)),
            Self::Raw(map) => {
                let (value, several) = map.get(name)?;
                Some(Header { value, may_be_several: *several })
            }
        }
    }
}

impl<'a> Headers<'a> {
    fn of(http: &'a HttpRequest) -> Self {
        let Some(map) = http.header_map.as_ref().filter(|map| !map.headers.is_empty()) else {
            return Self::Joined(&http.headers);
        };
        let mut joined: HashMap<&str, (String, bool)> = HashMap::new();
        for header in &map.headers {
            let raw = String::from_utf8_lossy(&header.raw_value);
            let value = if header.raw_value.is_empty() { header.value.as_str().into() } else { raw };
            joined
                .entry(&header.key)
                .and_modify(|(before, several)| {
                    before.push(',');
                    before.push_str(&value);
                    *several = true;
                })
                .or_insert_with(|| (value.clone().into_owned(), false));
        }
        Self::Raw(joined)
    }

    fn get(&self, name: &str) -> Option<&str> {
        match self {
            Self::Joined(map) => map.get(name).map(String::as_str),
            Self::Raw(map) => map.get(name).map(|(value, _)| value.as_str()),
        }
    }

    fn ours(&self) -> Vec<String> {
        let ours = |name: &&str| {
            name.get(..OUR_HEADERS.len()).is_some_and(|start| start.eq_ignore_ascii_case(OUR_HEADERS))
        };
        match self {
            Self::Joined(map) => map.keys().map(String::as_str).filter(ours).map(str::to_owned).collect(),
            Self::Raw(map) => map.keys().copied().filter(ours).map(str::to_owned).collect(),
        }
    }
}

fn shape(
    decided: &Decided<'_>,
    presented: &Presented,
    headers: &Headers<'_>,
    epoch: u64,
    request_id: Option<&str>,
) -> CheckResponse {
    let metadata = metadata::of_decision(decided, presented, epoch).under_tollgate();
    if decided.decision.verdict == Verdict::Deny {
        let id = decided.id.to_string();
        return denied(&refused(&decided.decision, presented), metadata, request_id.unwrap_or(&id));
    }
    CheckResponse {
        status: Some(status(Code::Ok)),
        dynamic_metadata: Some(metadata),
        http_response: Some(HttpResponse::OkResponse(OkHttpResponse {
            headers_to_remove: headers.ours(),
            ..OkHttpResponse::default()
        })),
    }
}

fn malformed(epoch: u64, id: &str, request_id: Option<&str>) -> CheckResponse {
    let mut fields = Fields::default();
    fields.text("decision_id", id);
    fields.text("decision", "deny");
    fields.text("reason", Reason::RequestMalformed.as_str());
    fields.number("epoch", epoch.cast_signed());
    denied(&Refused::malformed(), fields.under_tollgate(), request_id.unwrap_or(id))
}

fn denied(refused: &Refused, metadata: Struct, request_id: &str) -> CheckResponse {
    let mut headers = vec![header("content-type", "application/json".to_owned())];
    headers.extend(refused.challenge.clone().map(|challenge| header("www-authenticate", challenge)));
    headers.extend(refused.retry_after.map(|seconds| header("retry-after", seconds.to_string())));
    let body = serde_json::json!({"request_id": request_id, "error": refused.code}).to_string();
    let code = match refused.status {
        400 => Code::InvalidArgument,
        401 => Code::Unauthenticated,
        503 => Code::Unavailable,
        _ => Code::PermissionDenied,
    };
    CheckResponse {
        status: Some(status(code)),
        dynamic_metadata: Some(metadata),
        http_response: Some(HttpResponse::DeniedResponse(DeniedHttpResponse {
            status: Some(HttpStatus { code: refused.status.into() }),
            headers,
            body,
        })),
    }
}

fn status(code: Code) -> RpcStatus {
    RpcStatus { code: code as i32, ..RpcStatus::default() }
}

fn header(key: &str, value: String) -> HeaderValueOption {
    HeaderValueOption {
        header: Some(HeaderValue { key: key.to_owned(), value, ..HeaderValue::default() }),
        append_action: HeaderAppendAction::OverwriteIfExistsOrAdd as i32,
        ..HeaderValueOption::default()
    }
}
