//! What we read of X.509 certificates and public keys: a key, a serial number, when they are valid.
//!
//! Nothing in here builds or checks chains: a certificate in the policy is trusted because an administrator wrote it
//! there, and one in a Check because the proxy that asks has checked it.

mod der;
mod pem;

use std::fmt::Write as _;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use der::{Malformed, Reader, tag};
use serde_json::{Value, json};

/// A public key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PublicKey {
    /// RSA, as big-endian numbers without leading zeros.
    Rsa {
        /// The modulus.
        n: Box<[u8]>,
        /// The public exponent.
        e: Box<[u8]>,
    },
    /// A point on an elliptic curve, uncompressed.
    Elliptic {
        /// The name of the curve as JWK writes it.
        curve: &'static str,
        /// The first coordinate.
        x: Box<[u8]>,
        /// The second.
        y: Box<[u8]>,
    },
    /// Ed25519.
    Ed25519(Box<[u8]>),
}

/// A certificate's key and dates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// The serial number in lower-case hexadecimal, without leading zeros.
    pub serial: String,
    /// Unix seconds from which on it is valid.
    pub not_before: i64,
    /// Unix seconds after which it is not valid any more.
    pub not_after: i64,
    /// Its key, where that is of a kind we know.
    pub key: Option<PublicKey>,
}

/// A key from a PEM text, with the certificate that it stood in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PemKey {
    /// The key.
    pub key: PublicKey,
    /// When the certificate around it is valid: Unix seconds, both included.
    pub valid: Option<(i64, i64)>,
}

/// The certificate that a peer has shown to a proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerCertificate {
    /// The serial number in lower-case hexadecimal.
    pub serial: String,
    /// SHA-256 of the certificate, as `x5t#S256` writes it (RFC 8705 §3.1).
    pub thumbprint: String,
}

impl PublicKey {
    /// The key as a JWK (RFC 7517), so that it passes the very checks that other keys pass.
    pub fn to_jwk(&self) -> Value {
        let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        match self {
            Self::Rsa { n, e } => json!({"kty": "RSA", "n": text(n), "e": text(e)}),
            Self::Elliptic { curve, x, y } => {
                json!({"kty": "EC", "crv": curve, "x": text(x), "y": text(y)})
            }
            Self::Ed25519(x) => json!({"kty": "OKP", "crv": "Ed25519", "x": text(x)}),
        }
    }

    /// Reads a SubjectPublicKeyInfo (RFC 5280 §4.1).
    fn from_info(mut info: Reader<'_>) -> Result<Option<Self>, Malformed> {
        let mut algorithm = info.sequence()?;
        let bits = info.bit_string()?;
        info.end()?;
        Ok(match algorithm.expect(tag::OID)? {
            OID_RSA => {
                algorithm.skip_if(tag::NULL)?;
                Some(Self::from_rsa(bits)?)
            }
            OID_EC => {
                let (curve, length) = match algorithm.expect(tag::OID)? {
                    OID_P256 => ("P-256", 32),
                    OID_P384 => ("P-384", 48),
                    _ => return Ok(None),
                };
                // Uncompressed points only (SEC 1 §2.3.3); nobody puts others into certificates.
                let [4, point @ ..] = bits else { return Err(Malformed) };
                if point.len() != 2 * length {
                    return Err(Malformed);
                }
                let (x, y) = point.split_at(length);
                Some(Self::Elliptic { curve, x: x.into(), y: y.into() })
            }
            OID_ED25519 => Some(Self::Ed25519(bits.into())),
            _ => None,
        })
    }

    /// Reads an RSAPublicKey (RFC 8017 §A.1.1).
    fn from_rsa(der: &[u8]) -> Result<Self, Malformed> {
        let mut numbers = Reader::only(der, tag::SEQUENCE)?;
        let (n, e) = (numbers.unsigned()?, numbers.unsigned()?);
        numbers.end()?;
        Ok(Self::Rsa { n: n.into(), e: e.into() })
    }
}

const OID_RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
const OID_EC: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
const OID_P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
const OID_P384: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x22];
const OID_ED25519: &[u8] = &[0x2b, 0x65, 0x70];

impl Certificate {
    /// Reads a certificate in DER.
    pub fn from_der(der: &[u8]) -> Result<Self, String> {
        Self::read(der).map_err(|Malformed| "not an X.509 certificate".to_owned())
    }

    fn read(der: &[u8]) -> Result<Self, Malformed> {
        let mut outer = Reader::only(der, tag::SEQUENCE)?;
        let mut signed = outer.sequence()?;
        signed.skip_if(tag::CONTEXT_0)?;
        let serial = signed.expect(tag::INTEGER)?;
        let _algorithm = signed.sequence()?;
        let _issuer = signed.sequence()?;
        let mut dates = signed.sequence()?;
        let (not_before, not_after) = (moment(dates.next()?)?, moment(dates.next()?)?);
        let _subject = signed.sequence()?;
        let key = PublicKey::from_info(signed.sequence()?)?;
        Ok(Self { serial: hexadecimal(serial), not_before, not_after, key })
    }
}

/// The keys of a PEM text: public keys, or certificates that hold them.
pub fn keys_of_pem(text: &str) -> Result<Vec<PemKey>, String> {
    let mut keys = Vec::new();
    for (index, block) in pem::blocks(text)?.into_iter().enumerate() {
        let at = |problem: &str| format!("block {} ({}): {problem}", index + 1, block.label);
        let malformed = |Malformed| at("not the DER that its label promises");
        let unknown = || at("not a key of RSA, P-256, P-384 or Ed25519");
        let key = match block.label {
            "PUBLIC KEY" => {
                let info = Reader::only(&block.der, tag::SEQUENCE).map_err(malformed)?;
                let key = PublicKey::from_info(info).map_err(malformed)?.ok_or_else(unknown)?;
                PemKey { key, valid: None }
            }
            "RSA PUBLIC KEY" => {
                PemKey { key: PublicKey::from_rsa(&block.der).map_err(malformed)?, valid: None }
            }
            "CERTIFICATE" => {
                let read = Certificate::read(&block.der).map_err(malformed)?;
                let valid = Some((read.not_before, read.not_after));
                PemKey { key: read.key.ok_or_else(unknown)?, valid }
            }
            label if label.ends_with("PRIVATE KEY") => {
                return Err(at("a private key does not belong here; give its public part only"));
            }
            _ => return Err(at("write PUBLIC KEY, RSA PUBLIC KEY or CERTIFICATE")),
        };
        keys.push(key);
    }
    if keys.is_empty() {
        return Err("there is no PEM block such as -----BEGIN PUBLIC KEY-----".to_owned());
    }
    Ok(keys)
}

impl PeerCertificate {
    /// Reads `source.certificate` of a Check: PEM, percent-encoded, as Envoy sends it. The first certificate is the
    /// peer's own.
    pub fn from_check(text: &str) -> Result<Self, String> {
        let text = percent_encoding::percent_decode_str(text)
            .decode_utf8()
            .map_err(|_| "not percent-encoded text".to_owned())?;
        let blocks = pem::blocks(&text)?;
        let first = blocks.first().filter(|block| block.label == "CERTIFICATE");
        let der = &first.ok_or_else(|| "not a PEM certificate".to_owned())?.der;
        let serial = Certificate::from_der(der)?.serial;
        Ok(Self { serial, thumbprint: URL_SAFE_NO_PAD.encode(digest(&SHA256, der)) })
    }
}

/// As revocations write it.
fn hexadecimal(number: &[u8]) -> String {
    let mut text = String::with_capacity(number.len() * 2);
    for byte in number {
        write!(text, "{byte:02x}").expect("a String takes everything");
    }
    match text.trim_start_matches('0') {
        "" => "0".to_owned(),
        digits => digits.to_owned(),
    }
}

/// Unix seconds of a UTCTime or GeneralizedTime (RFC 5280 §4.1.2.5): always to the second, always in UTC.
fn moment((found, content): (u8, &[u8])) -> Result<i64, Malformed> {
    let text = std::str::from_utf8(content).map_err(|_| Malformed)?;
    let (format, text) = match (found, text.len()) {
        // Two digits mean 1950 to 2049.
        (tag::UTC_TIME, 13) => ("%Y%m%d%H%M%SZ", format!("{}{text}", if text < "50" { "20" } else { "19" })),
        (tag::GENERALIZED_TIME, 15) => ("%Y%m%d%H%M%SZ", text.to_owned()),
        _ => return Err(Malformed),
    };
    let moment = jiff::civil::DateTime::strptime(format, text).map_err(|_| Malformed)?;
    let zoned = moment.to_zoned(jiff::tz::TimeZone::UTC).map_err(|_| Malformed)?;
    Ok(zoned.timestamp().as_second())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made by OpenSSL, with a serial number whose first bit is set.
    const CERTIFICATE: &str = "\
-----BEGIN CERTIFICATE-----
MIIBYzCCAQmgAwIBAgIEAPHi0zAKBggqhkjOPQQDAjAOMQwwCgYDVQQDDANpZHAw
IBcNMjYxMTIxMDcwNzMwWhgPMjEyNjEwMjgwNzA3MzBaMA4xDDAKBgNVBAMMA2lk
cDBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABJNbldEf9eCxt/MlArIbXAtSifs9
HfyttBHEAWRSKet6whr2Ypz1i7oV+qztXxq0hDtCu/qCb7jpUdQYEcU/IeCjUzBR
MB0GA1UdDgQWBBQZpBqF+IJjKjo0G+Q8n3Utts/GjjAfBgNVHSMEGDAWgBQZpBqF
+IJjKjo0G+Q8n3Utts/GjjAPBgNVHRMBAf8EBTADAQH/MAoGCCqGSM49BAMCA0gA
MEUCIQDHjcag1k/+VF1fsqTqariPFi2QhjIlBGy4J5TPqHCpRgIgcFMKWchlsUjh
GbdG4bX0pKXNU6rZ98zkg4rj3LMYghA=
-----END CERTIFICATE-----
";

    #[test]
    fn a_certificate_is_read() {
        let keys = keys_of_pem(CERTIFICATE).unwrap();
        let [PemKey { key: PublicKey::Elliptic { curve: "P-256", x, .. }, valid }] = &keys[..] else {
            panic!("{keys:?}")
        };
        assert_eq!(x.len(), 32);
        // A UTCTime and a GeneralizedTime.
        assert_eq!(*valid, Some((1_795_244_850, 4_948_844_850)));
    }

    #[test]
    fn other_kinds_of_public_keys_are_read() {
        for (pem, kty) in [
            (
                "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAyleP+EQl1Bu7ZQ8wgNuhgaSHuhUctTllMyVTbp0VxSg=\n-----END PUBLIC KEY-----",
                "OKP",
            ),
            (
                "-----BEGIN PUBLIC KEY-----\nMIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEA0wQP1MDUrgOFBJjMxmD8rMYO20JSPRE0aHN1fiN5S/QihwR8OfWTVezBnRz0J+QllfAEa22OFRJIfuIIRwF78t2eM0Vm7f5gDWIuhf5C/VNrQGCo/QVjJG8e2mxyfYX4EgZEDEUfCaVxM7FSZdNb6cFMbERoMpSv/Kxy9NCRgSnz1qb1tbQTD2yjDRISpSTBUFAW1wvUAcvsLYpb4TNJ635bQZL5aKnFDk123WARfvifFM3+h36ybN2VM7iMHNBKeByRP497x3MLq/IkHGwsyVe2nbiICjY/WZC1A5jlwZuZ2zxmntqShRnyVdDWSSOJ+Q0SLG2pAzWBb4wIVNobDQIDAQAB\n-----END PUBLIC KEY-----",
                "RSA",
            ),
            (
                "-----BEGIN RSA PUBLIC KEY-----\nMIIBCgKCAQEA0wQP1MDUrgOFBJjMxmD8rMYO20JSPRE0aHN1fiN5S/QihwR8OfWTVezBnRz0J+QllfAEa22OFRJIfuIIRwF78t2eM0Vm7f5gDWIuhf5C/VNrQGCo/QVjJG8e2mxyfYX4EgZEDEUfCaVxM7FSZdNb6cFMbERoMpSv/Kxy9NCRgSnz1qb1tbQTD2yjDRISpSTBUFAW1wvUAcvsLYpb4TNJ635bQZL5aKnFDk123WARfvifFM3+h36ybN2VM7iMHNBKeByRP497x3MLq/IkHGwsyVe2nbiICjY/WZC1A5jlwZuZ2zxmntqShRnyVdDWSSOJ+Q0SLG2pAzWBb4wIVNobDQIDAQAB\n-----END RSA PUBLIC KEY-----",
                "RSA",
            ),
        ] {
            assert_eq!(keys_of_pem(pem).unwrap()[0].key.to_jwk()["kty"], kty);
        }
        let p521 = "-----BEGIN PUBLIC KEY-----\nMIGbMBAGByqGSM49AgEGBSuBBAAjA4GGAAQAFgGTieBRqa0Mk9j+IChvOSRJEOFOvQQYKDXzD5+irA5KXk6oWSCZbr+jIkXhJ/+W7UmoawE65D2WIq4pAPBNLcABGd1+4r2TAPvjxqPWnAWIBqFAs1tNecX+oa1zv29IsMKu4KAmnJplOT5/3sNL5I1YQ5I5XheH2GBAlfRXErD0CMY=\n-----END PUBLIC KEY-----";
        assert!(keys_of_pem(p521).unwrap_err().contains("not a key of RSA"));
    }

    #[test]
    fn a_peer_is_known_by_its_serial_and_thumbprint() {
        let encoded: String = CERTIFICATE
            .bytes()
            .map(|byte| {
                if byte == b'+' || byte == b'\n' {
                    format!("%{byte:02x}")
                } else {
                    char::from(byte).to_string()
                }
            })
            .collect();
        let peer = PeerCertificate::from_check(&encoded).unwrap();
        assert_eq!(peer.serial, "f1e2d3");
        assert_eq!(peer.thumbprint, "LOJniVi2pYAhbm3dewggwQvcL4xNs7tJf5AVWQ2fwZc");
        for bad in
            ["", "%", "%ff", "x", "-----BEGIN PUBLIC KEY-----AA==-----END PUBLIC KEY-----", &encoded[..200]]
        {
            assert!(PeerCertificate::from_check(bad).is_err(), "{bad}");
        }
        assert!(
            PeerCertificate::from_check("-----BEGIN CERTIFICATE-----AAEC-----END CERTIFICATE-----").is_err()
        );
    }

    #[test]
    fn a_certificate_that_is_cut_off_or_changed_never_panics() {
        let der = pem::blocks(CERTIFICATE).unwrap().remove(0).der;
        for length in 0..der.len() {
            assert!(Certificate::from_der(&der[..length]).is_err());
        }
        for at in 0..der.len() {
            let mut changed = der.clone();
            changed[at] ^= 0x55;
            let _ = Certificate::from_der(&changed);
        }
    }
}
