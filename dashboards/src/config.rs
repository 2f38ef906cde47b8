//! What an operator may set, with its default beside it. Every check that serde cannot do is here.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tollgate_identity::IdPattern;
use tollgate_identity::config::IdentityConfig;
use tollgate_identity::tls::{Clients, DoorTls};
use tollgate_runtime::config::{Invalid, ServiceConfig, duration};
use tollgate_runtime::process::ProcessConfig;
use tollgate_runtime::telemetry::TelemetryConfig;

/// The dashboard's configuration.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Live, ready, metrics.
    pub process: ProcessConfig,
    /// Where the dashboard's own telemetry goes; its own OTLP port is fine.
    pub telemetry: TelemetryConfig,
    /// Where the dashboard's own certificate comes from. With it reporters at `otlp.grpc` must show one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity: Option<IdentityConfig>,
    /// The page and its API.
    pub web: WebConfig,
    /// Where proxies and services report to.
    pub otlp: OtlpConfig,
    /// What is kept, where and for how long.
    pub store: StoreConfig,
}

/// The page and its API.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WebConfig {
    /// Address of the page.
    pub listen: SocketAddr,
    /// How it speaks TLS; without this it is for this machine alone. Browsers are asked for no certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<DoorTls>,
    /// Host names that requests may carry besides `localhost` and loopback addresses.
    pub hosts: Vec<String>,
    /// How long a session lasts.
    #[serde(with = "duration")]
    pub session: Duration,
    /// How long a one-click link works, if nobody uses it.
    #[serde(with = "duration")]
    pub login_link: Duration,
}

impl Default for WebConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 7080)),
            tls: None,
            hosts: Vec::new(),
            session: Duration::from_secs(12 * 3600),
            login_link: Duration::from_secs(3600),
        }
    }
}

/// Where proxies and services report to.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OtlpConfig {
    /// OTLP over gRPC.
    pub grpc: SocketAddr,
    /// OTLP over HTTP.
    pub http: SocketAddr,
    /// How `http` speaks TLS; without this it is for this machine alone. Reporters must show a certificate there unless
    /// `clients` says otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http_tls: Option<DoorTls>,
    /// Who may report by a certificate: SPIFFE ids, or patterns ending in `/*`. Everybody of our trust domain if none is
    /// named.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub callers: Vec<IdPattern>,
    /// The largest request taken, unpacked.
    pub max_request_bytes: usize,
    /// Bytes of requests that are on their way into the store; more is shed.
    pub max_inflight_bytes: usize,
    /// Requests that may wait to be committed; more is shed.
    pub queue: usize,
}

impl Default for OtlpConfig {
    fn default() -> Self {
        Self {
            grpc: SocketAddr::from(([127, 0, 0, 1], 4317)),
            http: SocketAddr::from(([127, 0, 0, 1], 4318)),
            http_tls: None,
            callers: Vec::new(),
            max_request_bytes: 8 * 1024 * 1024,
            max_inflight_bytes: 128 * 1024 * 1024,
            queue: 1024,
        }
    }
}

/// What an acknowledged record survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sync {
    /// The end of the process and the loss of power: the disk is asked to write before each acknowledgement.
    Full,
    /// The end of the process only.
    Normal,
}

/// What is kept, where and for how long.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StoreConfig {
    /// Folder of the day files and of `meta.db`.
    pub dir: PathBuf,
    /// What an acknowledged record survives.
    pub sync: Sync,
    /// Records in memory after which a block is written.
    pub seal_records: usize,
    /// Time after which a block is written, however small.
    #[serde(with = "duration")]
    pub seal_after: Duration,
    /// Days that records are kept.
    pub keep_days: u32,
    /// Bytes on disk after which the oldest day goes early.
    pub max_bytes: u64,
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self {
            dir: PathBuf::from("data/telemetry"),
            sync: Sync::Full,
            seal_records: 8192,
            seal_after: Duration::from_secs(5),
            keep_days: 7,
            max_bytes: 20 * 1024 * 1024 * 1024,
        }
    }
}

impl ServiceConfig for Config {
    const NAME: &'static str = "dashboard";

    fn process(&self) -> &ProcessConfig {
        &self.process
    }

    fn telemetry(&self) -> &TelemetryConfig {
        &self.telemetry
    }

    fn check(&self) -> Result<(), Invalid> {
        if let Some(identity) = &self.identity {
            identity.check("identity")?;
        }
        if self.telemetry.is_secure() && self.identity.is_none() {
            let problem = "mTLS needs a certificate of our own";
            return Err(Invalid::new("telemetry.endpoint", problem, "a section `identity`"));
        }
        for (key, tls, clients) in [
            ("web.tls", &self.web.tls, Clients::None),
            ("otlp.http_tls", &self.otlp.http_tls, Clients::Required),
        ] {
            if let Some(tls) = tls {
                tls.check(key, clients, self.identity.is_some())?;
            }
        }
        let within = |key: &str, value: u128, low: u128, high: u128, remedy: &str| {
            if (low..=high).contains(&value) {
                return Ok(());
            }
            Err(Invalid::new(key, format!("{value} is out of range"), remedy))
        };
        within(
            "otlp.max_request_bytes",
            self.otlp.max_request_bytes as u128,
            1024,
            1 << 28,
            "1024 to 268435456",
        )?;
        within(
            "otlp.max_inflight_bytes",
            self.otlp.max_inflight_bytes as u128,
            self.otlp.max_request_bytes as u128,
            1 << 36,
            "at least otlp.max_request_bytes",
        )?;
        within("otlp.queue", self.otlp.queue as u128, 1, 1 << 16, "1 to 65536")?;
        within("store.seal_records", self.store.seal_records as u128, 1, 1 << 16, "1 to 65536")?;
        within("store.seal_after", self.store.seal_after.as_millis(), 10, 600_000, "10ms to 10m")?;
        within("store.keep_days", u128::from(self.store.keep_days), 1, 3650, "1 to 3650")?;
        within("web.session", self.web.session.as_millis(), 60_000, 30 * 86_400_000, "1m to 30d")?;
        within("web.login_link", self.web.login_link.as_millis(), 1_000, 86_400_000, "1s to 1d")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tollgate_runtime::config::{Env, load};

    #[test]
    fn the_example_is_the_default() {
        let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/dashboard.yaml");
        let example = load::<Config>(&file, &[], &Env::default()).unwrap().config;
        let mut expected = Config::default();
        expected.process.listen = Some(SocketAddr::from(([127, 0, 0, 1], 7100)));
        let json = |config: &Config| serde_json::to_value(config).unwrap();
        assert_eq!(json(&example), json(&expected));
    }

    #[test]
    fn bad_values_name_their_key() {
        let mut config = Config::default();
        config.store.keep_days = 0;
        assert_eq!(config.check().unwrap_err().key, "store.keep_days");
        let mut config = Config::default();
        config.otlp.max_inflight_bytes = 1;
        assert_eq!(config.check().unwrap_err().key, "otlp.max_inflight_bytes");
    }
}
