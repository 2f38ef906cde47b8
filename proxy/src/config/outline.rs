//! A configuration in a few lines, as `tollgate check` prints it: which request goes where.

use tollgate_runtime::config::duration;

use super::{
    AuthzMode, Backend, ClusterConfig, Config, Destination, Endpoints, Match, RouteConfig, ValueMatch,
};

impl Config {
    /// One line a listener, route and cluster, in the order of the file.
    pub fn outline(&self) -> Vec<String> {
        let listeners = self.listeners.iter().map(|one| {
            let mut line = format!("listener {}: {:?} at {}", one.name, one.role, one.bind);
            if one.transparent {
                line.push_str(", transparent");
            }
            if let Some(tcp) = &one.tcp {
                line.push_str(&format!("; bytes -> {}", tcp.cluster));
            }
            one.destinations
                .iter()
                .for_each(|one| line.push_str(&format!("; {}", destination_of_bytes(one))));
            line
        });
        let routes = self.routes.iter().map(route);
        let clusters = self.clusters.iter().map(cluster);
        listeners.chain(routes).chain(clusters).collect()
    }
}

fn destination_of_bytes(one: &Destination) -> String {
    let list = |texts: Vec<String>| texts.join(", ");
    let ports = list(one.ports.iter().map(u16::to_string).collect());
    let wanted = match (one.networks.is_empty(), one.ports.is_empty()) {
        (true, true) => "its endpoints".to_owned(),
        (true, false) => format!("port {ports}"),
        (false, no_ports) => {
            let networks = list(one.networks.iter().map(ToString::to_string).collect());
            if no_ports { networks } else { format!("{networks} port {ports}") }
        }
    };
    let wanted = match (one.server_names.is_empty(), one.names_addresses()) {
        (true, _) => wanted,
        (false, false) => format!("TLS to {}", one.server_names.join(", ")),
        (false, true) => format!("TLS to {} at {wanted}", one.server_names.join(", ")),
    };
    format!("bytes for {wanted} -> {}", one.tcp.cluster)
}

fn route(route: &RouteConfig) -> String {
    let hosts = if route.hostnames.is_empty() { "any host".to_owned() } else { route.hostnames.join(", ") };
    let matches = route.matches.iter().map(one_match).collect::<Vec<_>>().join(" or ");
    let mut line = format!("route {}: {hosts}; {matches} -> {}", route.name, destination(route));
    let mut also = |text: String| {
        line.push_str("; ");
        line.push_str(&text);
    };
    if route.authz.mode == AuthzMode::Off {
        also("open to anyone".to_owned());
    }
    if let Some(rollout) = &route.rollout {
        let steps: Vec<_> = rollout.steps.iter().map(|step| step.weight.to_string()).collect();
        also(format!("rollout {} of {}: {}, all", rollout.name, rollout.canary, steps.join(", ")));
    }
    for one in &route.overrides {
        also(format!("{} for those it names", one.cluster));
    }
    if let Some(mirror) = &route.request_mirror {
        also(format!("{} copied to {}", mirror.percent, mirror.cluster));
    }
    if let Some(retry) = &route.retry {
        also(format!("tried again {} times", retry.attempts));
    }
    if route.fault.is_some() {
        also("FAILS ON PURPOSE".to_owned());
    }
    also(format!("within {}", duration::format(route.timeout)));
    line
}

fn one_match(one: &Match) -> String {
    let mut text = one.method.as_ref().map(|method| format!("{method} ")).unwrap_or_default();
    text.push_str(&format!("{:?} {}", one.path.kind, one.path.value));
    let values = |kind: &str, all: &[ValueMatch]| {
        all.iter().map(|one| format!(" {kind} {}={}", one.name, one.value)).collect::<String>()
    };
    text.push_str(&values("header", &one.headers));
    text.push_str(&values("query", &one.query_params));
    if let Some(peer) = &one.peer {
        text.push_str(&format!(" peer {}", peer.value));
    }
    text
}

fn destination(route: &RouteConfig) -> String {
    if let Some(direct) = &route.direct_response {
        return format!("answer {}", direct.status);
    }
    if let Some(redirect) = &route.request_redirect {
        return format!("redirect {}", redirect.status_code);
    }
    let canary = route.rollout.as_ref().map(|rollout| rollout.canary.as_str());
    let backends: Vec<_> = route.backends.iter().filter(|one| Some(one.cluster.as_str()) != canary).collect();
    let total: u64 = backends.iter().map(|backend| u64::from(backend.weight)).sum();
    let share = |backend: &&Backend| match backends.as_slice() {
        [only] => only.cluster.clone(),
        _ => format!("{} {} %", backend.cluster, u64::from(backend.weight) * 100 / total.max(1)),
    };
    backends.iter().map(share).collect::<Vec<_>>().join(", ")
}

fn cluster(cluster: &ClusterConfig) -> String {
    let endpoints = match &cluster.endpoints {
        Endpoints::Static(fixed) => {
            fixed.iter().map(|one| one.address().to_string()).collect::<Vec<_>>().join(", ")
        }
        Endpoints::Dns(dns) => format!("{:?} {}", dns.record, dns.name),
        Endpoints::File(file) => format!("file {}", file.display()),
        Endpoints::EndpointSlices(slices) => {
            let namespace = slices.namespace.as_deref().unwrap_or("our namespace");
            format!("pods of {namespace}/{} at port {}", slices.service, slices.port)
        }
        Endpoints::OriginalDestination(original) => {
            let ports: Vec<_> = original.ports.iter().map(u16::to_string).collect();
            format!("{} at the port that the client wanted, of {}", original.address, ports.join(", "))
        }
    };
    let breaker = &cluster.breaker;
    let outlier = if cluster.outlier_detection.enabled { "on" } else { "off" };
    format!(
        "cluster {}: {endpoints}; {:?}, {:?}; at most {} requests, {} connections, {} waiting; \
         outlier detection {outlier}, health checks {}",
        cluster.name,
        cluster.protocol,
        cluster.balance,
        breaker.requests,
        breaker.connections,
        breaker.pending,
        if cluster.health_check.is_some() { "on" } else { "off" },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_in_a_few_lines() {
        let text = include_str!("../../../config/ingress.yaml");
        let config: Config =
            tollgate_runtime::config::parse_yaml(std::path::Path::new("ingress.yaml"), text).unwrap();
        let lines = config.outline();
        assert!(
            lines
                .iter()
                .any(|line| line.contains("route healthz: any host; GET Exact /healthz -> answer 200"))
        );
        assert!(
            lines.iter().any(|line| line.starts_with("cluster policies: 127.0.0.1:8101; H1, LeastRequest"))
        );
    }
}
