//! What an X.509 certificate says about a workload, by the [X.509-SVID specification][spec].
//!
//! Reading is not believing: whether somebody we trust has signed it is [`crate::bundle`]'s to say. The rules here
//! are the ones that a general verifier does not know: exactly one URI name, which is a SPIFFE id, and never a CA.
//!
//! [spec]: https://github.com/spiffe/spiffe/blob/main/standards/X509-SVID.md

use aws_lc_rs::digest;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::spiffe_id::{IdFault, SpiffeId};

/// Longest serial number (RFC 5280, section 4.1.2.2), in bytes.
const MAX_SERIAL_BYTES: usize = 20;

/// Why a certificate names no workload.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CertificateFault {
    /// Not a certificate at all.
    #[error("is no X.509 certificate: {0}")]
    Unreadable(String),
    /// Only a common name, or a DNS name, or nothing.
    #[error("has no URI name; a common name is no identity")]
    NoUri,
    /// More than one name, so that two readers could believe two things.
    #[error("has {0} URI names; a workload has exactly one")]
    SeveralUris(usize),
    /// A URI that is no SPIFFE id.
    #[error("has a URI name which {0}")]
    Id(#[from] IdFault),
    /// Whoever holds it could make identities.
    #[error("belongs to a certificate authority; a workload's does not")]
    Authority,
    /// It may not be used to sign a handshake.
    #[error("lacks the key usage digitalSignature")]
    KeyUsage,
    /// A serial number that cannot be revoked by it.
    #[error("has a serial number longer than {MAX_SERIAL_BYTES} bytes")]
    Serial,
    /// Several extensions of one kind.
    #[error("says one extension twice")]
    Twice,
}

/// A workload's certificate, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaf {
    /// Who it is.
    pub id: SpiffeId,
    /// Serial number in lower-case hexadecimal, as it is written in revocations.
    pub serial: String,
    /// The name of who signed it, as text.
    pub issuer: String,
    /// Unix seconds from which on it holds.
    pub not_before: i64,
    /// Unix seconds after which it does not hold.
    pub not_after: i64,
    /// SHA-256 of the whole certificate: `x5t#S256` of RFC 8705 before its base64url.
    pub sha256: [u8; 32],
}

impl Leaf {
    /// Reads a certificate in DER.
    pub fn read(der: &[u8]) -> Result<Self, CertificateFault> {
        let unreadable = |error: &dyn std::fmt::Display| CertificateFault::Unreadable(error.to_string());
        let (rest, certificate) = X509Certificate::from_der(der).map_err(|error| unreadable(&error))?;
        if !rest.is_empty() {
            return Err(CertificateFault::Unreadable("bytes follow its end".to_owned()));
        }
        let constraints = certificate.basic_constraints().map_err(|_| CertificateFault::Twice)?;
        if constraints.is_some_and(|constraints| constraints.value.ca) {
            return Err(CertificateFault::Authority);
        }
        let usage = certificate.key_usage().map_err(|_| CertificateFault::Twice)?;
        match usage {
            Some(usage) if usage.value.key_cert_sign() || usage.value.crl_sign() => {
                return Err(CertificateFault::Authority);
            }
            Some(usage) if !usage.value.digital_signature() => return Err(CertificateFault::KeyUsage),
            _ => {}
        }
        let serial = certificate.raw_serial();
        // One zero byte more keeps a number positive that starts with a set bit.
        if serial.len() > MAX_SERIAL_BYTES + 1 {
            return Err(CertificateFault::Serial);
        }
        Ok(Self {
            id: only_uri(&certificate)?.parse()?,
            serial: serial_text(serial),
            issuer: certificate.issuer().to_string(),
            not_before: certificate.validity().not_before.timestamp(),
            not_after: certificate.validity().not_after.timestamp(),
            sha256: sha256(der),
        })
    }

    /// Whether it holds at `now`, in Unix seconds.
    pub fn holds_at(&self, now: i64) -> bool {
        (self.not_before..=self.not_after).contains(&now)
    }
}

/// SHA-256.
pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    hash
}

fn only_uri<'a>(certificate: &'a X509Certificate<'_>) -> Result<&'a str, CertificateFault> {
    let names = certificate.subject_alternative_name().map_err(|_| CertificateFault::Twice)?;
    let names = names.map_or(&[][..], |names| &names.value.general_names);
    let mut uris = names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    });
    let first = uris.next().ok_or(CertificateFault::NoUri)?;
    match uris.count() {
        0 => Ok(first),
        more => Err(CertificateFault::SeveralUris(more + 1)),
    }
}

/// Hexadecimal without leading zeros, as `openssl x509 -serial` prints it but in lower case.
fn serial_text(bytes: &[u8]) -> String {
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let trimmed = hex.trim_start_matches('0');
    if trimmed.is_empty() { "0".to_owned() } else { trimmed.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serials_have_one_spelling() {
        for (bytes, text) in [(&[0, 0xAB, 1][..], "ab01"), (&[0x0A], "a"), (&[0], "0"), (&[], "0")] {
            assert_eq!(serial_text(bytes), text);
        }
    }

    #[test]
    fn garbage_is_no_certificate() {
        for der in [&b""[..], b"x", &[0x30, 0x80, 0, 0], &[0x30, 0x03, 2, 1, 1]] {
            assert!(matches!(Leaf::read(der), Err(CertificateFault::Unreadable(_))), "{der:?}");
        }
    }
}
