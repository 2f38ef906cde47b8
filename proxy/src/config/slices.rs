//! Endpoints that Kubernetes tells of.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tollgate_runtime::config::Invalid;

/// The pods of a Service in Kubernetes, as its EndpointSlices tell. Only with the feature `kubernetes`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EndpointSlices {
    /// The Service.
    pub service: String,
    /// Its namespace; without one ours, which a file `namespace` beside the token says, or the kubeconfig's context.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// The pods' port: what the Service calls it, or its number at the pods.
    pub port: SlicePort,
    /// Addresses of this family alone; without it, of both.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address_type: Option<AddressType>,
    /// The cluster's API.
    #[serde(default = "api")]
    pub api: String,
    /// The roots that the API's certificate is believed by. Read anew every minute.
    #[serde(default = "ca_file")]
    pub ca_file: PathBuf,
    /// The token of our service account, which must be allowed to list and watch `endpointslices`. Read anew every minute.
    #[serde(default = "token_file")]
    pub token_file: PathBuf,
    /// In place of these three, for a proxy outside the cluster: a file as `kubectl` has it, with a token or a certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kubeconfig: Option<PathBuf>,
}

/// A port by its name or number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "the number of a port at the pods, or its name in the Service")]
pub enum SlicePort {
    /// Its number at the pods.
    Number(u16),
    /// What the Service calls it; empty, its only one, which has no name.
    Name(String),
}

/// A family of addresses, as EndpointSlices name them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum AddressType {
    /// IPv4
    #[serde(rename = "IPv4")]
    V4,
    /// IPv6
    #[serde(rename = "IPv6")]
    V6,
}

impl EndpointSlices {
    /// `key` is its own; `built` says whether this proxy has what it takes.
    pub(super) fn check(&self, key: &str, built: bool) -> Result<(), Invalid> {
        let wrong = |name: &str, problem: String, remedy: &str| {
            Err(Invalid::new(format!("{key}.{name}"), problem, remedy))
        };
        if !built {
            return Err(Invalid::new(
                key,
                "this build has no client for the API of Kubernetes",
                "one made with `cargo build --features kubernetes`, or endpoints by `dns` (a headless Service) or `file`",
            ));
        }
        // Both become parts of what the API is asked.
        if !is_label(&self.service) {
            return wrong(
                "service",
                format!("`{}` is no name of a Service", self.service),
                "a name such as orders",
            );
        }
        if let Some(namespace) = self.namespace.as_ref().filter(|name| !is_label(name)) {
            return wrong(
                "namespace",
                format!("`{namespace}` is no name of a namespace"),
                "a name such as shop",
            );
        }
        match &self.port {
            SlicePort::Number(0) => {
                return wrong("port", "0 is no port".to_owned(), "a number such as 8080, or a name");
            }
            SlicePort::Name(name) if !(name.is_empty() || is_label(name)) => {
                return wrong(
                    "port",
                    format!("`{name}` is no name of a port"),
                    "a name such as http, or a number",
                );
            }
            SlicePort::Number(_) | SlicePort::Name(_) => {}
        }
        let given = [
            ("api", self.api != api()),
            ("ca_file", self.ca_file != ca_file()),
            ("token_file", self.token_file != token_file()),
        ];
        if self.kubeconfig.is_some()
            && let Some((name, _)) = given.iter().find(|(_, given)| *given)
        {
            return wrong(name, "the kubeconfig says it".to_owned(), "either of the two");
        }
        let secure = self.api.parse::<http::Uri>().is_ok_and(|uri| uri.scheme_str() == Some("https"));
        if !secure {
            let problem = format!("`{}` is no address by HTTPS, and a token is shown to it", self.api);
            return wrong("api", problem, "https://kubernetes.default.svc");
        }
        Ok(())
    }
}

/// Whether Kubernetes lets a Service, a namespace or a port be called so (RFC 1123): small letters, digits and dashes between them.
fn is_label(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let ends_well = |byte: Option<u8>| byte.is_some_and(plain);
    text.len() <= 63
        && ends_well(text.bytes().next())
        && ends_well(text.bytes().next_back())
        && text.bytes().all(|byte| plain(byte) || byte == b'-')
}

impl std::fmt::Display for SlicePort {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Name(name) => name.fmt(f),
        }
    }
}

fn api() -> String {
    "https://kubernetes.default.svc".to_owned()
}

fn ca_file() -> PathBuf {
    mounted("ca.crt")
}

fn token_file() -> PathBuf {
    mounted("token")
}

fn mounted(name: &str) -> PathBuf {
    PathBuf::from("/var/run/secrets/kubernetes.io/serviceaccount").join(name)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn checked(keys: serde_json::Value, built: bool) -> Result<(), String> {
        let mut all = json!({"service": "orders", "port": "http"});
        for (key, value) in keys.as_object().unwrap() {
            all[key] = value.clone();
        }
        let config: EndpointSlices = serde_json::from_value(all).unwrap();
        config.check("k", built).map_err(|invalid| format!("{}: {}", invalid.key, invalid.problem))
    }

    #[test]
    fn what_can_be_asked_for() {
        for keys in [
            json!({}),
            json!({"port": 8080, "namespace": "shop"}),
            json!({"port": "", "address_type": "IPv6"}),
            json!({"kubeconfig": "/root/.kube/config"}),
            json!({"api": "https://10.0.0.1:6443", "ca_file": "ca.crt", "token_file": "token"}),
        ] {
            assert_eq!(checked(keys.clone(), true), Ok(()), "{keys}");
        }
    }

    #[test]
    fn mistakes_are_named_by_their_key() {
        for (keys, expected) in [
            (json!({"service": "orders,payments"}), "k.service: `orders,payments` is no name"),
            (json!({"service": ""}), "k.service: "),
            (json!({"service": "x".repeat(64)}), "k.service: "),
            (json!({"namespace": "../kube-system"}), "k.namespace: `../kube-system` is no name"),
            (json!({"namespace": "-shop"}), "k.namespace: "),
            (json!({"port": 0}), "k.port: 0 is no port"),
            (json!({"port": "HTTP"}), "k.port: `HTTP` is no name of a port"),
            (
                json!({"api": "http://127.0.0.1:8001"}),
                "k.api: `http://127.0.0.1:8001` is no address by HTTPS",
            ),
            (json!({"api": "kubernetes.default.svc"}), "k.api: "),
            (json!({"kubeconfig": "a", "token_file": "b"}), "k.token_file: the kubeconfig says it"),
        ] {
            let said = checked(keys.clone(), true).unwrap_err();
            assert!(said.starts_with(expected), "{keys}: {said}");
        }
    }

    #[test]
    fn a_build_without_a_client_says_so_first() {
        let said = checked(json!({"service": ""}), false).unwrap_err();
        assert_eq!(said, "k: this build has no client for the API of Kubernetes");
        let config: EndpointSlices = serde_json::from_value(json!({"service": "a", "port": 1})).unwrap();
        assert!(config.check("k", false).unwrap_err().remedy.contains("--features kubernetes"));
    }
}
