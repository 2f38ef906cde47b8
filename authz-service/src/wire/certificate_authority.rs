//! `tollgate.identity.v1.CertificateAuthority`: enrolment and renewal over gRPC.
//!
//! The port asks for a client certificate and does not require one. Who may have what is the authority's to decide;
//! this only says who is asking, and how often anybody may.

use std::net::IpAddr;
use std::time::Duration;

use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use tokio::time::Instant;
use tollgate_identity::pki_types::CertificateDer;
use tollgate_identity::tls::Peer;
use tollgate_proto::identity::certificate_authority_server::CertificateAuthority as Wire;
use tollgate_proto::identity::enrol_request::Proof;
use tollgate_proto::identity::{
    BundleRequest, BundleResponse, CertificateResponse, EnrolRequest, RenewRequest,
};
use tonic::{Request, Response, Status};

use crate::ca::{CaError, CertificateAuthority, Certified, KubernetesFault};

/// How many certificates one address may ask for at once, and how fast that comes back.
const BURST: f64 = 20.0;
const PER_SECOND: f64 = 2.0;
/// Addresses remembered; beyond it the idle ones are forgotten.
const MAX_ADDRESSES: usize = 4096;
/// The seconds after which an address that asked for nothing is as good as new.
const FORGET: Duration = Duration::from_secs(10);

/// The service.
#[derive(Debug)]
pub struct CaWire {
    ca: CertificateAuthority,
    allowances: Mutex<FxHashMap<IpAddr, Allowance>>,
}

#[derive(Debug, Clone, Copy)]
struct Allowance {
    left: f64,
    at: Instant,
}

impl CaWire {
    /// Answers by `ca`.
    pub fn new(ca: CertificateAuthority) -> Self {
        Self { ca, allowances: Mutex::default() }
    }

    fn admit(&self, address: IpAddr) -> Result<(), Status> {
        let now = Instant::now();
        let mut allowances = self.allowances.lock();
        if allowances.len() >= MAX_ADDRESSES {
            allowances.retain(|_, allowance| now.duration_since(allowance.at) < FORGET);
        }
        if allowances.len() >= MAX_ADDRESSES && !allowances.contains_key(&address) {
            return Err(Status::resource_exhausted(
                "too many workloads are asking; try again in some seconds",
            ));
        }
        let allowance = allowances.entry(address).or_insert(Allowance { left: BURST, at: now });
        let regained = now.duration_since(allowance.at).as_secs_f64() * PER_SECOND;
        *allowance = Allowance { left: (allowance.left + regained).min(BURST), at: now };
        if allowance.left < 1.0 {
            return Err(Status::resource_exhausted("this address asks too often; try again in a second"));
        }
        allowance.left -= 1.0;
        Ok(())
    }
}

fn peer<T>(request: &Request<T>) -> Result<Peer, Status> {
    request.extensions().get::<Peer>().cloned().ok_or_else(|| Status::internal("the connection is not known"))
}

fn answer(certified: Result<Certified, CaError>) -> Result<Response<CertificateResponse>, Status> {
    let certified = certified.map_err(|error| refusal(&error))?;
    tracing::info!(
        id = %certified.leaf.id,
        serial = certified.leaf.serial,
        not_after = certified.leaf.not_after,
        "certificate signed"
    );
    Ok(Response::new(CertificateResponse {
        chain_der: vec![certified.certificate.to_vec()],
        roots_der: bytes(&certified.roots),
    }))
}

fn refusal(error: &CaError) -> Status {
    tracing::warn!(%error, "no certificate given");
    let message = error.to_string();
    match error {
        CaError::UnknownToken | CaError::ExpiredToken | CaError::UsedToken => {
            Status::unauthenticated(message)
        }
        CaError::Kubernetes(fault) => match fault {
            KubernetesFault::System(_) => Status::permission_denied(message),
            KubernetesFault::Busy => Status::resource_exhausted(message),
            KubernetesFault::Api(_) => {
                Status::unavailable("the authority cannot ask the Kubernetes API; its log says why")
            }
            KubernetesFault::Shape
            | KubernetesFault::NotAuthenticated(_)
            | KubernetesFault::Audience { .. }
            | KubernetesFault::Username(_) => Status::unauthenticated(message),
        },
        CaError::NoCluster => Status::unimplemented(message),
        CaError::Request(_) => Status::invalid_argument(message),
        CaError::OtherDomain { .. } | CaError::NotRenewable(_) | CaError::Revoked { .. } => {
            Status::permission_denied(message)
        }
        CaError::Store(_) => Status::unavailable("the authority cannot reach its database"),
        CaError::Seal(_) | CaError::Root(_) | CaError::NoRoot(_) => {
            Status::failed_precondition("the authority cannot sign; its log says why")
        }
    }
}

fn bytes(certificates: &[CertificateDer<'_>]) -> Vec<Vec<u8>> {
    certificates.iter().map(|certificate| certificate.to_vec()).collect()
}

#[tonic::async_trait]
impl Wire for CaWire {
    async fn enrol(&self, request: Request<EnrolRequest>) -> Result<Response<CertificateResponse>, Status> {
        self.admit(peer(&request)?.address.ip())?;
        let EnrolRequest { csr_der, proof } = request.into_inner();
        match proof {
            Some(Proof::JoinToken(token)) => answer(self.ca.enrol(&csr_der, &token).await),
            Some(Proof::K8sToken(token)) => answer(self.ca.enrol_by_kubernetes(&csr_der, &token).await),
            None => {
                Err(Status::unauthenticated("a proof is missing; make one: tollgate ca join-token --id …"))
            }
        }
    }

    async fn renew(&self, request: Request<RenewRequest>) -> Result<Response<CertificateResponse>, Status> {
        let peer = peer(&request)?;
        self.admit(peer.address.ip())?;
        let shown =
            peer.leaf.ok_or_else(|| Status::unauthenticated("renewal needs the current certificate"))?;
        answer(self.ca.renew(&request.into_inner().csr_der, &shown).await)
    }

    async fn bundle(&self, request: Request<BundleRequest>) -> Result<Response<BundleResponse>, Status> {
        let BundleRequest { trust_domain: wanted, known_version } = request.into_inner();
        if !wanted.is_empty() && wanted != self.ca.trust_domain().as_str() {
            return Err(Status::not_found(format!("there is no bundle of trust domain `{wanted}` here")));
        }
        Ok(Response::new(self.ca.whom_to_believe(&known_version)))
    }
}
