//! A question to the authorization service, as Envoy's filters put it: about a request, or about a connection.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use http::{Version, request};
use tollgate_proto::envoy_types::pb::envoy::config::core::v3::{
    Address, SocketAddress, address, socket_address,
};
use tollgate_proto::envoy_types::pb::envoy::service::auth::v3::attribute_context::{
    HttpRequest, Peer, Request as AttributeRequest, TlsSession,
};
use tollgate_proto::envoy_types::pb::envoy::service::auth::v3::{AttributeContext, CheckRequest};
use tollgate_proto::envoy_types::pb::google::protobuf::Timestamp;

use crate::config::{Guard, Role};
use crate::listener::Connection;
use crate::listener::secure::Secured;

/// The connection that a question is about, or that its request came by.
#[derive(Debug)]
pub(crate) struct Ends<'r> {
    source: SocketAddr,
    destination: SocketAddr,
    /// What the handshake has settled; none in plaintext.
    secured: Option<&'r Secured>,
    /// Whether the proxy stands for the workload that is called.
    is_destination: bool,
    point: &'static str,
}

impl<'r> Ends<'r> {
    /// The ends of a request: at an ingress it comes from its client, however many proxies stand between.
    pub(crate) fn of_request(connection: &'r Connection, client: IpAddr) -> Self {
        let mut ends = Self::of(connection);
        if connection.listener.role == Role::Ingress {
            ends.source = connection.source(client);
        }
        ends
    }

    pub(crate) fn of(connection: &'r Connection) -> Self {
        Self {
            source: connection.peer,
            destination: connection.local,
            secured: connection.secured.as_deref(),
            is_destination: connection.listener.role == Role::Sidecar,
            point: connection.listener.point(),
        }
    }
}

/// What a question is about, beside the request's own head.
#[derive(Debug)]
pub(crate) struct Question<'r> {
    pub(crate) ends: Ends<'r>,
    pub(crate) request_id: &'r str,
    pub(crate) scheme: &'static str,
    pub(crate) host: &'r str,
    pub(crate) size: Option<u64>,
    pub(crate) service: Option<&'r str>,
    pub(crate) route: &'r str,
    pub(crate) guard: Option<Guard>,
    /// The SHA-256 of the certificate that the client showed at the entry, where that is the proxy at the other end.
    pub(crate) client_certificate: Option<&'r str>,
    pub(crate) unix_nanos: u64,
}

/// As Envoy's filter for HTTP asks.
pub(super) fn of_request(question: &Question<'_>, parts: &request::Parts) -> CheckRequest {
    let mut attributes = of_ends(&question.ends, question.route, question.service);
    let extensions = &mut attributes.context_extensions;
    if let Some(guard) = question.guard {
        extensions.insert("tollgate.guard".to_owned(), guard.as_str().to_owned());
    }
    if let Some(hash) = question.client_certificate {
        extensions.insert("tollgate.client_certificate".to_owned(), hash.to_owned());
    }
    let path = parts.uri.path_and_query().map_or("/", |target| target.as_str());
    let http = HttpRequest {
        id: question.request_id.to_owned(),
        method: parts.method.as_str().to_owned(),
        headers: header_map(question, parts, path),
        path: path.to_owned(),
        host: question.host.to_owned(),
        scheme: question.scheme.to_owned(),
        size: question.size.and_then(|size| i64::try_from(size).ok()).unwrap_or(-1),
        protocol: protocol(parts.version).to_owned(),
        ..Default::default()
    };
    let seconds = question.unix_nanos / 1_000_000_000;
    let time = Timestamp {
        seconds: i64::try_from(seconds).unwrap_or(i64::MAX),
        nanos: i32::try_from(question.unix_nanos % 1_000_000_000).unwrap_or(0),
    };
    attributes.request = Some(AttributeRequest { time: Some(time), http: Some(http) });
    CheckRequest { attributes: Some(attributes) }
}

/// As Envoy's filter for TCP asks: there is no request. `listener` stands for the route.
pub(super) fn of_connection(ends: &Ends<'_>, listener: &str, service: Option<&str>) -> CheckRequest {
    CheckRequest { attributes: Some(of_ends(ends, listener, service)) }
}

fn of_ends(ends: &Ends<'_>, route: &str, service: Option<&str>) -> AttributeContext {
    let mut extensions = HashMap::with_capacity(4);
    extensions.insert("tollgate.route".to_owned(), route.to_owned());
    extensions.insert("tollgate.point".to_owned(), ends.point.to_owned());
    if let Some(service) = service {
        extensions.insert("tollgate.service".to_owned(), service.to_owned());
    }
    let session =
        ends.secured.map(|secured| TlsSession { sni: secured.server_name.clone().unwrap_or_default() });
    AttributeContext {
        source: Some(source(ends)),
        destination: Some(destination(ends)),
        tls_session: session,
        context_extensions: extensions,
        ..Default::default()
    }
}

/// Headers as Envoy sends them: lower case, repeated ones joined by commas, with the pseudo-headers.
fn header_map(question: &Question<'_>, parts: &request::Parts, path: &str) -> HashMap<String, String> {
    let mut headers: HashMap<String, String> = HashMap::with_capacity(parts.headers.keys_len() + 4);
    headers.insert(":method".to_owned(), parts.method.as_str().to_owned());
    headers.insert(":path".to_owned(), path.to_owned());
    headers.insert(":authority".to_owned(), question.host.to_owned());
    headers.insert(":scheme".to_owned(), question.scheme.to_owned());
    for (name, value) in &parts.headers {
        let text = String::from_utf8_lossy(value.as_bytes());
        match headers.get_mut(name.as_str()) {
            Some(joined) => {
                joined.push(',');
                joined.push_str(&text);
            }
            None => {
                headers.insert(name.as_str().to_owned(), text.into_owned());
            }
        }
    }
    headers
}

/// Who asks, by the certificate that it has shown.
fn source(ends: &Ends<'_>) -> Peer {
    let mut source = peer(ends.source);
    if let Some(certificate) = ends.secured.and_then(|secured| secured.peer.as_ref()) {
        source.principal = certificate.id.as_ref().map(ToString::to_string).unwrap_or_default();
        source.certificate.clone_from(&certificate.url_pem);
    }
    source
}

fn destination(ends: &Ends<'_>) -> Peer {
    let mut destination = peer(ends.destination);
    let own = ends.secured.and_then(|secured| secured.own.as_ref());
    if let Some(own) = own.filter(|_| ends.is_destination) {
        destination.principal = own.to_string();
    }
    destination
}

fn peer(address: SocketAddr) -> Peer {
    let socket = SocketAddress {
        address: address.ip().to_string(),
        port_specifier: Some(socket_address::PortSpecifier::PortValue(address.port().into())),
        ..Default::default()
    };
    Peer {
        address: Some(Address { address: Some(address::Address::SocketAddress(socket)) }),
        ..Default::default()
    }
}

fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2",
        _ => "HTTP/1.1",
    }
}
