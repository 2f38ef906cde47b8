//! What parses but cannot be used: references, doubles, ranges.

use rustc_hash::FxHashSet;
use tollgate_runtime::config::Invalid;

use super::{AuthzMode, Config, ListenerConfig, Mtls, Role, RouteConfig, TcpConfig};
use crate::route::Table;

pub(super) fn check(config: &Config) -> Result<(), Invalid> {
    listeners(config)?;
    services(config)?;
    if let Some(identity) = &config.identity {
        identity.check("identity")?;
    }
    if config.telemetry.is_secure() && config.identity.is_none() {
        let problem = "mTLS needs a certificate of our own";
        return Err(Invalid::new("telemetry.endpoint", problem, "a section `identity`"));
    }
    super::check_cluster::check(config)?;
    super::check_capture::ways(config)?;
    super::limit::check(config)?;
    config.overload.check()?;
    unique(config.routes.iter().map(|route| route.name.as_str()), "routes")?;
    for (index, route) in config.routes.iter().enumerate() {
        super::check_route::check(config, route, &format!("routes[{index}]"))?;
        somebody_to_ask(config, route, &format!("routes[{index}]"))?;
    }
    Table::compile(&config.routes).map(drop)
}

fn listeners(config: &Config) -> Result<(), Invalid> {
    if config.listeners.is_empty() {
        return Err(Invalid::new("listeners", "there are none", "at least one listener"));
    }
    unique(config.listeners.iter().map(|listener| listener.name.as_str()), "listeners")?;
    for (index, listener) in config.listeners.iter().enumerate() {
        let key = |name: &str| format!("listeners[{index}].{name}");
        listener_tls(config, listener, &key)?;
        if let Some(tcp) = &listener.tcp {
            listener_tcp(config, listener, tcp, &key)?;
        }
        super::check_capture::listener(config, listener, &key)?;
        if !listener.bind.ip().is_loopback() && !listener.speaks_tls() {
            return Err(Invalid::new(
                key("bind"),
                format!("{} is reachable from outside and the listener has no TLS", listener.bind),
                "a loopback address such as 127.0.0.1:8080, or `mtls: strict`",
            ));
        }
        trust(listener, &key)?;
        let limits = &listener.limits;
        // hyper needs room for one read beside the head.
        for (name, value, least) in [
            ("limits.header_bytes", limits.header_bytes, 8 << 10),
            ("limits.headers", limits.headers, 16),
            ("limits.max_connections", limits.max_connections, 1),
            ("limits.handshakes", limits.handshakes, 1),
            ("limits.streams", limits.streams as usize, 1),
            (
                "limits.requests_per_connection",
                usize::try_from(limits.requests_per_connection).unwrap_or(usize::MAX),
                1,
            ),
            ("limits.buffered_bytes", limits.buffered_bytes, 16 << 10),
        ] {
            if value < least {
                return Err(Invalid::new(
                    key(name),
                    format!("{value} is too small"),
                    format!("{least} or more"),
                ));
            }
        }
        for (name, value) in [
            ("limits.head_timeout", limits.head_timeout),
            ("limits.idle_timeout", limits.idle_timeout),
            ("limits.body_timeout", limits.body_timeout),
            ("limits.send_timeout", limits.send_timeout),
        ] {
            if value.is_zero() {
                return Err(Invalid::new(key(name), "no time at all", "a duration such as 10s"));
            }
        }
    }
    Ok(())
}

fn trust(listener: &ListenerConfig, key: &impl Fn(&str) -> String) -> Result<(), Invalid> {
    if listener.proxy_protocol.as_ref().is_some_and(|one| one.from.is_empty()) {
        let remedy = "the addresses of the load balancers, such as 10.0.0.0/8";
        return Err(Invalid::new(key("proxy_protocol.from"), "nobody says it", remedy));
    }
    if listener.trusted.is_some() && listener.role != Role::Ingress {
        let problem = "only an ingress has clients behind proxies that are not ours";
        return Err(Invalid::new(key("trusted"), problem, "`role: ingress`"));
    }
    Ok(())
}

fn listener_tls(
    config: &Config,
    listener: &ListenerConfig,
    key: &impl Fn(&str) -> String,
) -> Result<(), Invalid> {
    let has_identity = config.identity.is_some();
    let certificates = listener.tls.as_ref().map_or(&[][..], |tls| &tls.certificates);
    if listener.speaks_tls() && !has_identity && certificates.is_empty() {
        return Err(Invalid::new(
            key(if listener.tls.is_some() { "tls" } else { "mtls" }),
            "there is no certificate to show",
            "a section `identity`, or `tls.certificates`",
        ));
    }
    if listener.mtls != Mtls::Off && !has_identity && listener.client_ca.is_none() {
        return Err(Invalid::new(
            key("mtls"),
            "nobody says whose certificates to believe",
            "a section `identity`, or `client_ca`",
        ));
    }
    if listener.client_ca.is_some() && listener.mtls == Mtls::Off {
        return Err(Invalid::new(
            key("client_ca"),
            "no client is asked for a certificate",
            "`mtls: strict` or `permissive` beside it",
        ));
    }
    Ok(())
}

fn listener_tcp(
    config: &Config,
    listener: &ListenerConfig,
    tcp: &TcpConfig,
    key: &impl Fn(&str) -> String,
) -> Result<(), Invalid> {
    carried(config, tcp, &key("tcp"))?;
    if listener.mtls == Mtls::Permissive {
        let problem = "who speaks first is not known, so TLS cannot be told from what is none";
        return Err(Invalid::new(key("mtls"), problem, "`strict` or `off`"));
    }
    if listener.limit_by_address.is_some() || !listener.local_limits.is_empty() {
        let name = if listener.limit_by_address.is_some() { "limit_by_address" } else { "local_limits" };
        let problem = "it counts requests, and bytes are none";
        return Err(Invalid::new(key(name), problem, "`connection_limit`, or `limits.max_connections`"));
    }
    Ok(())
}

/// Where bytes go, and who says that they may.
pub(super) fn carried(config: &Config, tcp: &TcpConfig, key: &str) -> Result<(), Invalid> {
    super::check_route::known(config, &tcp.cluster, &format!("{key}.cluster"))?;
    if tcp.authz.mode == AuthzMode::On && config.authz.is_none() {
        let problem = "nobody is asked whether a connection may be";
        let remedy = "a section `authz` with an address, or `authz: off` where anyone may connect";
        return Err(Invalid::new(key, problem, remedy));
    }
    if tcp.authz.guard.is_some() {
        return Err(Invalid::new(format!("{key}.authz.guard"), "a connection has no path", "no `guard`"));
    }
    if tcp.max_duration.is_some_and(|most| most.is_zero()) {
        let key = format!("{key}.max_duration");
        return Err(Invalid::new(key, "no time at all", "a duration such as 8h"));
    }
    Ok(())
}

/// What a route wants asked must have somebody to answer it: a forgotten section must not open the door.
fn somebody_to_ask(config: &Config, route: &RouteConfig, at: &str) -> Result<(), Invalid> {
    let is_ingress = |listener: &ListenerConfig| listener.role == Role::Ingress && listener.tcp.is_none();
    if config.listeners.iter().any(is_ingress) && config.authz.is_none() && route.authz.mode == AuthzMode::On
    {
        return Err(Invalid::new(
            at,
            format!("`{}` enters by an ingress and nobody is asked whether it may", route.name),
            "a section `authz` with an address, or `authz: off` on a route that is open to anyone",
        ));
    }
    if config.rate_limit.is_none() && !route.descriptors.is_empty() {
        return Err(Invalid::new(
            format!("{at}.descriptors"),
            "nobody counts them",
            "a section `rate_limit` with address and domain",
        ));
    }
    Ok(())
}

fn services(config: &Config) -> Result<(), Invalid> {
    if let Some(authz) = &config.authz {
        grpc_address(config, "authz.address", &authz.address)?;
        at_least_one("authz.connections", authz.connections)?;
    }
    if let Some(limit) = &config.rate_limit {
        grpc_address(config, "rate_limit.address", &limit.address)?;
        at_least_one("rate_limit.connections", limit.connections)?;
        if limit.domain.is_empty() {
            return Err(Invalid::new("rate_limit.domain", "it is empty", "the domain of a limits file"));
        }
    }
    Ok(())
}

fn grpc_address(config: &Config, key: &str, address: &str) -> Result<(), Invalid> {
    let uri = address.parse::<http::Uri>().ok().filter(|uri| uri.host().is_some());
    match uri.as_ref().and_then(|uri| uri.scheme_str()) {
        Some("https") if config.identity.is_none() => {
            return Err(Invalid::new(key, "mTLS needs a certificate of our own", "a section `identity`"));
        }
        Some("http" | "https") => return Ok(()),
        _ => {}
    }
    Err(Invalid::new(
        key,
        format!("`{address}` is not a gRPC address"),
        "a URL such as https://127.0.0.1:7001",
    ))
}

pub(super) fn at_least_one(key: &str, value: usize) -> Result<(), Invalid> {
    if value == 0 { Err(Invalid::new(key, "0 is too small", "1 or more")) } else { Ok(()) }
}

pub(super) fn unique<'n>(names: impl Iterator<Item = &'n str>, list: &str) -> Result<(), Invalid> {
    let mut seen = FxHashSet::default();
    for (index, name) in names.enumerate() {
        if name.is_empty() || !seen.insert(name) {
            let problem =
                if name.is_empty() { "it is empty".into() } else { format!("`{name}` stands twice") };
            return Err(Invalid::new(format!("{list}[{index}].name"), problem, "a name of its own"));
        }
    }
    Ok(())
}
