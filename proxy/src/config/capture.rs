//! Connections that were on their way to somebody else when they were redirected to a transparent listener.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::tcp::TcpConfig;
use super::trust::Network;

/// Where captured connections of bytes go. Where they were going chooses among what is listed, and is itself never dialled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Destination {
    /// The servers that their TLS asks for (SNI), which is neither opened nor checked here: names such as `api.example.org`
    /// or `*.example.org`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub server_names: Vec<String>,
    /// Where they were going: ranges such as `10.0.5.0/24`, or single addresses. Any, if there are only `ports` or
    /// `server_names`; with none of the three, one of the cluster's endpoints.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub networks: Vec<Network>,
    /// The ports there. Any, if there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<u16>,
    /// Which cluster their bytes are carried to, and who may open one.
    pub tcp: TcpConfig,
}

impl Destination {
    /// Whether it names addresses itself, and not by its cluster.
    pub fn names_addresses(&self) -> bool {
        !self.networks.is_empty() || !self.ports.is_empty()
    }

    /// Whether it is for whatever was going to this address.
    pub fn names(&self, wanted: SocketAddr) -> bool {
        self.server_names.is_empty() && self.names_addresses() && self.is_there(wanted)
    }

    /// Whether it is for TLS that asks for this server, in small letters.
    pub fn names_server(&self, name: &str, wanted: SocketAddr) -> bool {
        let is_it = |one: &String| match one.strip_prefix('*') {
            Some(domain) => name.len() > domain.len() && name.ends_with(domain),
            None => one == name,
        };
        self.server_names.iter().any(is_it) && self.is_there(wanted)
    }

    fn is_there(&self, wanted: SocketAddr) -> bool {
        let in_networks =
            self.networks.is_empty() || self.networks.iter().any(|network| network.contains(wanted.ip()));
        in_networks && (self.ports.is_empty() || self.ports.contains(&wanted.port()))
    }
}

/// The workload beside this sidecar, at the port that the client wanted. The port comes from the connection, the address
/// never does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OriginalDestination {
    /// The ports that are open to others. All else is refused.
    pub ports: Vec<u16>,
    /// Where the workload is. Loopback, unless it listens on its machine's own address alone (IPv4).
    #[serde(default = "loopback")]
    pub address: IpAddr,
}

fn loopback() -> IpAddr {
    Ipv4Addr::LOCALHOST.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_destination_names_networks_ports_or_both() {
        let tcp: TcpConfig = serde_json::from_str(r#"{"cluster": "c"}"#).unwrap();
        let destination = |networks: &[&str], ports: &[u16]| Destination {
            server_names: Vec::new(),
            networks: networks.iter().map(|network| network.parse().unwrap()).collect(),
            ports: ports.to_vec(),
            tcp: tcp.clone(),
        };
        for (one, wanted, expected) in [
            (destination(&["10.0.5.0/24"], &[5432]), "10.0.5.9:5432", true),
            (destination(&["10.0.5.0/24"], &[5432]), "10.0.5.9:5433", false),
            (destination(&["10.0.5.0/24"], &[5432]), "10.0.6.9:5432", false),
            (destination(&["10.0.5.0/24", "fd00::/8"], &[]), "[fd00::1]:1", true),
            (destination(&[], &[25]), "192.0.2.1:25", true),
            (destination(&[], &[]), "192.0.2.1:25", false),
        ] {
            assert_eq!(one.names(wanted.parse().unwrap()), expected, "{one:?} {wanted}");
        }
        let mut by_name = destination(&[], &[443]);
        by_name.server_names = vec!["api.test".to_owned(), "*.cdn.test".to_owned()];
        for (name, wanted, expected) in [
            ("api.test", "192.0.2.1:443", true),
            ("api.test", "192.0.2.1:444", false),
            ("an.api.test", "192.0.2.1:443", false),
            ("a.b.cdn.test", "192.0.2.1:443", true),
            ("cdn.test", "192.0.2.1:443", false),
            (".cdn.test", "192.0.2.1:443", false),
            ("evilcdn.test", "192.0.2.1:443", false),
        ] {
            let wanted = wanted.parse().unwrap();
            assert_eq!(by_name.names_server(name, wanted), expected, "{name} {wanted}");
            assert!(!by_name.names(wanted), "a name that nobody has heard is no name");
        }
    }
}
