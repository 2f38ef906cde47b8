//! What an operator may set, and the only place that checks it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tollgate_identity::config::IdentityConfig;
use tollgate_identity::tls::{Clients, DoorTls};
use tollgate_runtime::config::{Invalid, Secret, ServiceConfig, duration};
use tollgate_runtime::process::ProcessConfig;
use tollgate_runtime::telemetry::TelemetryConfig;

use crate::ca::CaConfig;
use crate::decisions::{Bounds, MAX_RECORD_BYTES, Room, SHARDS};
use crate::token::keys::SharedSecrets;

/// The whole configuration.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where enforcers ask.
    pub listen: ListenConfig,
    /// Where the policy is.
    pub database: DatabaseConfig,
    /// Keys of issuers that are fetched.
    pub keys: KeysConfig,
    /// Records of decisions.
    pub decisions: DecisionsConfig,
    /// Where this service's own certificate comes from. With a section `ca` it is the authority's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity: Option<IdentityConfig>,
    /// The built-in certificate authority; without this there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<CaConfig>,
    /// The first administrator.
    pub bootstrap: BootstrapConfig,
    /// The process itself.
    pub process: ProcessConfig,
    /// Where traces, metrics and logs go.
    pub telemetry: TelemetryConfig,
}

/// Addresses.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ListenConfig {
    /// `ext_authz` over gRPC.
    pub grpc: SocketAddr,
    /// Whether callers there must show a certificate of an enforcer in the policy. Without it they are on this machine.
    pub mtls: bool,
    /// The admin API over HTTP, with AuthZEN and forward auth.
    pub http: SocketAddr,
    /// How it speaks TLS. Clients may show a certificate, which then counts as the workload that it names; without this
    /// section it is for this machine alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http_tls: Option<DoorTls>,
    /// Whether the gRPC port tells tools what it speaks (gRPC reflection).
    pub reflection: bool,
}

impl Default for ListenConfig {
    fn default() -> Self {
        Self {
            grpc: SocketAddr::from(([127, 0, 0, 1], 7001)),
            mtls: false,
            http: SocketAddr::from(([127, 0, 0, 1], 7003)),
            http_tls: None,
            reflection: true,
        }
    }
}

/// The database.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DatabaseConfig {
    /// `sqlite://FILE` or `postgres://…`. It may hold a password, so it is never shown.
    pub url: Secret,
}

impl Default for DatabaseConfig {
    fn default() -> Self {
        Self { url: Secret::new("sqlite://data/authz.db") }
    }
}

/// Fetched keys.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KeysConfig {
    /// How old a key set may get before it is fetched again, where the issuer's Cache-Control says nothing.
    #[serde(with = "duration")]
    pub refresh: Duration,
    /// The least of that, however short the issuer says.
    #[serde(with = "duration")]
    pub refresh_floor: Duration,
    /// The most of that, however long the issuer says.
    #[serde(with = "duration")]
    pub refresh_ceiling: Duration,
    /// The least time between two fetches from one issuer, whatever tokens name.
    #[serde(with = "duration")]
    pub min_interval: Duration,
    /// How long keys are used while the issuer does not answer; then its tokens get 503.
    #[serde(with = "duration")]
    pub max_stale: Duration,
    /// Whether issuers may live at private, link-local or loopback addresses.
    pub allow_private_addresses: bool,
    /// Secrets that we share with issuers that sign with HMAC, by the name that the policy uses: each a JWK set as
    /// text, `{"keys": [{"kty": "oct", "kid": …, "k": …}]}`.
    pub shared_secrets: BTreeMap<String, Secret>,
}

impl Default for KeysConfig {
    fn default() -> Self {
        Self {
            refresh: Duration::from_secs(300),
            refresh_floor: Duration::from_secs(60),
            refresh_ceiling: Duration::from_secs(3600),
            min_interval: Duration::from_secs(10),
            max_stale: Duration::from_secs(24 * 3600),
            allow_private_addresses: false,
            shared_secrets: BTreeMap::new(),
        }
    }
}

/// Records of decisions: in memory, for `explain`. What is full makes room for what is new; refusals have room of
/// their own, so that no number of allows pushes one out.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DecisionsConfig {
    /// How many requests that passed are remembered; 0 for none.
    pub allowed_entries: usize,
    /// The memory for them.
    pub allowed_bytes: usize,
    /// How many refusals are remembered; 0 for none.
    pub refused_entries: usize,
    /// The memory for them.
    pub refused_bytes: usize,
}

impl Default for DecisionsConfig {
    fn default() -> Self {
        let mebibyte = 1024 * 1024;
        Self {
            allowed_entries: 16_384,
            allowed_bytes: 16 * mebibyte,
            refused_entries: 32_768,
            refused_bytes: 32 * mebibyte,
        }
    }
}

impl DecisionsConfig {
    pub(crate) fn bounds(&self) -> Bounds {
        Bounds {
            allows: Room { entries: self.allowed_entries, bytes: self.allowed_bytes },
            refusals: Room { entries: self.refused_entries, bytes: self.refused_bytes },
        }
    }

    fn check(&self) -> Result<(), Invalid> {
        let least = SHARDS * MAX_RECORD_BYTES;
        for (entries_key, entries, bytes_key, bytes) in [
            (
                "decisions.allowed_entries",
                self.allowed_entries,
                "decisions.allowed_bytes",
                self.allowed_bytes,
            ),
            (
                "decisions.refused_entries",
                self.refused_entries,
                "decisions.refused_bytes",
                self.refused_bytes,
            ),
        ] {
            if entries > 0 && entries < SHARDS {
                return Err(Invalid::new(
                    entries_key,
                    "is less than what is divided among the locks",
                    format!("0 for none, or at least {SHARDS}"),
                ));
            }
            if entries > 0 && bytes < least {
                return Err(Invalid::new(
                    bytes_key,
                    "cannot hold one large record for each lock",
                    format!("at least {least}"),
                ));
            }
        }
        Ok(())
    }
}

/// The one-use token that makes the first administrator.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BootstrapConfig {
    /// Where it is written while nobody administers; empty for nowhere.
    pub token_file: PathBuf,
}

impl Default for BootstrapConfig {
    fn default() -> Self {
        Self { token_file: PathBuf::from("data/bootstrap-admin.token") }
    }
}

impl ServiceConfig for Config {
    const NAME: &'static str = "authz";
    const ENV_SHORT: &'static [(&'static str, &'static str)] = &[("TOLLGATE_DATABASE_URL", "database.url")];

    fn process(&self) -> &ProcessConfig {
        &self.process
    }

    fn telemetry(&self) -> &TelemetryConfig {
        &self.telemetry
    }

    fn check(&self) -> Result<(), Invalid> {
        self.decisions.check()?;
        let is_nobody = self.identity.is_none() && self.ca.is_none();
        let remedy = "a section `identity` or `ca`";
        if self.listen.mtls && is_nobody {
            return Err(Invalid::new("listen.mtls", "there is no certificate to show", remedy));
        }
        if let Some(identity) = &self.identity {
            identity.check("identity")?;
        }
        if let Some(tls) = &self.listen.http_tls {
            tls.check("listen.http_tls", Clients::Optional, !is_nobody)?;
        }
        if self.telemetry.is_secure() && is_nobody {
            return Err(Invalid::new("telemetry.endpoint", "mTLS needs a certificate of our own", remedy));
        }
        if let Some(kubernetes) = self.ca.as_ref().and_then(|ca| ca.kubernetes.as_ref()) {
            kubernetes.check()?;
        }
        if self.ca.as_ref().is_some_and(|ca| ca.overlap < ca.leaf_life * 2) {
            return Err(Invalid::new(
                "ca.overlap",
                "is shorter than two lives of a certificate, so a root could sign before every workload trusts it",
                "at least twice ca.leaf_life",
            ));
        }
        let url = self.database.url.expose();
        if !["sqlite:", "postgres://", "postgresql://"].iter().any(|scheme| url.starts_with(scheme)) {
            return Err(Invalid::new(
                "database.url",
                "names no database that is supported",
                "sqlite://FILE or postgres://USER@HOST/DATABASE",
            ));
        }
        if !(self.keys.refresh_floor..=self.keys.refresh_ceiling).contains(&self.keys.refresh) {
            return Err(Invalid::new(
                "keys.refresh",
                "is not between keys.refresh_floor and keys.refresh_ceiling",
                "a time between the two",
            ));
        }
        if self.keys.max_stale < self.keys.refresh_ceiling {
            return Err(Invalid::new(
                "keys.max_stale",
                "is shorter than keys.refresh_ceiling, so keys would be too old before they are fetched again",
                "at least the value of keys.refresh_ceiling",
            ));
        }
        if let Err((name, problem)) = SharedSecrets::read(&self.keys.shared_secrets) {
            return Err(Invalid::new(
                format!("keys.shared_secrets.{name}"),
                problem,
                r#"a JWK set of secrets such as {"keys": [{"kty": "oct", "k": "…"}]}"#,
            ));
        }
        if self.keys.min_interval.is_zero() {
            return Err(Invalid::new(
                "keys.min_interval",
                "is 0, so every token with an invented key would cause a fetch",
                "a time such as 10s",
            ));
        }
        Ok(())
    }
}
