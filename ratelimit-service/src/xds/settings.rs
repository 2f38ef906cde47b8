//! Where limits come from when they come from an xDS server; the reference's `CONFIG_GRPC_XDS_*`.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tollgate_runtime::config::{Invalid, duration};

/// An xDS server that has the limits, such as Envoy Gateway's.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct XdsConfig {
    /// Its address: `http://127.0.0.1:18000`, or `https://` with `tls.ca`.
    pub address: String,
    /// The node id, by which the server knows what to send.
    #[serde(default = "default_node")]
    pub node_id: String,
    /// Which stream is opened; the messages are the same.
    #[serde(default)]
    pub stream: XdsStream,
    /// How long to wait before a broken stream is opened again; the wait doubles up to ten times this.
    #[serde(default = "three_seconds", with = "duration")]
    pub retry_interval: Duration,
    /// Certificates.
    #[serde(default)]
    pub tls: XdsTlsConfig,
}

/// Which stream is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum XdsStream {
    /// `AggregatedDiscoveryService/StreamAggregatedResources`, as the reference does.
    #[default]
    Aggregated,
    /// `RateLimitConfigDiscoveryService/StreamRlsConfigs`.
    RlsConfigs,
}

/// Certificates, as PEM files; read anew for each connection.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct XdsTlsConfig {
    /// Who is trusted.
    pub ca: Option<PathBuf>,
    /// Our certificate.
    pub cert: Option<PathBuf>,
    /// Its key.
    pub key: Option<PathBuf>,
    /// The name that the server's certificate must have; the address's host unless set.
    pub server_name: Option<String>,
}

fn default_node() -> String {
    "default".to_owned()
}

fn three_seconds() -> Duration {
    Duration::from_secs(3)
}

impl XdsConfig {
    /// Names what cannot work.
    pub fn check(&self) -> Result<(), Invalid> {
        let flaw = |key: &str, problem: String, remedy: &str| {
            Err(Invalid::new(format!("limits.xds.{key}"), problem, remedy))
        };
        let uri = self.address.parse::<http::Uri>().ok();
        let scheme = uri.as_ref().filter(|uri| uri.host().is_some()).and_then(http::Uri::scheme_str);
        match scheme {
            Some("http") if self.tls.ca.is_some() => {
                return flaw(
                    "tls",
                    "has files, and the address is without TLS".to_owned(),
                    "an https:// address",
                );
            }
            Some("https") if self.tls.ca.is_none() => {
                return flaw("tls.ca", "is missing".to_owned(), "a PEM file with who is trusted");
            }
            Some("http" | "https") => {}
            _ => {
                let problem = format!("`{}` is not a gRPC address", self.address);
                return flaw("address", problem, "a URL such as http://127.0.0.1:18000");
            }
        }
        if self.tls.cert.is_some() != self.tls.key.is_some() {
            return flaw("tls", "has one of certificate and key".to_owned(), "`cert` and `key`, or neither");
        }
        if !(Duration::from_millis(10)..=Duration::from_secs(60)).contains(&self.retry_interval) {
            let problem = format!("is {}", duration::format(self.retry_interval));
            return flaw("retry_interval", problem, "10ms to 1m");
        }
        Ok(())
    }
}
