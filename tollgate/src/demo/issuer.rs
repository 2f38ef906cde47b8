//! The demo's identity provider: one Ed25519 key in the data folder, signing tokens for anyone who
//! can read it.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use aws_lc_rs::signature::Ed25519KeyPair;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::jwk::{Jwk, JwkSet};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde::Serialize;
use tollgate_runtime::clock::Clock;

/// Name of the issuer in the policy.
pub const NAME: &str = "demo";
/// The `iss` of its tokens.
pub const URL: &str = "https://issuer.tollgate.demo";
/// The `aud` of its tokens.
pub const AUDIENCE: &str = "insurance";
/// The `client_id` of tokens that a person asks for.
pub const CLIENT: &str = "demo-cli";

const PEM_HEAD: &str = "-----BEGIN PRIVATE KEY-----";
const PEM_FOOT: &str = "-----END PRIVATE KEY-----";

/// Signs demo tokens.
#[derive(Clone)]
pub struct Issuer {
    key: EncodingKey,
    kid: String,
    jwk: Jwk,
}

/// What a demo token says.
#[derive(Debug, Clone)]
pub struct Grant {
    /// `sub`
    pub subject: String,
    /// `client_id`
    pub client: String,
    /// `scope`
    pub scopes: Vec<String>,
    /// Lifetime from now.
    pub ttl: Duration,
    /// Issues it in the past, so that it has expired already.
    pub expired: bool,
    /// The SHA-256 of the one certificate with which it is any good (`cnf`, RFC 8705).
    pub bound_to: Option<[u8; 32]>,
}

#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    sub: &'a str,
    aud: &'a str,
    client_id: &'a str,
    scope: String,
    iat: u64,
    exp: u64,
    jti: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    cnf: Option<Confirmation>,
}

/// RFC 8705, section 3.1.
#[derive(Serialize)]
struct Confirmation {
    #[serde(rename = "x5t#S256")]
    thumbprint: String,
}

impl Issuer {
    /// Where the key lies in the data folder.
    pub fn key_file(data: &Path) -> PathBuf {
        data.join("demo").join("issuer.pem")
    }

    /// Loads the key of the data folder, making one the first time.
    pub fn open_or_create(data: &Path) -> anyhow::Result<Self> {
        let file = Self::key_file(data);
        match Self::open(data) {
            Err(error) if is_absent(&error) => {}
            opened => return opened,
        }
        let pair = Ed25519KeyPair::generate().context("cannot generate the demo issuer's key")?;
        let der = pair.to_pkcs8v1().context("cannot encode the demo issuer's key")?;
        write_private(&file, &to_pem(der.as_ref()))
            .with_context(|| format!("cannot write the demo issuer's key {}", file.display()))?;
        Self::of_der(der.as_ref())
    }

    /// Loads the key of the data folder.
    pub fn open(data: &Path) -> anyhow::Result<Self> {
        let file = Self::key_file(data);
        let pem = fs::read_to_string(&file).with_context(|| {
            format!("no demo issuer in {} ({}); `tollgate up` makes it", data.display(), file.display())
        })?;
        let body: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
        let der =
            STANDARD.decode(body).with_context(|| format!("{} is not a PEM private key", file.display()))?;
        Self::of_der(&der)
    }

    fn of_der(der: &[u8]) -> anyhow::Result<Self> {
        let key = EncodingKey::from_ed_der(der);
        let mut jwk =
            Jwk::from_encoding_key(&key, Algorithm::EdDSA).context("the demo issuer's key is not Ed25519")?;
        let thumbprint = jwk.thumbprint(jsonwebtoken::jwk::ThumbprintHash::SHA256)?;
        let kid = format!("demo-{}", &thumbprint[..8]);
        jwk.common.key_id = Some(kid.clone());
        jwk.common.public_key_use = Some(jsonwebtoken::jwk::PublicKeyUse::Signature);
        Ok(Self { key, kid, jwk })
    }

    /// The public keys, for the policy's issuer.
    pub fn jwks(&self) -> JwkSet {
        JwkSet { keys: vec![self.jwk.clone()] }
    }

    /// Signs a token.
    pub fn token(&self, grant: &Grant, clock: &Clock) -> anyhow::Result<String> {
        let now = clock.unix_seconds();
        let issued = if grant.expired { now.saturating_sub(7200) } else { now };
        let lifetime = if grant.expired { 3600 } else { grant.ttl.as_secs() };
        let claims = Claims {
            iss: URL,
            sub: &grant.subject,
            aud: AUDIENCE,
            client_id: &grant.client,
            scope: grant.scopes.join(" "),
            iat: issued,
            exp: issued + lifetime,
            jti: uuid::Uuid::new_v4().to_string(),
            cnf: grant.bound_to.map(|hash| Confirmation { thumbprint: URL_SAFE_NO_PAD.encode(hash) }),
        };
        let mut header = Header::new(Algorithm::EdDSA);
        header.kid = Some(self.kid.clone());
        Ok(jsonwebtoken::encode(&header, &claims, &self.key)?)
    }
}

fn is_absent(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::NotFound)
}

fn to_pem(der: &[u8]) -> String {
    let body = STANDARD.encode(der);
    let lines: Vec<&str> =
        body.as_bytes().chunks(64).map(|c| std::str::from_utf8(c).unwrap_or_default()).collect();
    format!("{PEM_HEAD}\n{}\n{PEM_FOOT}\n", lines.join("\n"))
}

/// Written under another name and renamed, so that a crash leaves no half key behind.
fn write_private(file: &Path, text: &str) -> io::Result<()> {
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder)?;
    }
    let draft = file.with_extension("new");
    let mut handle =
        fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
    handle.write_all(text.as_bytes())?;
    handle.sync_all()?;
    fs::rename(draft, file)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn the_key_is_made_once_and_is_private() {
        let folder = tempfile::tempdir().unwrap();
        assert!(Issuer::open(folder.path()).is_err_and(|e| e.to_string().contains("tollgate up")));
        let first = Issuer::open_or_create(folder.path()).unwrap();
        let again = Issuer::open_or_create(folder.path()).unwrap();
        assert_eq!(first.kid, again.kid);
        let mode = fs::metadata(Issuer::key_file(folder.path())).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn tokens_verify_with_the_published_key_and_expired_ones_do_not() {
        let folder = tempfile::tempdir().unwrap();
        let issuer = Issuer::open_or_create(folder.path()).unwrap();
        let key = jsonwebtoken::DecodingKey::from_jwk(&issuer.jwks().keys[0]).unwrap();
        let mut rules = jsonwebtoken::Validation::new(Algorithm::EdDSA);
        rules.set_audience(&[AUDIENCE]);
        let verify = |expired| {
            let grant = Grant {
                subject: "reader".into(),
                client: CLIENT.into(),
                scopes: vec!["policies:read".into()],
                ttl: Duration::from_secs(60),
                expired,
                bound_to: None,
            };
            let token = issuer.token(&grant, &Clock::system()).unwrap();
            jsonwebtoken::decode::<serde_json::Value>(&token, &key, &rules)
        };
        assert_eq!(verify(false).unwrap().claims["sub"], "reader");
        assert!(verify(true).is_err());
    }
}
