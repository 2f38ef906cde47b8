//! Who is at the other end of a connection, and by whose word.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};
use tollgate_identity::IdPattern;
pub use tollgate_identity::tls::{MinimumVersion, ServerCertificate};

use super::words::one_of;

/// Whether the other side shows a certificate.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mtls {
    /// Nobody without a certificate that we believe.
    Strict,
    /// With a certificate, without one, or in plaintext: for the time of moving in.
    Permissive,
    /// None is asked for. Without a section `tls` the listener speaks plaintext.
    #[default]
    Off,
}

impl<'de> Deserialize<'de> for Mtls {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        one_of(deserializer, [("strict", Self::Strict), ("permissive", Self::Permissive), ("off", Self::Off)])
    }
}

/// How a listener speaks TLS.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ListenerTls {
    /// The oldest version that is spoken: `"1.3"` or `"1.2"`.
    pub min_version: MinimumVersion,
    /// Certificates by server name. Where none fits, the proxy's own is shown.
    pub certificates: Vec<ServerCertificate>,
}

/// How a cluster's endpoints are spoken to. With `spiffe_ids` they are workloads and both sides prove who they are;
/// with `server_name` they are servers known by that name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ClusterTls {
    /// Who may answer: ids such as `spiffe://example.org/ns/shop/sa/cart`, or `spiffe://example.org/ns/shop/*`.
    pub spiffe_ids: Vec<IdPattern>,
    /// The name that the server must prove, and that it is told (SNI).
    pub server_name: Option<String>,
    /// Who signs for such a server: a file of roots; the system's if not given.
    pub ca: Option<PathBuf>,
    /// Names of which the server's certificate must hold one as well.
    pub subject_names: Vec<String>,
    /// Whether to show our own certificate to such a server.
    pub present_identity: bool,
    /// The oldest version that is spoken: `"1.3"` or `"1.2"`.
    pub min_version: MinimumVersion,
}

impl ClusterTls {
    /// Where Debian and its like keep the roots that the system believes.
    pub const SYSTEM_ROOTS: &'static str = "/etc/ssl/certs/ca-certificates.crt";

    /// The file with the roots of servers.
    pub fn roots(&self) -> PathBuf {
        self.ca.clone().unwrap_or_else(|| PathBuf::from(Self::SYSTEM_ROOTS))
    }
}
