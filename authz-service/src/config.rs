//! What an operator may set, and the only place that checks it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tollgate_runtime::config::{Invalid, Secret, ServiceConfig, duration};
use tollgate_runtime::process::ProcessConfig;
use tollgate_runtime::telemetry::TelemetryConfig;

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
    /// The admin API over HTTP.
    pub http: SocketAddr,
}

impl Default for ListenConfig {
    fn default() -> Self {
        Self {
            grpc: SocketAddr::from(([127, 0, 0, 1], 7001)),
            http: SocketAddr::from(([127, 0, 0, 1], 7003)),
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
    /// How old a key set may get before it is fetched again.
    #[serde(with = "duration")]
    pub refresh: Duration,
    /// The least time between two fetches from one issuer, whatever tokens name.
    #[serde(with = "duration")]
    pub min_interval: Duration,
    /// How long keys are used while the issuer does not answer; then its tokens get 503.
    #[serde(with = "duration")]
    pub max_stale: Duration,
    /// Whether issuers may live at private, link-local or loopback addresses.
    pub allow_private_addresses: bool,
}

impl Default for KeysConfig {
    fn default() -> Self {
        Self {
            refresh: Duration::from_secs(300),
            min_interval: Duration::from_secs(10),
            max_stale: Duration::from_secs(24 * 3600),
            allow_private_addresses: false,
        }
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
        let url = self.database.url.expose();
        if !["sqlite:", "postgres://", "postgresql://"].iter().any(|scheme| url.starts_with(scheme)) {
            return Err(Invalid::new(
                "database.url",
                "names no database that is supported",
                "sqlite://FILE or postgres://USER@HOST/DATABASE",
            ));
        }
        if self.keys.max_stale < self.keys.refresh {
            return Err(Invalid::new(
                "keys.max_stale",
                "is shorter than keys.refresh, so keys would be too old before they are fetched again",
                "at least the value of keys.refresh",
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
