//! What parses but cannot be used, of transparent listeners and of what they lead to.

use std::net::{IpAddr, SocketAddr};

use tollgate_identity::pki_types::ServerName;
use tollgate_runtime::config::Invalid;

use super::check_route::known;
use super::{Config, Endpoints, ListenerConfig, Mtls, OriginalDestination, Role};

/// Of a listener, its clusters aside.
pub(super) fn listener(
    config: &Config,
    listener: &ListenerConfig,
    key: &impl Fn(&str) -> String,
) -> Result<(), Invalid> {
    if !listener.transparent {
        return match listener.destinations.is_empty() {
            true => Ok(()),
            false => {
                let problem = "only of what was redirected it is known where it was going";
                Err(Invalid::new(key("destinations"), problem, "`transparent: true`, or `tcp`"))
            }
        };
    }
    if !matches!(listener.role, Role::Sidecar | Role::Outbound) {
        let problem = "nothing is redirected to a gateway";
        return Err(Invalid::new(key("transparent"), problem, "`role: sidecar` or `role: outbound`"));
    }
    if listener.proxy_protocol.is_some() {
        let problem = "the system says where a connection was going, so nobody else may";
        return Err(Invalid::new(key("proxy_protocol"), problem, "a listener of its own"));
    }
    if listener.tcp.is_some() && (listener.role == Role::Outbound || !listener.destinations.is_empty()) {
        let problem = "it takes every connection, wherever it was going";
        return Err(Invalid::new(key("tcp"), problem, "`destinations`"));
    }
    if listener.mtls == Mtls::Permissive && !listener.destinations.is_empty() {
        let problem = "who speaks first is not known, so TLS cannot be told from what is none";
        return Err(Invalid::new(key("mtls"), problem, "`strict` or `off`"));
    }
    for (index, one) in listener.destinations.iter().enumerate() {
        let at = |name: &str| key(&format!("destinations[{index}].{name}"));
        super::check::carried(config, &one.tcp, &at("tcp"))?;
        if one.ports.contains(&0) {
            return Err(Invalid::new(at("ports"), "0 is no port", "a port such as 5432"));
        }
        for name in &one.server_names {
            let bare = name.strip_prefix("*.").unwrap_or(name);
            let is_name = ServerName::try_from(bare).is_ok_and(|name| matches!(name, ServerName::DnsName(_)));
            if !is_name || name.bytes().any(|byte| byte.is_ascii_uppercase()) {
                let problem = format!("`{name}` is no name of a server");
                let remedy = "small letters, such as api.example.org or *.example.org";
                return Err(Invalid::new(at("server_names"), problem, remedy));
            }
        }
        if !one.server_names.is_empty() && (listener.role == Role::Sidecar || listener.speaks_tls()) {
            let problem = "what comes in speaks TLS with this proxy itself";
            return Err(Invalid::new(
                at("server_names"),
                problem,
                "`role: outbound` without TLS, or `ports`",
            ));
        }
        if listener.role == Role::Sidecar && (!one.networks.is_empty() || one.ports.is_empty()) {
            let problem = "what comes in was going to this workload, whatever it is called";
            return Err(Invalid::new(at("networks"), problem, "`ports` alone"));
        }
    }
    Ok(())
}

/// Of a cluster of the workload beside the proxy.
pub(super) fn original(original: &OriginalDestination, key: &str) -> Result<(), Invalid> {
    let problem = |name: &str, problem: String, remedy: &str| {
        Err(Invalid::new(format!("{key}.endpoints.original_destination.{name}"), problem, remedy))
    };
    if original.ports.is_empty() {
        return problem("ports", "there are none".to_owned(), "the ports of the app, such as [8080]");
    }
    for (index, port) in original.ports.iter().enumerate() {
        if *port == 0 || original.ports[..index].contains(port) {
            let what = if *port == 0 { "0 is no port".to_owned() } else { format!("{port} stands twice") };
            return problem("ports", what, "each port once, such as [8080, 9090]");
        }
    }
    let is_usable = match original.address {
        address if address.is_loopback() => true,
        IpAddr::V4(address) => {
            !address.is_unspecified() && !address.is_multicast() && !address.is_broadcast()
        }
        IpAddr::V6(_) => false,
    };
    match is_usable {
        true => Ok(()),
        false => problem(
            "address",
            format!("{} cannot be the workload's", original.address),
            "127.0.0.1, ::1, or the IPv4 address of this machine",
        ),
    }
}

/// Who leads where: the workload beside the proxy is for what comes in, and nothing leads back to a transparent listener.
pub(super) fn ways(config: &Config) -> Result<(), Invalid> {
    for (index, route) in config.routes.iter().enumerate() {
        let at = format!("routes[{index}]");
        let is_for = |one: &&ListenerConfig| {
            one.tcp.is_none() && (route.listeners.is_empty() || route.listeners.contains(&one.name))
        };
        for (number, backend) in route.backends.iter().enumerate() {
            for listener in config.listeners.iter().filter(is_for) {
                may_lead(config, listener, &backend.cluster, format!("{at}.backends[{number}].cluster"))?;
            }
        }
        let copies = route.request_mirror.as_ref().filter(|mirror| is_original(config, &mirror.cluster));
        if copies.is_some() {
            let problem = "a copy was not going anywhere";
            let remedy = "a cluster with endpoints of its own";
            return Err(Invalid::new(format!("{at}.request_mirror.cluster"), problem, remedy));
        }
    }
    for (index, listener) in config.listeners.iter().enumerate() {
        let at = format!("listeners[{index}]");
        if let Some(tcp) = &listener.tcp {
            may_lead(config, listener, &tcp.cluster, format!("{at}.tcp.cluster"))?;
        }
        for (number, one) in listener.destinations.iter().enumerate() {
            let key = format!("{at}.destinations[{number}].tcp.cluster");
            known(config, &one.tcp.cluster, &key)?;
            may_lead(config, listener, &one.tcp.cluster, key)?;
        }
    }
    back(config)
}

fn is_original(config: &Config, cluster: &str) -> bool {
    let named = config.clusters.iter().find(|one| one.name == cluster);
    named.is_some_and(|one| matches!(one.endpoints, Endpoints::OriginalDestination(_)))
}

fn may_lead(config: &Config, listener: &ListenerConfig, cluster: &str, key: String) -> Result<(), Invalid> {
    if !is_original(config, cluster) || listener.transparent && listener.role == Role::Sidecar {
        return Ok(());
    }
    Err(Invalid::new(
        key,
        format!(
            "`{cluster}` is what a client wanted of this workload, which listener `{}` does not know",
            listener.name
        ),
        "`transparent: true` and `role: sidecar` of the listener, or a cluster with endpoints of its own",
    ))
}

/// An endpoint that is a transparent listener of this very proxy would refuse whatever comes.
fn back(config: &Config) -> Result<(), Invalid> {
    for (index, cluster) in config.clusters.iter().enumerate() {
        let (name, endpoints): (_, Vec<SocketAddr>) = match &cluster.endpoints {
            Endpoints::Static(fixed) => ("static", fixed.iter().map(super::Endpoint::address).collect()),
            Endpoints::OriginalDestination(original) => {
                let at = |port: &u16| SocketAddr::new(original.address, *port);
                ("original_destination.ports", original.ports.iter().map(at).collect())
            }
            Endpoints::Dns(_) | Endpoints::File(_) | Endpoints::EndpointSlices(_) => continue,
        };
        for listener in config.listeners.iter().filter(|listener| listener.transparent) {
            let leads_back = |endpoint: &&SocketAddr| {
                let (to, own) = (endpoint.ip().to_canonical(), listener.bind.ip().to_canonical());
                listener.bind.port() == endpoint.port()
                    && (to == own || own.is_unspecified() && to.is_loopback())
            };
            if let Some(endpoint) = endpoints.iter().find(leads_back) {
                return Err(Invalid::new(
                    format!("clusters[{index}].endpoints.{name}"),
                    format!("{endpoint} leads back to listener `{}`", listener.name),
                    "the address of an app or of another proxy",
                ));
            }
        }
    }
    Ok(())
}
