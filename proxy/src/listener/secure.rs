//! TLS of a listener: the handshake, and what it tells about the other end.
//!
//! ```text
//! strict       first byte of TLS ──handshake──> secured          else: 400 `mtls_required`, closed
//! permissive   first byte of TLS ──handshake──> secured          else: plaintext
//! off          with `tls`: as strict, nobody is asked for a certificate; without: plaintext
//! ```

use std::io;
use std::net::SocketAddr;

use http::HeaderValue;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use rustls::ProtocolVersion;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tollgate_identity::pki_types::CertificateDer;
use tollgate_identity::tls::{
    Ask, FileRoots, HANDSHAKE_RECORD, Lifetime, Listening, NamedCertificates, listening_config,
};
use tollgate_identity::{Identity, Leaf, Shown, SpiffeId, pem};
use tollgate_runtime::Service;

use super::handshakes::Handshakes;
use super::{Listener, refusal};
use crate::config::{ListenerConfig, Mtls};
use crate::pipeline::Proxy;
use crate::socket::Socket;

/// What Envoy leaves as it is in the certificate that it sends with a Check.
const PEM: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// How a listener does TLS.
pub(super) struct Secure {
    acceptor: TlsAcceptor,
    mtls: Mtls,
    identity: Option<Identity>,
    /// Whether certificates of clients are signed for workloads, so that the id in them counts.
    workloads: bool,
    handshakes: Handshakes,
}

impl std::fmt::Debug for Secure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Secure").field("mtls", &self.mtls).finish_non_exhaustive()
    }
}

/// What a handshake has settled.
#[derive(Debug)]
pub(crate) struct Secured {
    pub(crate) version: &'static str,
    pub(crate) cipher: String,
    pub(crate) curve: String,
    /// The name that the client asked for.
    pub(crate) server_name: Option<String>,
    /// Who we are on this connection.
    pub(crate) own: Option<SpiffeId>,
    /// Who the client is, where it has shown a certificate.
    pub(crate) peer: Option<PeerCertificate>,
}

/// The certificate that a client has shown, verified.
#[derive(Debug)]
pub(crate) struct PeerCertificate {
    /// The workload that it is; none where somebody else than our trust domains signs for clients.
    pub(crate) id: Option<SpiffeId>,
    /// The same workload by the aliases of its trust domain.
    pub(crate) other_ids: Vec<SpiffeId>,
    pub(crate) shown: Shown,
    pub(crate) fingerprint: String,
    /// As Envoy sends it with a Check.
    pub(crate) url_pem: String,
    /// What we say about it in `x-forwarded-client-cert`.
    pub(crate) forwarded: Option<HeaderValue>,
    pub(crate) lifetime: Lifetime,
}

impl PeerCertificate {
    /// What a route may ask for: the id, or else the first name in the certificate. A SPIFFE id by the word of somebody
    /// who does not sign for our trust domains is no name.
    pub(crate) fn name(&self) -> Option<&str> {
        let mut names = self.shown.uris.iter().chain(&self.shown.names).map(String::as_str);
        let foreign =
            |name: &&str| name.get(..9).is_none_or(|start| !start.eq_ignore_ascii_case("spiffe://"));
        self.id.as_ref().map(SpiffeId::as_str).or_else(|| names.find(foreign))
    }
}

/// What came in.
pub(super) enum Opened {
    Served(Socket, Option<Box<Secured>>),
    /// Plaintext where there must be none.
    Plaintext(Socket),
    /// There is no time for its handshake, as this says.
    Overloaded(&'static str),
    Gone,
}

impl Secure {
    /// Whether each connection begins with a handshake.
    pub(super) fn always(&self) -> bool {
        self.mtls != Mtls::Permissive
    }

    pub(super) fn build(
        config: &ListenerConfig,
        identity: Option<&Identity>,
        service: &Service,
    ) -> anyhow::Result<Option<Self>> {
        if !config.speaks_tls() {
            return Ok(None);
        }
        let tls = config.tls.clone().unwrap_or_default();
        let client_roots =
            config.client_ca.as_ref().map(|file| FileRoots::follow(file.clone(), service)).transpose()?;
        let workloads = client_roots.is_none();
        let acceptor = listening_config(Listening {
            identity: identity.cloned(),
            certificates: NamedCertificates::follow(&tls.certificates, service)?,
            client_roots,
            ask: match config.mtls {
                Mtls::Strict => Ask::Certificate,
                Mtls::Permissive => Ask::Offer,
                Mtls::Off => Ask::Nothing,
            },
            minimum: tls.min_version,
            alpn: match config.tcp {
                None => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
                Some(_) => Vec::new(),
            },
        })?;
        let acceptor = TlsAcceptor::from(acceptor);
        let handshakes = Handshakes::new(config.limits.handshakes);
        Ok(Some(Self { acceptor, mtls: config.mtls, identity: identity.cloned(), workloads, handshakes }))
    }

    /// Hears the first byte and shakes hands, if it is TLS that comes.
    pub(super) async fn open(
        &self,
        proxy: &Proxy,
        listener: &Listener,
        stream: TcpStream,
        peer: SocketAddr,
    ) -> Opened {
        let limits = &listener.limits;
        // In plaintext a connection may be idle from its beginning.
        let patience = match self.mtls {
            Mtls::Permissive => limits.idle_timeout,
            Mtls::Strict | Mtls::Off => limits.head_timeout,
        };
        let mut first = [0];
        match tokio::time::timeout(patience, stream.peek(&mut first)).await {
            Ok(Ok(1)) => {}
            Ok(_) | Err(_) => return Opened::Gone,
        }
        if first[0] != HANDSHAKE_RECORD {
            return match self.mtls {
                Mtls::Permissive => Opened::Served(Socket::Plain(stream), None),
                Mtls::Strict | Mtls::Off => Opened::Plaintext(Socket::Plain(stream)),
            };
        }
        // Elsewhere it was asked before.
        if !self.always() && !proxy.overload.admits_handshake(&proxy.snapshot.load().overload) {
            return Opened::Overloaded(refusal::OVERLOADED);
        }
        // It costs something from its first turn on, and nothing is made for it before.
        let handshake = async { self.acceptor.accept(stream).await };
        let shaking =
            self.handshakes.shake(&proxy.handshake_turns, peer.ip(), limits.head_timeout, handshake);
        let Some(shaken) = shaking.await else {
            return Opened::Overloaded("one of too many handshakes");
        };
        // A handshake may take a while, and the certificate ends no later for it.
        let settled = shaken.and_then(|stream| {
            Ok((self.settled(&stream, proxy.reporter.service.clock().unix_nanos())?, stream))
        });
        match settled {
            Ok((secured, stream)) => {
                Opened::Served(Socket::Tls(Box::new(stream.into())), Some(Box::new(secured)))
            }
            Err(error) => {
                tracing::info!(listener = listener.config().name, %peer, %error, "no TLS handshake");
                Opened::Gone
            }
        }
    }

    fn settled(&self, stream: &TlsStream<TcpStream>, now: u64) -> io::Result<Secured> {
        let connection = stream.get_ref().1;
        let material = self.identity.as_ref().map(|identity| identity.material());
        let own = material.as_ref().map(|material| material.credential.leaf.id.clone());
        let leaf = connection.peer_certificates().and_then(<[_]>::first);
        let peer = leaf
            .map(|leaf| -> io::Result<PeerCertificate> {
                let id = self.workloads.then(|| Leaf::read(leaf)).transpose().map_err(io::Error::other)?;
                let id = id.map(|leaf| match &material {
                    Some(material) => material.bundles.canonical(&leaf.id),
                    None => leaf.id,
                });
                let mut peer = PeerCertificate::of(leaf, id, own.as_ref(), now)?;
                if let (Some(material), Some(id)) = (&material, &peer.id) {
                    peer.other_ids = material.bundles.other_names(id).collect();
                }
                Ok(peer)
            })
            .transpose()?;
        let suite = connection.negotiated_cipher_suite();
        Ok(Secured {
            version: match connection.protocol_version() {
                Some(ProtocolVersion::TLSv1_2) => "1.2",
                _ => "1.3",
            },
            cipher: suite
                .and_then(|suite| suite.suite().as_str())
                .map_or_else(String::new, |name| name.replacen("TLS13_", "TLS_", 1)),
            curve: connection
                .negotiated_key_exchange_group()
                .and_then(|group| group.name().as_str())
                .unwrap_or_default()
                .to_owned(),
            server_name: connection.server_name().map(str::to_owned),
            own,
            peer,
        })
    }
}

impl PeerCertificate {
    fn of(
        leaf: &CertificateDer<'_>,
        id: Option<SpiffeId>,
        own: Option<&SpiffeId>,
        now: u64,
    ) -> io::Result<Self> {
        let shown = Shown::read(leaf).map_err(io::Error::other)?;
        let fingerprint = shown.fingerprint();
        let url_pem = utf8_percent_encode(&pem::certificate(leaf), PEM).to_string();
        let forwarded = forwarded(&shown, &fingerprint, id.as_ref(), own);
        let lifetime = Lifetime::of(shown.not_before, shown.not_after, now, rand::random());
        Ok(Self { id, other_ids: Vec::new(), fingerprint, url_pem, forwarded, lifetime, shown })
    }
}

/// As Envoy writes it: By, Hash, Subject, URI or DNS.
fn forwarded(
    shown: &Shown,
    fingerprint: &str,
    id: Option<&SpiffeId>,
    own: Option<&SpiffeId>,
) -> Option<HeaderValue> {
    let mut text = String::new();
    if let Some(own) = own {
        text.push_str(&format!("By={own};"));
    }
    text.push_str(&format!("Hash={fingerprint};Subject={}", quoted(&shown.subject)));
    match id {
        Some(id) => text.push_str(&format!(";URI={id}")),
        None => {
            for uri in &shown.uris {
                text.push_str(&format!(";URI={}", quoted(uri)));
            }
            for name in &shown.names {
                text.push_str(&format!(";DNS={}", quoted(name)));
            }
        }
    }
    HeaderValue::try_from(text).ok()
}

/// A text that may hold separators.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_workload_is_named_by_our_own_trust_domains_alone() {
        let lifetime = Lifetime::of(0, 10, 0, 0.0);
        let shown = Shown {
            subject: String::new(),
            issuer: String::new(),
            not_before: 0,
            not_after: 10,
            sha256: [0; 32],
            uris: vec!["SPIFFE://tollgate.demo/ns/a/sa/b".to_owned(), "https://partner.example".to_owned()],
            names: vec!["partner.example".to_owned()],
        };
        let mut peer = PeerCertificate {
            id: None,
            other_ids: Vec::new(),
            shown,
            fingerprint: String::new(),
            url_pem: String::new(),
            forwarded: None,
            lifetime,
        };
        assert_eq!(peer.name(), Some("https://partner.example"));
        peer.id = Some("spiffe://tollgate.demo/ns/a/sa/b".parse().unwrap());
        assert_eq!(peer.name(), Some("spiffe://tollgate.demo/ns/a/sa/b"));
    }

    #[test]
    fn what_is_said_about_a_client_cannot_be_taken_apart() {
        let shown = Shown {
            subject: "CN=a\";URI=spiffe://d/x, O=\\".to_owned(),
            issuer: String::new(),
            not_before: 0,
            not_after: 1,
            sha256: [1; 32],
            uris: Vec::new(),
            names: vec!["a.example;By=b".to_owned()],
        };
        let text = forwarded(&shown, "01", None, None).unwrap();
        let expected = r#"Hash=01;Subject="CN=a\";URI=spiffe://d/x, O=\\";DNS="a.example;By=b""#;
        assert_eq!(text.to_str().unwrap(), expected);
    }
}
