//! What any certificate says, whoever signed it: for logs, headers and routing.
//!
//! The names in here are no identity. Who a workload is stands in a [`crate::Leaf`], and only the roots of its trust
//! domain can say it.

use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::certificate::{CertificateFault, sha256};

/// Most names of a certificate that are kept.
const MAX_NAMES: usize = 32;

/// A certificate that was shown, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// Whose it is, as a distinguished name.
    pub subject: String,
    /// Who signed it, likewise.
    pub issuer: String,
    /// Unix seconds from which on it holds.
    pub not_before: i64,
    /// Unix seconds after which it does not hold.
    pub not_after: i64,
    /// SHA-256 of the whole certificate.
    pub sha256: [u8; 32],
    /// Its URI names.
    pub uris: Vec<String>,
    /// Its DNS names, and after them its mail addresses.
    pub names: Vec<String>,
}

impl Shown {
    /// Reads a certificate in DER.
    pub fn read(der: &[u8]) -> Result<Self, CertificateFault> {
        let (_, certificate) = X509Certificate::from_der(der)
            .map_err(|error| CertificateFault::Unreadable(error.to_string()))?;
        let alternative = certificate.subject_alternative_name().map_err(|_| CertificateFault::Twice)?;
        let alternative = alternative.map_or(&[][..], |names| &names.value.general_names);
        let pick = |wanted: fn(&GeneralName<'_>) -> Option<String>| {
            alternative.iter().filter_map(wanted).take(MAX_NAMES)
        };
        let uris = pick(|name| match name {
            GeneralName::URI(uri) => Some((*uri).to_owned()),
            _ => None,
        });
        let dns = pick(|name| match name {
            GeneralName::DNSName(dns) => Some((*dns).to_owned()),
            _ => None,
        });
        let mail = pick(|name| match name {
            GeneralName::RFC822Name(mail) => Some((*mail).to_owned()),
            _ => None,
        });
        Ok(Self {
            subject: certificate.subject().to_string(),
            issuer: certificate.issuer().to_string(),
            not_before: certificate.validity().not_before.timestamp(),
            not_after: certificate.validity().not_after.timestamp(),
            sha256: sha256(der),
            uris: uris.collect(),
            names: dns.chain(mail).collect(),
        })
    }

    /// Whether it claims to be a workload.
    pub fn claims_an_id(&self) -> bool {
        self.uris.iter().any(|uri| uri.get(..7).is_some_and(|scheme| scheme.eq_ignore_ascii_case("spiffe:")))
    }

    /// SHA-256 in lower-case hexadecimal.
    pub fn fingerprint(&self) -> String {
        self.sha256.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}
