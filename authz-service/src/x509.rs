//! What we read of X.509 certificates and public keys: a key, a serial number, when they are valid.
//!
//! Nothing in here builds or checks chains: a certificate in the policy is trusted because an administrator wrote it
//! there, and one in a Check because the proxy that asks has checked it.

use std::fmt::Write as _;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use tollgate_identity::Leaf;
use x509_parser::asn1_rs::{FromDer, Oid};
use x509_parser::certificate::X509CertificateParser;
use x509_parser::nom::Parser as _;
use x509_parser::oid_registry::{
    OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_NIST_EC_P384, OID_PKCS1_RSAENCRYPTION, OID_SIG_ED25519,
};
use x509_parser::pem::Pem;
use x509_parser::public_key::RSAPublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

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

    /// Reads a SubjectPublicKeyInfo (RFC 5280 §4.1); `None` for a kind of key that we do not know.
    fn from_info(info: &SubjectPublicKeyInfo<'_>) -> Result<Option<Self>, Malformed> {
        let bits = &*info.subject_public_key.data;
        if info.subject_public_key.unused_bits != 0 {
            return Err(Malformed);
        }
        let algorithm = &info.algorithm.algorithm;
        if *algorithm == OID_PKCS1_RSAENCRYPTION {
            return Self::from_rsa(bits).map(Some);
        }
        if *algorithm == OID_SIG_ED25519 {
            return Ok(Some(Self::Ed25519(bits.into())));
        }
        if *algorithm != OID_KEY_TYPE_EC_PUBLIC_KEY {
            return Ok(None);
        }
        let parameters = info.algorithm.parameters.as_ref().ok_or(Malformed)?;
        let named: Oid<'_> = parameters.try_into().map_err(|_| Malformed)?;
        let (curve, length) = match () {
            () if named == OID_EC_P256 => ("P-256", 32),
            () if named == OID_NIST_EC_P384 => ("P-384", 48),
            () => return Ok(None),
        };
        // Uncompressed points only (SEC 1 §2.3.3); nobody puts others into certificates.
        let [4, point @ ..] = bits else { return Err(Malformed) };
        if point.len() != 2 * length {
            return Err(Malformed);
        }
        let (x, y) = point.split_at(length);
        Ok(Some(Self::Elliptic { curve, x: x.into(), y: y.into() }))
    }

    /// Reads an RSAPublicKey (RFC 8017 §A.1.1).
    fn from_rsa(der: &[u8]) -> Result<Self, Malformed> {
        let key: RSAPublicKey<'_> = only(der)?;
        let (n, e) = (positive(key.modulus)?, positive(key.exponent)?);
        Ok(Self::Rsa { n: n.into(), e: e.into() })
    }
}

/// The input is not the DER that it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Malformed;

/// What DER says, if nothing follows it.
fn only<'a, T: FromDer<'a, E>, E>(der: &'a [u8]) -> Result<T, Malformed> {
    match T::from_der(der) {
        Ok(([], read)) => Ok(read),
        _ => Err(Malformed),
    }
}

/// The digits of a positive integer, without leading zeros.
fn positive(integer: &[u8]) -> Result<&[u8], Malformed> {
    match integer {
        [] => Err(Malformed),
        [0, digits @ ..] => Ok(digits),
        [first, ..] if first & 0x80 != 0 => Err(Malformed),
        digits => Ok(digits),
    }
}

impl Certificate {
    /// Reads a certificate in DER.
    pub fn from_der(der: &[u8]) -> Result<Self, String> {
        Self::read(der).map_err(|Malformed| "not an X.509 certificate".to_owned())
    }

    fn read(der: &[u8]) -> Result<Self, Malformed> {
        // What its extensions say is the business of whoever checks chains.
        let mut parser = X509CertificateParser::new().with_deep_parse_extensions(false);
        let Ok(([], certificate)) = parser.parse(der) else { return Err(Malformed) };
        let dates = certificate.validity();
        Ok(Self {
            serial: hexadecimal(certificate.raw_serial()),
            not_before: dates.not_before.timestamp(),
            not_after: dates.not_after.timestamp(),
            key: PublicKey::from_info(certificate.public_key())?,
        })
    }
}

/// The keys of a PEM text: public keys, or certificates that hold them.
pub fn keys_of_pem(text: &str) -> Result<Vec<PemKey>, String> {
    let mut keys = Vec::new();
    for (index, block) in Pem::iter_from_buffer(text.as_bytes()).enumerate() {
        let block = block.map_err(|error| format!("block {}: {error}", index + 1))?;
        let at = |problem: &str| format!("block {} ({}): {problem}", index + 1, block.label);
        let malformed = |Malformed| at("not the DER that its label promises");
        let unknown = || at("not a key of RSA, P-256, P-384 or Ed25519");
        let key = match &*block.label {
            "PUBLIC KEY" => {
                let info = only(&block.contents).map_err(malformed)?;
                let key = PublicKey::from_info(&info).map_err(malformed)?.ok_or_else(unknown)?;
                PemKey { key, valid: None }
            }
            "RSA PUBLIC KEY" => {
                PemKey { key: PublicKey::from_rsa(&block.contents).map_err(malformed)?, valid: None }
            }
            "CERTIFICATE" => {
                let read = Certificate::read(&block.contents).map_err(malformed)?;
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
    /// Of a connection of our own.
    pub fn of(leaf: &Leaf) -> Self {
        Self { serial: leaf.serial.clone(), thumbprint: URL_SAFE_NO_PAD.encode(leaf.sha256) }
    }

    /// Reads `source.certificate` of a Check: PEM, percent-encoded, as Envoy sends it. The first certificate is the
    /// peer's own.
    pub fn from_check(text: &str) -> Result<Self, String> {
        let text = percent_encoding::percent_decode_str(text)
            .decode_utf8()
            .map_err(|_| "not percent-encoded text".to_owned())?;
        let first = Pem::iter_from_buffer(text.as_bytes()).next().and_then(Result::ok);
        let first = first.filter(|block| block.label == "CERTIFICATE");
        let der = &first.ok_or_else(|| "not a PEM certificate".to_owned())?.contents;
        let serial = Certificate::from_der(der)?.serial;
        Ok(Self { serial, thumbprint: URL_SAFE_NO_PAD.encode(digest(&SHA256, der)) })
    }
}

/// The thumbprint of a certificate of this SHA-256 in hexadecimal digits, as proxies write it about clients.
pub fn thumbprint_of_hash(hash: &str) -> Option<String> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16);
    let pairs = hash.as_bytes().chunks(2).map(|pair| match pair {
        [high, low] => u8::try_from(digit(high)? << 4 | digit(low)?).ok(),
        _ => None,
    });
    let bytes = pairs.collect::<Option<Vec<u8>>>().filter(|bytes| bytes.len() == SHA256.output_len())?;
    Some(URL_SAFE_NO_PAD.encode(bytes))
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
    fn a_thumbprint_is_the_same_hash_in_other_digits() {
        let hash = "2CE2678958B6A580216E6DDD7B0820C10BDC2F8C4DB3BB497F9015590D9FC197";
        let known = Some("LOJniVi2pYAhbm3dewggwQvcL4xNs7tJf5AVWQ2fwZc");
        assert_eq!(thumbprint_of_hash(hash).as_deref(), known);
        assert_eq!(thumbprint_of_hash(&hash.to_lowercase()).as_deref(), known);
        for bad in ["", "2c", &hash[1..], &hash[2..], &format!("{hash}00"), &hash.replace('F', "g")] {
            assert_eq!(thumbprint_of_hash(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_certificate_that_is_cut_off_or_changed_never_panics() {
        let der = Pem::iter_from_buffer(CERTIFICATE.as_bytes()).next().unwrap().unwrap().contents;
        for length in 0..der.len() {
            assert!(Certificate::from_der(&der[..length]).is_err());
        }
        for at in 0..der.len() {
            let mut changed = der.clone();
            changed[at] ^= 0x55;
            let _ = Certificate::from_der(&changed);
        }
    }

    #[test]
    fn blocks_are_found_between_comments() {
        let rsa = "-----BEGIN RSA PUBLIC KEY-----\nMAoCBQCAAAABAgED\n-----END RSA PUBLIC KEY-----";
        let text = format!("subject=x\n{rsa}\n\nissuer=y\n{}\n", rsa.replace('\n', "\r\n"));
        assert_eq!(keys_of_pem(&text).unwrap().len(), 2);
        assert!(keys_of_pem("nothing").unwrap_err().contains("no PEM block"));
        for bad in ["-----BEGIN A", "-----BEGIN A-----\nAAEC", "-----BEGIN A-----\n?\n-----END A-----"] {
            assert!(keys_of_pem(bad).unwrap_err().starts_with("block 1: "), "{bad}");
        }
    }

    #[test]
    fn lengths_are_definite_and_nothing_follows() {
        let good = [0x30, 0x0a, 2, 5, 0, 0x80, 0, 0, 1, 2, 1, 3];
        assert!(PublicKey::from_rsa(&good).is_ok());
        let indefinite = [&[0x30, 0x80][..], &good[2..], &[0, 0]].concat();
        let too_long = [&[0x30, 0x0b][..], &good[2..]].concat();
        let followed = [&good[..], &[5, 0]].concat();
        let other = [&[0x31, 0x0a][..], &good[2..]].concat();
        for bad in [&[][..], &[0x30], &indefinite, &too_long, &followed, &other, &good[..11]] {
            assert_eq!(PublicKey::from_rsa(bad), Err(Malformed), "{bad:x?}");
        }
    }

    #[test]
    fn integers_are_positive() {
        assert_eq!(positive(&[0, 0x80]), Ok(&[0x80][..]));
        assert_eq!(positive(&[0]), Ok(&[][..]));
        assert_eq!(positive(&[0x80]), Err(Malformed));
        assert_eq!(positive(&[]), Err(Malformed));
    }
}
