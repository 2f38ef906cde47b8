//! One root of the authority: its certificate, its key, and what it signs.

use std::fmt;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType, SerialNumber,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use super::request::Request;
use crate::certificate::{CertificateFault, Leaf};
use crate::spiffe_id::{SpiffeId, TrustDomain};

/// Clocks of workloads that run behind ours would find a new certificate not yet valid.
const BACKDATED: Duration = Duration::from_secs(60);
/// Random bytes of a serial number: more than the 64 bits that make one unguessable.
const SERIAL_BYTES: usize = 16;

/// Why a root cannot be made or cannot sign.
#[derive(Debug, thiserror::Error)]
pub enum RootFault {
    /// Encoding or signing failed.
    #[error("cannot sign: {0}")]
    Sign(#[from] rcgen::Error),
    /// No random numbers.
    #[error("the system gives no random numbers")]
    Random,
    /// What was stored is not a root of ours.
    #[error("the stored root is damaged: {0}")]
    Damaged(String),
    /// What we signed would not be believed by anybody, so it is not given out.
    #[error("the certificate that was made is wrong: {0}")]
    Made(#[from] CertificateFault),
}

/// A root with its key.
pub struct Root {
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

/// What a certificate shall say beside its id.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Profile {
    /// Names by which clients that know nothing of SPIFFE find a server.
    pub dns: Vec<String>,
    /// Addresses for the same purpose.
    pub ips: Vec<IpAddr>,
}

/// A signed certificate.
#[derive(Debug, Clone)]
pub struct Issued {
    /// In DER.
    pub certificate: CertificateDer<'static>,
    /// What it says.
    pub leaf: Leaf,
}

impl Root {
    /// Makes a root for a trust domain. It signs leaves and no further authority. That it makes no identity of another
    /// domain is for whoever trusts it to see to: see [`crate::bundle`].
    pub fn generate(domain: &TrustDomain, now: i64, life: Duration) -> Result<Self, RootFault> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, format!("Tollgate root of {domain}"));
        params.distinguished_name.push(DnType::OrganizationName, "Tollgate");
        params.subject_alt_names = vec![uri(&format!("spiffe://{domain}"))?];
        params.serial_number = Some(serial()?);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.not_before = time(now.saturating_sub(backdated(life)));
        params.not_after = time(now.saturating_add(seconds(life)));
        let certificate = params.self_signed(&key)?.der().clone();
        Ok(Self { certificate, issuer: Issuer::new(params, key) })
    }

    /// A root that was made earlier. `key` is PKCS#8 in DER.
    pub fn restore(certificate: CertificateDer<'static>, key: &[u8]) -> Result<Self, RootFault> {
        let damaged = |error: &dyn fmt::Display| RootFault::Damaged(error.to_string());
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key));
        let key = KeyPair::try_from(&key).map_err(|error| damaged(&error))?;
        let (_, parsed) =
            x509_parser::parse_x509_certificate(&certificate).map_err(|error| damaged(&error))?;
        if parsed.public_key().subject_public_key.data != key.public_key_raw() {
            return Err(RootFault::Damaged("its key belongs to another certificate".to_owned()));
        }
        let issuer = Issuer::from_ca_cert_der(&certificate, key).map_err(|error| damaged(&error))?;
        Ok(Self { certificate, issuer })
    }

    /// Signs a certificate for the id that the sender of `request` has proved to be.
    pub fn sign(
        &self,
        request: &Request,
        id: &SpiffeId,
        profile: &Profile,
        now: i64,
        life: Duration,
    ) -> Result<Issued, RootFault> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = vec![uri(id.as_str())?];
        for name in &profile.dns {
            params.subject_alt_names.push(SanType::DnsName(name.as_str().try_into()?));
        }
        params.subject_alt_names.extend(profile.ips.iter().copied().map(SanType::IpAddress));
        params.serial_number = Some(serial()?);
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        params.not_before = time(now.saturating_sub(backdated(life)));
        params.not_after = time(now.saturating_add(seconds(life)));
        let certificate = params.signed_by(&request.public_key, &self.issuer)?.der().clone();
        let leaf = Leaf::read(&certificate)?;
        Ok(Issued { certificate, leaf })
    }

    /// The root's own certificate in DER.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// The private key in PKCS#8, to be sealed before it goes anywhere.
    pub fn key(&self) -> Vec<u8> {
        self.issuer.key().serialize_der()
    }
}

impl fmt::Debug for Root {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Root").finish_non_exhaustive()
    }
}

fn uri(text: &str) -> Result<SanType, RootFault> {
    Ok(SanType::URI(text.try_into()?))
}

/// Positive, and of one length.
fn serial() -> Result<SerialNumber, RootFault> {
    let mut bytes = [0; SERIAL_BYTES];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| RootFault::Random)?;
    bytes[0] = bytes[0] & 0x7f | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}

/// A short life is backdated less: its half must not have passed when it begins.
fn backdated(life: Duration) -> i64 {
    seconds(BACKDATED.min(life / 10))
}

fn seconds(life: Duration) -> i64 {
    i64::try_from(life.as_secs()).unwrap_or(i64::MAX)
}

fn time<T: From<SystemTime>>(unix_seconds: i64) -> T {
    let since = Duration::from_secs(unix_seconds.max(0).unsigned_abs());
    T::from(SystemTime::UNIX_EPOCH + since)
}
