//! The authority's own port: TLS by a certificate that it signs itself.

use std::net::SocketAddr;

use anyhow::Context as _;
use tokio::net::TcpListener;
use tollgate_identity::Identity;
use tollgate_identity::tls::{ConnectionBounds, Mtls, ServerOptions, incoming, server_config};
use tollgate_proto::identity::certificate_authority_server::CertificateAuthorityServer;
use tollgate_runtime::{Service, grpc, net};
use tonic::service::Routes;
use tower::Layer as _;

use super::{CaConfig, CertificateAuthority, OwnSource};
use crate::store::Store;
use crate::wire::certificate_authority::CaWire;

/// The largest request that is read.
const MAX_MESSAGE_BYTES: usize = 64 * 1024;
/// Who enrols makes one call, and then another.
const BOUNDS: grpc::Bounds = grpc::Bounds { streams: 16, ..grpc::Bounds::DEFAULT };

/// The authority with its port bound.
#[derive(Debug)]
pub struct Enrolment {
    ca: CertificateAuthority,
    identity: Identity,
    listener: TcpListener,
    address: SocketAddr,
}

impl Enrolment {
    /// Opens the authority, gets its own certificate from it, and binds.
    pub async fn build(config: &CaConfig, store: &Store, service: &Service) -> anyhow::Result<Self> {
        let listener = net::bind_tls(config.listen, "enrolment gRPC (ca.listen)")?;
        let address = listener.local_addr()?;
        let ca = CertificateAuthority::open(config.clone(), store.clone(), service.clock().clone())
            .await
            .context("cannot open the certificate authority (ca)")?;
        let id = format!("spiffe://{}/ns/tollgate-system/sa/authz", config.trust_domain);
        let id = id.parse().context("the authority's own id")?;
        let profile = ca.profile(&id);
        let source = OwnSource::new(ca.clone(), id, profile);
        let identity = Identity::follow(Box::new(source), service).await?;
        Ok(Self { ca, identity, listener, address })
    }

    /// The authority's own identity, for the other ports of its service.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until the service stops.
    pub async fn serve(self, service: &Service) -> anyhow::Result<()> {
        let options =
            ServerOptions { mtls: Mtls::Permissive, alpn: vec![b"h2".to_vec()], ..ServerOptions::default() };
        let config = server_config(&self.identity, &options).context("cannot set TLS up")?;
        let wire = CertificateAuthorityServer::new(CaWire::new(self.ca))
            .max_decoding_message_size(MAX_MESSAGE_BYTES);
        let calls = grpc::ServerTelemetryLayer::new(service).layer(Routes::new(wire).prepare());
        let incoming = incoming(self.listener, config, &self.identity, service, ConnectionBounds::default());
        grpc::serve(grpc::Routed(calls), incoming, BOUNDS, service.tasks()).await;
        Ok(())
    }
}
