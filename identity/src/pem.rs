//! Certificates and keys in PEM (RFC 7468), with errors that name the file and never its content.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// Characters of a line, as the RFC has it.
const LINE: usize = 64;
/// Larger files are no certificates.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PemFault {
    /// It cannot be read.
    #[error("{}: cannot be read: {source}", file.display())]
    Read { file: PathBuf, source: std::io::Error },
    /// It is something else.
    #[error("{}: is larger than {MAX_FILE_BYTES} bytes, so it is no PEM file of certificates", file.display())]
    TooLarge { file: PathBuf },
    /// It has no such thing.
    #[error("{}: holds no {wanted} in PEM (-----BEGIN …-----)", file.display())]
    Empty { file: PathBuf, wanted: &'static str },
    /// It is damaged.
    #[error("{}: is damaged: {problem}", file.display())]
    Damaged { file: PathBuf, problem: String },
}

/// A certificate as PEM.
pub fn certificate(certificate: &CertificateDer<'_>) -> String {
    let mut text = String::from("-----BEGIN CERTIFICATE-----\n");
    let encoded = STANDARD.encode(certificate);
    let mut rest = encoded.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(LINE));
        text.push_str(line);
        text.push('\n');
        rest = after;
    }
    text.push_str("-----END CERTIFICATE-----\n");
    text
}

fn read(file: &Path) -> Result<Vec<u8>, PemFault> {
    let wrong = |source| PemFault::Read { file: file.to_owned(), source };
    if std::fs::metadata(file).map_err(wrong)?.len() > MAX_FILE_BYTES {
        return Err(PemFault::TooLarge { file: file.to_owned() });
    }
    std::fs::read(file).map_err(wrong)
}

/// What is wrong, without a byte of what was read: it may have been a key.
fn damage(error: &pem::Error) -> String {
    match error {
        pem::Error::MissingSectionEnd { .. } => "a section has no end".to_owned(),
        pem::Error::IllegalSectionStart { .. } => "a section starts wrongly".to_owned(),
        pem::Error::Base64Decode(_) => "a section is no base64".to_owned(),
        _ => "it is no PEM".to_owned(),
    }
}

/// All certificates of a file, in its order.
pub fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, PemFault> {
    let text = read(file)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let found =
        found.map_err(|error| PemFault::Damaged { file: file.to_owned(), problem: damage(&error) })?;
    if found.is_empty() {
        return Err(PemFault::Empty { file: file.to_owned(), wanted: "certificate" });
    }
    Ok(found)
}

/// The private key of a file.
pub(crate) fn private_key(file: &Path) -> Result<PrivateKeyDer<'static>, PemFault> {
    let text = read(file)?;
    PrivateKeyDer::from_pem_slice(&text).map_err(|error| match error {
        pem::Error::NoItemsFound => PemFault::Empty { file: file.to_owned(), wanted: "private key" },
        other => PemFault::Damaged { file: file.to_owned(), problem: damage(&other) },
    })
}
