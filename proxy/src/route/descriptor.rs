//! What a request is counted by: descriptors with the request's own values filled in. Pure.

use std::net::IpAddr;

use http::{HeaderMap, HeaderName, Method};
use percent_encoding::percent_decode_str;
use thiserror::Error;

use super::matcher::{PeerNames, query_param};
use crate::config::DescriptorEntry;

/// One descriptor of a route.
#[derive(Debug, Clone)]
pub struct Descriptor {
    entries: Vec<(String, Value)>,
}

/// A text with placeholders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Value(Vec<Piece>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    TokenSubject,
    TokenIssuer,
    TokenClient,
    TokenClaim(String),
    Peer,
    Method,
    PathTemplate,
    Route,
    Listener,
    Host,
    ClientAddress,
    Header(HeaderName),
    Query(String),
}

/// A placeholder that nothing can fill.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("`{0}` is not a placeholder")]
pub struct UnknownPlaceholder(pub String);

/// What a request has to fill placeholders with.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'r> {
    /// The verified token's subject.
    pub subject: Option<&'r str>,
    /// Its issuer.
    pub issuer: Option<&'r str>,
    /// Its client.
    pub client_id: Option<&'r str>,
    /// Its scopes.
    pub scopes: &'r [String],
    /// Its groups.
    pub groups: &'r [String],
    /// Further claims that authorization tells, by their names.
    pub claims: &'r [(String, String)],
    /// Who is at the other end, where a certificate says so.
    pub peer: PeerNames<'r>,
    /// The listener's name.
    pub listener: &'r str,
    /// The request's method.
    pub method: &'r Method,
    /// The route's name.
    pub route: &'r str,
    /// The path as the route's configuration writes it.
    pub path: &'r str,
    /// The host asked for.
    pub host: &'r str,
    /// Where the request came from.
    pub client: IpAddr,
    /// The request's headers.
    pub headers: &'r HeaderMap,
    /// Its query, as it came.
    pub query: Option<&'r str>,
}

impl<'r> Facts<'r> {
    /// What is known when nothing is: of a connection without a request yet, and for tests.
    pub fn of_nobody(method: &'r Method, headers: &'r HeaderMap) -> Self {
        Self {
            subject: None,
            issuer: None,
            client_id: None,
            scopes: &[],
            groups: &[],
            claims: &[],
            peer: PeerNames::default(),
            listener: "",
            method,
            route: "",
            path: "",
            host: "",
            client: IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED),
            headers,
            query: None,
        }
    }
}

impl Descriptor {
    /// Compiles one descriptor of a route.
    pub fn compile(entries: &[DescriptorEntry]) -> Result<Self, UnknownPlaceholder> {
        entries
            .iter()
            .map(|entry| Ok((entry.key.clone(), Value::parse(&entry.value)?)))
            .collect::<Result<_, _>>()
            .map(|entries| Self { entries })
    }

    /// The keys, in order and joined: what a limit is called in metrics.
    pub fn keys(&self) -> String {
        let mut keys: Vec<_> = self.entries.iter().map(|(key, _)| key.as_str()).collect();
        keys.sort_unstable();
        keys.join(",")
    }

    /// Key and value of each entry; none when the request lacks one of the values, for then the whole
    /// descriptor does not apply (as in Envoy).
    pub fn fill(&self, facts: &Facts<'_>) -> Option<Vec<(String, String)>> {
        self.entries.iter().map(|(key, value)| Some((key.clone(), value.fill(facts)?))).collect()
    }
}

impl Value {
    /// What may be written, for error messages.
    pub const EXPECTED: &'static str = "text with {token.subject}, {token.issuer}, {token.client_id}, \
         {token.claim.NAME}, {peer.id}, {request.method}, {request.host}, {request.path_template}, \
         {request.header.NAME}, {request.query.NAME}, {route.name}, {listener.name} or {client.address}";

    /// Reads a text with placeholders.
    pub fn parse(text: &str) -> Result<Self, UnknownPlaceholder> {
        let mut pieces = Vec::new();
        let mut left = text;
        while let Some((before, after)) = left.split_once('{') {
            let unknown = || UnknownPlaceholder(format!("{{{after}"));
            let (name, rest) = after.split_once('}').ok_or_else(unknown)?;
            if !before.is_empty() {
                pieces.push(Piece::Text(before.to_owned()));
            }
            pieces.push(Piece::of(name).ok_or_else(|| UnknownPlaceholder(format!("{{{name}}}")))?);
            left = rest;
        }
        if !left.is_empty() {
            pieces.push(Piece::Text(left.to_owned()));
        }
        Ok(Self(pieces))
    }

    /// Whether a verified token must be there to fill it.
    pub fn needs_token(&self) -> bool {
        let of_token = |piece: &Piece| {
            matches!(
                piece,
                Piece::TokenSubject | Piece::TokenIssuer | Piece::TokenClient | Piece::TokenClaim(_)
            )
        };
        self.0.iter().any(of_token)
    }

    /// Whether a connection is enough to fill it.
    pub fn is_of_connection(&self) -> bool {
        self.0.iter().all(|piece| matches!(piece, Piece::Text(_) | Piece::ClientAddress | Piece::Listener))
    }

    /// The text with the request's own values; none when it lacks one.
    pub fn fill(&self, facts: &Facts<'_>) -> Option<String> {
        match self.0.as_slice() {
            [one] => one.fill(facts).map(std::borrow::Cow::into_owned),
            many => many.iter().map(|piece| piece.fill(facts)).collect(),
        }
    }
}

impl Piece {
    fn of(name: &str) -> Option<Self> {
        Some(match name {
            "token.subject" => Self::TokenSubject,
            "token.issuer" => Self::TokenIssuer,
            "token.client_id" => Self::TokenClient,
            "peer.id" => Self::Peer,
            "request.method" => Self::Method,
            "request.host" => Self::Host,
            "request.path_template" => Self::PathTemplate,
            "route.name" => Self::Route,
            "listener.name" => Self::Listener,
            "client.address" => Self::ClientAddress,
            other => {
                if let Some(header) = other.strip_prefix("request.header.") {
                    Self::Header(HeaderName::try_from(header).ok()?)
                } else if let Some(claim) = other.strip_prefix("token.claim.") {
                    Self::TokenClaim(claim.to_owned()).of_a_name(claim)?
                } else {
                    let parameter = other.strip_prefix("request.query.")?;
                    Self::Query(parameter.to_owned()).of_a_name(parameter)?
                }
            }
        })
    }

    fn of_a_name(self, name: &str) -> Option<Self> {
        (!name.is_empty()).then_some(self)
    }

    fn fill<'r>(&'r self, facts: &Facts<'r>) -> Option<std::borrow::Cow<'r, str>> {
        Some(match self {
            Self::Text(text) => text.as_str().into(),
            Self::TokenSubject => facts.subject?.into(),
            Self::TokenIssuer => facts.issuer?.into(),
            Self::TokenClient => facts.client_id?.into(),
            Self::TokenClaim(name) => {
                facts.claims.iter().find(|(claim, _)| claim == name).map(|(_, value)| value.as_str())?.into()
            }
            Self::Peer => facts.peer.name?.into(),
            Self::Listener => facts.listener.into(),
            Self::PathTemplate => facts.path.into(),
            Self::Query(name) => percent_decode_str(query_param(facts.query?, name)?).decode_utf8_lossy(),
            Self::Method => facts.method.as_str().into(),
            Self::Route => facts.route.into(),
            Self::Host => facts.host.into(),
            Self::ClientAddress => facts.client.to_string().into(),
            Self::Header(name) => facts.headers.get(name)?.to_str().ok()?.into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(value: &str, subject: Option<&str>) -> Option<String> {
        let mut headers = HeaderMap::new();
        headers.insert("x-tenant", "acme".parse().unwrap());
        let claims = [("tier".to_owned(), "gold".to_owned())];
        let facts = Facts {
            subject,
            issuer: Some("demo"),
            claims: &claims,
            peer: PeerNames { name: Some("spiffe://tollgate.demo/ns/a/sa/b"), others: &[] },
            listener: "main",
            route: "policies",
            path: "/policies/{id}",
            host: "api.example.org",
            client: "192.0.2.7".parse().unwrap(),
            query: Some("a=1&plan=free%20one"),
            ..Facts::of_nobody(&Method::POST, &headers)
        };
        Value::parse(value).unwrap().fill(&facts)
    }

    #[test]
    fn values_are_filled_in() {
        for (value, expected) in [
            ("plain", Some("plain")),
            ("", Some("")),
            ("{token.subject}", Some("reader")),
            ("{token.issuer}/{token.subject}", Some("demo/reader")),
            ("{request.method}:{route.name}", Some("POST:policies")),
            ("{request.header.X-Tenant}", Some("acme")),
            ("{request.host}", Some("api.example.org")),
            ("{client.address}", Some("192.0.2.7")),
            ("{request.path_template}", Some("/policies/{id}")),
            ("{request.query.plan}", Some("free one")),
            ("{request.query.missing}", None),
            ("{token.claim.tier}", Some("gold")),
            ("{token.claim.missing}", None),
            ("{peer.id}", Some("spiffe://tollgate.demo/ns/a/sa/b")),
            ("{listener.name}", Some("main")),
            ("{token.client_id}", None),
            ("{request.header.x-missing}", None),
            ("x{request.header.x-missing}", None),
        ] {
            assert_eq!(fill(value, Some("reader")).as_deref(), expected, "{value}");
        }
    }

    #[test]
    fn one_missing_value_drops_the_whole_descriptor() {
        let entry = |key: &str, value: &str| DescriptorEntry { key: key.into(), value: value.into() };
        let descriptor =
            Descriptor::compile(&[entry("a", "b"), entry("subject", "{token.subject}")]).unwrap();
        let headers = HeaderMap::new();
        let mut facts = Facts::of_nobody(&Method::GET, &headers);
        assert_eq!(descriptor.fill(&facts), None);
        facts.subject = Some("reader");
        let filled = descriptor.fill(&facts).unwrap();
        assert_eq!(filled, [("a".into(), "b".into()), ("subject".into(), "reader".into())]);
    }

    #[test]
    fn unknown_placeholders_are_errors() {
        for (text, named) in [
            ("{token.sub}", "{token.sub}"),
            ("{token.claim.}", "{token.claim.}"),
            ("{", "{"),
            ("a{route.name", "{route.name"),
            ("{}", "{}"),
        ] {
            assert_eq!(Value::parse(text), Err(UnknownPlaceholder(named.into())), "{text}");
        }
    }
}
