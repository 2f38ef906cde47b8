//! An issuer that signs whatever a test wants.

use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa;
use aws_lc_rs::signature::KeyPair as _;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::{Value, json};

/// A key pair with an id.
pub struct Signer {
    key: EncodingKey,
    jwk: Value,
    /// What it signs with.
    pub algorithm: Algorithm,
    /// The id of its key.
    pub kid: String,
}

impl Signer {
    /// With a new key pair.
    pub fn new(algorithm: Algorithm, kid: &str) -> Self {
        let random = SystemRandom::new();
        let key = match algorithm {
            Algorithm::EdDSA => {
                let pair = Ed25519KeyPair::generate_pkcs8(&random).expect("a fresh key");
                let public = Ed25519KeyPair::from_pkcs8(pair.as_ref()).expect("a fresh key");
                let x = URL_SAFE_NO_PAD.encode(public.public_key());
                let jwk =
                    json!({"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "x": x, "kid": kid, "use": "sig"});
                let key = EncodingKey::from_ed_der(pair.as_ref());
                return Self { key, jwk, algorithm, kid: kid.to_owned() };
            }
            Algorithm::ES256 | Algorithm::ES384 => {
                let curve = if algorithm == Algorithm::ES256 {
                    &ECDSA_P256_SHA256_FIXED_SIGNING
                } else {
                    &ECDSA_P384_SHA384_FIXED_SIGNING
                };
                EncodingKey::from_ec_der(
                    EcdsaKeyPair::generate_pkcs8(curve, &random).expect("a fresh key").as_ref(),
                )
            }
            _ => {
                let pair = rsa::KeyPair::generate(rsa::KeySize::Rsa2048).expect("a fresh key");
                let der: aws_lc_rs::encoding::Pkcs8V1Der<'_> = pair.as_der().expect("a fresh key");
                // jsonwebtoken wants PKCS#1, which lies within PKCS#8 behind 26 bytes of header.
                EncodingKey::from_rsa_der(&der.as_ref()[26..])
            }
        };
        let mut jwk = serde_json::to_value(Jwk::from_encoding_key(&key, algorithm).expect("a fresh key"))
            .expect("a fresh key");
        (jwk["kid"], jwk["use"]) = (json!(kid), json!("sig"));
        Self { key, jwk, algorithm, kid: kid.to_owned() }
    }

    /// The public part.
    pub fn jwk(&self) -> Value {
        self.jwk.clone()
    }

    /// A set of it alone.
    pub fn jwks(&self) -> Value {
        json!({"keys": [self.jwk()]})
    }

    /// Signs `claims` under the usual header.
    pub fn token(&self, claims: &Value) -> String {
        self.signed(&json!({"alg": format!("{:?}", self.algorithm), "typ": "JWT", "kid": self.kid}), claims)
    }

    /// Signs `claims` under any header.
    pub fn signed(&self, header: &Value, claims: &Value) -> String {
        self.signed_text(&header.to_string(), &claims.to_string())
    }

    /// Signs any two texts.
    pub fn signed_text(&self, header: &str, claims: &str) -> String {
        let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
        let signature =
            jsonwebtoken::crypto::sign(message.as_bytes(), &self.key, self.algorithm).expect("a fresh key");
        format!("{message}.{signature}")
    }
}
