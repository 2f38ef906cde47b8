//! A certificate authority for tests: it signs whatever a test asks for, right or wrong.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    IsCa, KeyPair, KeyUsagePurpose, SanType,
};

/// How long what it signs is valid, unless the test says otherwise.
const LIFE: Duration = Duration::from_secs(3600);
/// Clocks of one machine agree, but certificates tell whole seconds only.
const BACKDATED: Duration = Duration::from_secs(60);

/// Signs certificates.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate chain and its key.
#[derive(Clone)]
pub struct Signed {
    /// The certificate, in DER.
    pub certificate: Vec<u8>,
    /// Its private key in PKCS#8 DER.
    pub key: Vec<u8>,
    /// The certificate in PEM.
    pub certificate_pem: String,
    /// The private key in PEM.
    pub key_pem: String,
}

impl Authority {
    /// A new root of this name.
    pub fn new(name: &str) -> Self {
        let mut params = base(name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().expect("a key can be made");
        Self { issuer: CertifiedIssuer::self_signed(params, key).expect("a root can sign itself") }
    }

    /// The root in PEM.
    pub fn root_pem(&self) -> String {
        self.issuer.pem()
    }

    /// The root in DER.
    pub fn root_der(&self) -> Vec<u8> {
        self.issuer.der().to_vec()
    }

    /// A certificate as a workload of this id should have it.
    pub fn workload(&self, id: &str) -> Signed {
        self.sign(workload(id))
    }

    /// A certificate for a server of these addresses.
    pub fn server(&self, addresses: &[IpAddr]) -> Signed {
        let mut params = base("server");
        params.subject_alt_names = addresses.iter().map(|address| SanType::IpAddress(*address)).collect();
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.sign(params)
    }

    /// A certificate for a server of these DNS names.
    pub fn named(&self, names: &[&str]) -> Signed {
        let mut params = base("server");
        let dns = |name: &&str| SanType::DnsName((*name).try_into().expect("a name is ASCII"));
        params.subject_alt_names = names.iter().map(dns).collect();
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.sign(params)
    }

    /// Whatever `params` say.
    pub fn sign(&self, params: CertificateParams) -> Signed {
        let key = KeyPair::generate().expect("a key can be made");
        let signed = params.signed_by(&key, &self.issuer).expect("the parameters can be encoded");
        Signed {
            certificate: signed.der().to_vec(),
            key: key.serialize_der(),
            certificate_pem: signed.pem(),
            key_pem: key.serialize_pem(),
        }
    }
}

/// What a workload's certificate says, for tests to change.
pub fn workload(id: &str) -> CertificateParams {
    let mut params = base("workload");
    params.subject_alt_names = vec![uri(id)];
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params
}

/// A URI as a subject alternative name.
pub fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().expect("a URI is ASCII"))
}

/// The machine's time, by which handshakes judge certificates.
#[expect(clippy::disallowed_methods, reason = "TLS reads the machine's clock, not a service's")]
pub fn now() -> SystemTime {
    SystemTime::now()
}

fn base(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    let now = now();
    params.not_before = (now - BACKDATED).into();
    params.not_after = (now + LIFE).into();
    params
}
