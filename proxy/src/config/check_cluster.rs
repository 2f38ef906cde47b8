//! What parses but cannot be used, of clusters.

use std::time::Duration;

use tollgate_identity::pki_types::ServerName;
use tollgate_runtime::config::Invalid;

use super::check::{at_least_one, unique};
use super::{ClusterConfig, ClusterTls, Config, DnsRecord, Endpoint, Endpoints, HealthQuestion, Protocol};
use crate::route::{Key, Modifier};

pub(super) fn check(config: &Config) -> Result<(), Invalid> {
    unique(config.clusters.iter().map(|cluster| cluster.name.as_str()), "clusters")?;
    for (index, cluster) in config.clusters.iter().enumerate() {
        let key = format!("clusters[{index}]");
        endpoints(cluster, &key)?;
        localities(cluster, &key)?;
        if cluster.proxy_protocol.is_some() && cluster.protocol == Protocol::H2 {
            return Err(Invalid::new(
                format!("{key}.proxy_protocol"),
                "a connection of HTTP/2 carries the requests of many clients",
                "`protocol: h1`",
            ));
        }
        resilience(cluster, &key)?;
        if let Some(tls) = &cluster.tls {
            tls_of(config, tls, &format!("{key}.tls"))?;
        }
        if let Some(deprecation) = &cluster.deprecation {
            Modifier::of_deprecation(deprecation, &format!("{key}.deprecation"))?;
        }
        if let Some(by) = cluster.balance.key() {
            Key::compile(by, &format!("{key}.balance"))?;
        }
    }
    Ok(())
}

fn endpoints(cluster: &ClusterConfig, key: &str) -> Result<(), Invalid> {
    match &cluster.endpoints {
        Endpoints::Static(fixed) if fixed.is_empty() => Err(Invalid::new(
            format!("{key}.endpoints.static"),
            "there are none",
            "at least one address such as 127.0.0.1:9001",
        )),
        Endpoints::Dns(dns) => {
            let problem = |name: &str, problem: &str, remedy: &str| {
                Err(Invalid::new(format!("{key}.endpoints.dns.{name}"), problem, remedy))
            };
            if dns.name.is_empty() {
                return problem("name", "it is empty", "a name such as api.example.org");
            }
            match (dns.record, dns.port) {
                (DnsRecord::A | DnsRecord::Aaaa, None) => {
                    return problem("port", "it is missing", "the port of the endpoints, or `record: SRV`");
                }
                (DnsRecord::Srv, Some(_)) => {
                    return problem("port", "SRV records bring their own", "no `port`, or `record: A`");
                }
                _ => {}
            }
            if dns.min_ttl < Duration::from_millis(100) || dns.max_ttl < dns.min_ttl {
                return problem("min_ttl", "it is too short, or longer than max_ttl", "100ms up to max_ttl");
            }
            Ok(())
        }
        Endpoints::OriginalDestination(original) => {
            super::check_capture::original(original, key)?;
            let unused = [
                ("health_check", cluster.health_check.is_some()),
                ("slow_start", cluster.slow_start.is_some()),
                ("localities", !cluster.localities.is_empty()),
            ];
            match unused.iter().find(|(_, given)| *given) {
                None => Ok(()),
                Some((name, _)) => {
                    let problem = "there is nothing to choose: the client has said which port";
                    Err(Invalid::new(format!("{key}.{name}"), problem, "`endpoints` of another kind"))
                }
            }
        }
        Endpoints::EndpointSlices(slices) => {
            slices.check(&format!("{key}.endpoints.endpoint_slices"), cfg!(feature = "kubernetes"))
        }
        Endpoints::Static(_) | Endpoints::File(_) => Ok(()),
    }
}

fn tls_of(config: &Config, tls: &ClusterTls, key: &str) -> Result<(), Invalid> {
    let problem = |name: &str, problem: &str, remedy: &str| {
        let key = if name.is_empty() { key.to_owned() } else { format!("{key}.{name}") };
        Err(Invalid::new(key, problem, remedy))
    };
    match (tls.spiffe_ids.is_empty(), &tls.server_name) {
        (true, None) => {
            return problem(
                "",
                "nobody says who must answer",
                "`spiffe_ids` of workloads, or a `server_name`",
            );
        }
        (false, Some(_)) => {
            let remedy = "one of the two; other names of a server go into `subject_names`";
            return problem(
                "server_name",
                "workloads are known by `spiffe_ids`, which are given too",
                remedy,
            );
        }
        (false, None) if config.identity.is_none() => {
            return problem("spiffe_ids", "mTLS needs a certificate of our own", "a section `identity`");
        }
        (false, None) if tls.ca.is_some() || !tls.subject_names.is_empty() || tls.present_identity => {
            let remedy = "no `ca`, `subject_names` and `present_identity` beside `spiffe_ids`";
            return problem("", "workloads are believed by the bundles of `identity` alone", remedy);
        }
        (true, Some(name)) if ServerName::try_from(name.as_str()).is_err() => {
            return problem("server_name", "it is not a name", "a name such as api.example.org");
        }
        _ => {}
    }
    if tls.present_identity && config.identity.is_none() {
        return problem("present_identity", "there is no certificate to show", "a section `identity`");
    }
    Ok(())
}

fn localities(cluster: &ClusterConfig, key: &str) -> Result<(), Invalid> {
    unique(cluster.localities.iter().map(|one| one.name.as_str()), &format!("{key}.localities"))?;
    if !cluster.localities.is_empty() && cluster.localities.iter().all(|one| one.weight == 0) {
        return Err(Invalid::new(format!("{key}.localities"), "all weights are 0", "one weight above 0"));
    }
    let Endpoints::Static(fixed) = &cluster.endpoints else { return Ok(()) };
    for (index, endpoint) in fixed.iter().enumerate() {
        let known = |name: &str| cluster.localities.iter().any(|one| one.name == name);
        let good = match endpoint.locality() {
            None => cluster.localities.is_empty(),
            Some(name) => known(name),
        };
        if !good {
            let names: Vec<_> = cluster.localities.iter().map(|one| one.name.as_str()).collect();
            let place = match endpoint {
                Endpoint::Address(_) => format!("{key}.endpoints.static[{index}]"),
                Endpoint::Placed(_) => format!("{key}.endpoints.static[{index}].locality"),
            };
            return Err(Invalid::new(
                place,
                format!("{} is in no locality of the cluster", endpoint.address()),
                format!("`{{address, locality}}` with one of: {}", names.join(", ")),
            ));
        }
    }
    Ok(())
}

fn resilience(cluster: &ClusterConfig, key: &str) -> Result<(), Invalid> {
    at_least_one(&format!("{key}.breaker.connections"), cluster.breaker.connections)?;
    at_least_one(&format!("{key}.breaker.requests"), cluster.breaker.requests)?;
    if cluster.slow_start.is_some() && cluster.balance.key().is_some() {
        let problem = "a key always goes to the same endpoint";
        let remedy = "no `slow_start`, or a balance without a key";
        return Err(Invalid::new(format!("{key}.slow_start"), problem, remedy));
    }
    let outlier = &cluster.outlier_detection;
    if outlier.interval < Duration::from_millis(10) {
        let key = format!("{key}.outlier_detection.interval");
        return Err(Invalid::new(key, "it is too short", "10ms or more, such as 10s"));
    }
    if outlier.max_ejection_time < outlier.base_ejection_time {
        let key = format!("{key}.outlier_detection.max_ejection_time");
        return Err(Invalid::new(key, "it is shorter than base_ejection_time", "a longer one"));
    }
    if let Some(check) = &cluster.health_check {
        let key = format!("{key}.health_check");
        let times = [("interval", check.interval), ("timeout", check.timeout)];
        if let Some((name, _)) = times.iter().find(|(_, time)| time.is_zero()) {
            return Err(Invalid::new(format!("{key}.{name}"), "no time at all", "a duration such as 5s"));
        }
        at_least_one(&format!("{key}.unhealthy_threshold"), check.unhealthy_threshold as usize)?;
        at_least_one(&format!("{key}.healthy_threshold"), check.healthy_threshold as usize)?;
        match &check.ask {
            HealthQuestion::Http(path) if !path.starts_with('/') => {
                let problem = format!("`{path}` is not a path");
                return Err(Invalid::new(format!("{key}.ask.http"), problem, "a path such as /healthz"));
            }
            HealthQuestion::Grpc(_) if cluster.protocol == Protocol::H1 => {
                let problem = "gRPC is asked over HTTP/2, which this cluster does not speak";
                return Err(Invalid::new(
                    format!("{key}.ask.grpc"),
                    problem,
                    "`protocol: h2` of the cluster",
                ));
            }
            HealthQuestion::Http(_) | HealthQuestion::Grpc(_) | HealthQuestion::Tcp => {}
        }
    }
    Ok(())
}
