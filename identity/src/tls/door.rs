//! An HTTP port of ours: for people, browsers and tools, who may have a certificate of a workload or none.
//!
//! ```text
//! connection ──first byte──> TLS ───────> handshake ──> served, by whoever's certificate it was
//!                  └───────> plaintext ─> refused, with words; served where it comes from this machine and that is allowed
//! ```
//!
//! Without a section `tls` it speaks plaintext, which is for loopback alone. What a certificate is worth is for the
//! port's own service to say: a [`super::Peer`] goes along with each request.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::StreamExt as _;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tollgate_runtime::Service;
use tollgate_runtime::config::Invalid;
use tollgate_runtime::net::{self, BindError};

use super::incoming::{PLAINTEXT, Raw, Server, accept, is_handshake};
use super::listening::door_config;
use super::port::{PortStreams, plain};
use super::{
    Ask, CertificatesFault, ConnectionBounds, Listening, MinimumVersion, NamedCertificates, PortStream,
    ServerCertificate,
};
use crate::identity::Identity;

/// Browsers keep some connections open for as long as a page is shown.
const BOUNDS: ConnectionBounds =
    ConnectionBounds { total: 1024, per_address: 512, anonymous_life: Duration::from_secs(86_400) };
/// What who speaks plaintext is told. More than this is not read of what it sent.
const TOLD: &[u8] = b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\nconnection: close\r\n\r\n\
    this port speaks TLS: ask by https://\n";
const MOST_UNREAD: usize = 64 * 1024;

/// How an HTTP port speaks TLS.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DoorTls {
    /// Certificates by the name that a client asks for; the first where none fits. Without any, the service's own is
    /// shown.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub certificates: Vec<ServerCertificate>,
    /// Whether clients show a certificate of a workload. Each port has its own answer where this is not said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clients: Option<Clients>,
    /// What becomes of who speaks plaintext.
    pub plaintext: Plaintext,
    /// The oldest version that is spoken: `"1.3"` or `"1.2"`.
    pub min_version: MinimumVersion,
}

/// Whether clients show a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Clients {
    /// Nobody comes in without one.
    Required,
    /// One that is shown must be good, and says who the client is.
    Optional,
    /// None is asked for.
    None,
}

/// What becomes of who speaks plaintext.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Plaintext {
    /// It is refused.
    #[default]
    Refused,
    /// It is served if it comes from this machine.
    Loopback,
}

impl DoorTls {
    /// What serde cannot check; `key` is where this stands.
    pub fn check(&self, key: &str, clients: Clients, is_somebody: bool) -> Result<(), Invalid> {
        if is_somebody {
            return Ok(());
        }
        if self.certificates.is_empty() {
            let remedy = "`certificates`, or a section `identity`";
            return Err(Invalid::new(key, "there is no certificate to show", remedy));
        }
        if self.clients.unwrap_or(clients) == Clients::None {
            return Ok(());
        }
        let remedy = "a section `identity`, or `clients: none`";
        Err(Invalid::new(format!("{key}.clients"), "nobody says whose certificates to believe", remedy))
    }
}

/// Why a port cannot speak TLS.
#[derive(Debug, thiserror::Error)]
pub enum DoorFault {
    /// Its certificates.
    #[error(transparent)]
    Certificates(#[from] CertificatesFault),
    /// What was asked for cannot be.
    #[error("cannot set TLS up: {0}")]
    Tls(#[from] rustls::Error),
}

/// A port that is bound and not yet served.
#[derive(Debug)]
pub struct Door {
    listener: TcpListener,
    tls: Option<DoorTls>,
    clients: Clients,
}

impl Door {
    /// Binds it. `what` names it in errors, `key` is the section that gives it TLS, `clients` what it asks where that is
    /// not said.
    pub fn bind(
        address: SocketAddr,
        (what, key): (&str, &str),
        tls: Option<&DoorTls>,
        clients: Clients,
    ) -> Result<Self, BindError> {
        let listener = match tls {
            Some(_) => net::bind_tls(address, what)?,
            None => net::bind_without_tls(address, what, key)?,
        };
        let clients = tls.and_then(|tls| tls.clients).unwrap_or(clients);
        Ok(Self { listener, tls: tls.cloned(), clients })
    }

    /// Where it is.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// `https`, or `http` where it has no TLS.
    pub fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "https" } else { "http" }
    }

    /// Whether it can be served without the service's identity.
    pub fn needs_nobody(&self) -> bool {
        self.tls.as_ref().is_none_or(|tls| self.clients == Clients::None && !tls.certificates.is_empty())
    }

    /// Connections as they come in.
    pub fn incoming(self, identity: Option<&Identity>, service: &Service) -> Result<PortStreams, DoorFault> {
        let Some(tls) = self.tls else { return Ok(plain(self.listener)) };
        let listening = Listening {
            identity: identity.cloned(),
            certificates: NamedCertificates::follow(&tls.certificates, service)?,
            client_roots: None,
            ask: match self.clients {
                Clients::Required => Ask::Certificate,
                Clients::Optional => Ask::Offer,
                Clients::None => Ask::Nothing,
            },
            minimum: tls.min_version,
            alpn: vec![b"h2".to_vec(), b"http/1.1".to_vec()],
        };
        let (config, plaintext) = (door_config(listening)?, tls.plaintext);
        let server = Server::new(config, identity, service, BOUNDS.anonymous_life);
        let taken = accept(self.listener, service, BOUNDS, move |raw| {
            let server = server.clone();
            async move { come_in(&server, raw, plaintext).await }
        });
        Ok(taken.boxed())
    }
}

async fn come_in(server: &Server, raw: Raw, plaintext: Plaintext) -> io::Result<PortStream> {
    if is_handshake(&raw.stream).await? {
        return Ok(PortStream::Secure(Box::new(server.shake(raw).await?)));
    }
    let Raw { stream, address, place } = raw;
    if plaintext == Plaintext::Loopback && address.ip().to_canonical().is_loopback() {
        let _ = stream.set_nodelay(true);
        return Ok(PortStream::Plain(stream, address, Some(place)));
    }
    // Whether it hears that is its own matter.
    let _ = tell(stream).await;
    Err(io::Error::new(io::ErrorKind::InvalidData, PLAINTEXT))
}

async fn tell(mut stream: TcpStream) -> io::Result<()> {
    stream.write_all(TOLD).await?;
    stream.shutdown().await?;
    // Closing on what it sent and nobody read would take the answer back.
    let mut unread = stream.take(MOST_UNREAD as u64);
    tokio::io::copy(&mut unread, &mut tokio::io::sink()).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_served_is_named_with_its_remedy() {
        let file = ServerCertificate { names: Vec::new(), certificate: "a".into(), key: "b".into() };
        let none = DoorTls::default();
        let files = DoorTls { certificates: vec![file], ..DoorTls::default() };
        let open = DoorTls { clients: Some(Clients::None), ..files.clone() };
        for (tls, clients, is_somebody, key) in [
            (&none, Clients::Optional, true, None),
            (&none, Clients::None, false, Some("web.tls")),
            (&files, Clients::None, false, None),
            (&files, Clients::Optional, false, Some("web.tls.clients")),
            (&files, Clients::Required, true, None),
            (&open, Clients::Required, false, None),
        ] {
            let checked = tls.check("web.tls", clients, is_somebody);
            assert_eq!(checked.err().map(|invalid| invalid.key).as_deref(), key, "{tls:?}");
        }
    }
}
