//! What parses but cannot be used, of a route.

use tollgate_runtime::config::Invalid;

use super::{AuthzMode, Config, PathMatchType, PathModifierType, RouteConfig};

pub(super) fn check(config: &Config, route: &RouteConfig, key: &str) -> Result<(), Invalid> {
    if route.matches.is_empty() {
        return Err(Invalid::new(format!("{key}.matches"), "it is empty", "at least one match"));
    }
    on_listeners(config, route, key)?;
    one_destination(route, key)?;
    for (index, backend) in route.backends.iter().enumerate() {
        known(config, &backend.cluster, &format!("{key}.backends[{index}].cluster"))?;
    }
    if let Some(mirror) = &route.request_mirror {
        known(config, &mirror.cluster, &format!("{key}.request_mirror.cluster"))?;
    }
    overrides(route, key)?;
    super::rollout::check(config, route, key)?;
    prefixes(route, key)?;
    upgrades(config, route, key)?;
    grpc_web(config, route, key)?;
    let total: u64 = route.backends.iter().map(|backend| u64::from(backend.weight)).sum();
    if !route.backends.is_empty() && (total == 0 || total > u64::from(u32::MAX)) {
        return Err(Invalid::new(
            format!("{key}.backends"),
            format!("the weights add up to {total}"),
            "at least one weight above 0, and a sum below 2^32",
        ));
    }
    Ok(())
}

fn check_direct(direct: &super::DirectResponse, key: &str) -> Result<(), Invalid> {
    if !(200..=599).contains(&direct.status) {
        return Err(Invalid::new(
            format!("{key}.status"),
            format!("{} is not a final status", direct.status),
            "a number from 200 to 599",
        ));
    }
    for (index, target) in direct.when_ready.iter().enumerate() {
        if crate::probe::Target::parse(target).is_none() {
            return Err(Invalid::new(
                format!("{key}.when_ready[{index}]"),
                format!("`{target}` cannot be asked"),
                "`self` or a URL such as http://127.0.0.1:7101/ready",
            ));
        }
    }
    Ok(())
}

/// A route is for listeners that exist; on the way out it names its destinations.
fn on_listeners(config: &Config, route: &RouteConfig, key: &str) -> Result<(), Invalid> {
    for (index, name) in route.listeners.iter().enumerate() {
        if !config.listeners.iter().any(|listener| listener.name == *name) {
            let names: Vec<_> = config.listeners.iter().map(|listener| listener.name.as_str()).collect();
            return Err(Invalid::new(
                format!("{key}.listeners[{index}]"),
                format!("there is no listener `{name}`"),
                format!("one of: {}", names.join(", ")),
            ));
        }
    }
    let is_for = |name: &String| route.listeners.is_empty() || route.listeners.contains(name);
    let out = config
        .listeners
        .iter()
        .find(|one| one.role.is_registry_only() && one.tcp.is_none() && is_for(&one.name));
    match out {
        Some(listener) if route.hostnames.is_empty() => Err(Invalid::new(
            key,
            format!("listener `{}` would send every name there is to `{}`", listener.name, route.name),
            "`hostnames` with the destinations, or `listeners` that leave it out",
        )),
        _ => Ok(()),
    }
}

fn one_destination(route: &RouteConfig, key: &str) -> Result<(), Invalid> {
    let destinations = [
        ("backends", !route.backends.is_empty()),
        ("direct_response", route.direct_response.is_some()),
        ("request_redirect", route.request_redirect.is_some()),
    ];
    let mut given = destinations.iter().filter(|(_, given)| *given).map(|(name, _)| name);
    match (given.next(), given.next()) {
        (None, _) => {
            return Err(Invalid::new(
                key,
                "the route goes nowhere",
                "`backends`, `direct_response` or `request_redirect`",
            ));
        }
        (Some(first), Some(second)) => {
            return Err(Invalid::new(
                format!("{key}.{second}"),
                format!("the route has {first} too"),
                format!("either `{first}` or `{second}`"),
            ));
        }
        (Some(_), None) => {}
    }
    match &route.direct_response {
        Some(direct) => check_direct(direct, &format!("{key}.direct_response")),
        None => Ok(()),
    }
}

pub(super) fn known(config: &Config, cluster: &str, key: &str) -> Result<(), Invalid> {
    if config.clusters.iter().any(|known| known.name == cluster) {
        return Ok(());
    }
    let names: Vec<_> = config.clusters.iter().map(|cluster| cluster.name.as_str()).collect();
    let problem = format!("there is no cluster `{cluster}`");
    Err(Invalid::new(key, problem, format!("one of: {}", names.join(", "))))
}

/// An override chooses among the route's own clusters, by what is known of the request by then.
fn overrides(route: &RouteConfig, key: &str) -> Result<(), Invalid> {
    for (index, one) in route.overrides.iter().enumerate() {
        let key = format!("{key}.overrides[{index}]");
        if !route.backends.iter().any(|backend| backend.cluster == one.cluster) {
            let names: Vec<_> = route.backends.iter().map(|backend| backend.cluster.as_str()).collect();
            return Err(Invalid::new(
                format!("{key}.cluster"),
                format!("`{}` is no backend of this route", one.cluster),
                format!("one of: {} (a backend of weight 0 is reached by overrides alone)", names.join(", ")),
            ));
        }
        if one.headers.is_empty() && one.claims.is_empty() && one.peer.is_none() {
            return Err(Invalid::new(key, "it holds for everyone", "`headers`, `claims` or `peer`"));
        }
        if !one.claims.is_empty() && route.authz.mode == AuthzMode::Off {
            return Err(Invalid::new(
                format!("{key}.claims"),
                "nobody verifies tokens on this route",
                "`authz: on`, or an override by `headers` or `peer`",
            ));
        }
    }
    Ok(())
}

/// A connection goes over to another protocol by HTTP/1.1 (RFC 9110, 7.8), on both sides of the proxy.
fn upgrades(config: &Config, route: &RouteConfig, key: &str) -> Result<(), Invalid> {
    for (index, name) in route.upgrades.iter().enumerate() {
        let key = format!("{key}.upgrades[{index}]");
        let is_token = !name.is_empty()
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~/".contains(&byte));
        let is_http = ["h2c", "h2", "http"].iter().any(|http| name.eq_ignore_ascii_case(http))
            || name.to_ascii_lowercase().starts_with("http/");
        if !is_token || is_http {
            let problem = format!("`{name}` is nothing to go over to");
            return Err(Invalid::new(key, problem, "a protocol other than HTTP, such as `websocket`"));
        }
    }
    if route.upgrades.is_empty() {
        return Ok(());
    }
    let key = format!("{key}.upgrades");
    if route.backends.is_empty() {
        return Err(Invalid::new(key, "the route has no upstream to go over to", "`backends`"));
    }
    let speaks_h2 = |name: &str| {
        config.clusters.iter().any(|one| one.name == name && one.protocol == super::Protocol::H2)
    };
    match route.backends.iter().find(|backend| speaks_h2(&backend.cluster)) {
        Some(backend) => Err(Invalid::new(
            key,
            format!("cluster `{}` speaks HTTP/2, which has no upgrades", backend.cluster),
            "backends with `protocol: h1`",
        )),
        None => Ok(()),
    }
}

/// gRPC is spoken over HTTP/2.
fn grpc_web(config: &Config, route: &RouteConfig, key: &str) -> Result<(), Invalid> {
    if !route.grpc_web {
        return Ok(());
    }
    let key = format!("{key}.grpc_web");
    if route.backends.is_empty() {
        return Err(Invalid::new(key, "the route has no upstream that speaks gRPC", "`backends`"));
    }
    let speaks_h1 = |name: &str| {
        config.clusters.iter().any(|one| one.name == name && one.protocol == super::Protocol::H1)
    };
    match route.backends.iter().find(|backend| speaks_h1(&backend.cluster)) {
        Some(backend) => Err(Invalid::new(
            key,
            format!("cluster `{}` speaks HTTP/1.1, and gRPC needs HTTP/2", backend.cluster),
            "backends with `protocol: h2`",
        )),
        None => Ok(()),
    }
}

/// What replaces a prefix needs to know which one matched.
fn prefixes(route: &RouteConfig, key: &str) -> Result<(), Invalid> {
    let rewrite = route.url_rewrite.as_ref().and_then(|rewrite| rewrite.path.as_ref());
    let redirect = route.request_redirect.as_ref().and_then(|redirect| redirect.path.as_ref());
    for (name, path) in [("url_rewrite", rewrite), ("request_redirect", redirect)] {
        let of_prefix = path.is_some_and(|path| path.kind == PathModifierType::ReplacePrefixMatch);
        if of_prefix && route.matches.iter().any(|one| one.path.kind != PathMatchType::PathPrefix) {
            return Err(Invalid::new(
                format!("{key}.{name}.path.type"),
                "not every match of the route is a prefix",
                "`ReplaceFullPath`, or matches of type `PathPrefix` alone",
            ));
        }
    }
    Ok(())
}
