//! Endpoints behind a name: asked for again when the answer is due. Without an answer the old endpoints stay.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::{RData, RecordType};
use hickory_resolver::{Resolver, TokioResolver};

use super::super::Cluster;
use super::is_public;
use crate::config::{Dns, DnsRecord, Endpoint, PrivateAddresses};

/// When a name that could not be resolved is tried again.
const AFTER_FAILURE: Duration = Duration::from_secs(2);
/// Endpoints of one name.
const MAX_ENDPOINTS: usize = 1024;
/// Hosts that SRV records of one name lead to.
const MAX_TARGETS: usize = 64;

/// Asks until the cluster is closed.
pub(in super::super) async fn run(cluster: Arc<Cluster>, dns: Dns) {
    let resolver = match resolver(&dns) {
        Ok(resolver) => resolver,
        Err(error) => return cluster.not_discovered(format!("{error:#}")),
    };
    loop {
        let rest = match resolve(&resolver, &dns).await {
            Ok(found) => {
                if !found.endpoints.is_empty() {
                    cluster.consist_of(&found.endpoints);
                }
                if !found.refused.is_empty() {
                    let refused =
                        found.refused.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
                    cluster.not_discovered(format!(
                        "`{}` leads to addresses that are not public: {refused}; \
                         `private_addresses: allow` would let them be",
                        dns.name
                    ));
                    if found.endpoints.is_empty() {
                        // What the name leads to now is no place to go, and what it led to is its no more.
                        cluster.consist_of_nothing();
                    }
                } else if found.endpoints.is_empty() {
                    cluster.not_discovered(format!("`{}` has no address", dns.name));
                }
                found.due.saturating_duration_since(Instant::now())
            }
            Err(error) => {
                cluster.not_discovered(format!("`{}`: {error:#}", dns.name));
                AFTER_FAILURE
            }
        };
        tokio::select! {
            () = cluster.closed() => return,
            () = tokio::time::sleep(rest.clamp(dns.min_ttl, dns.max_ttl)) => {}
        }
    }
}

/// What an answer brought.
struct Found {
    endpoints: Vec<Endpoint>,
    refused: Vec<IpAddr>,
    due: Instant,
}

fn resolver(dns: &Dns) -> anyhow::Result<TokioResolver> {
    let mut builder = match dns.server {
        Some(server) => {
            let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
                connection.port = server.port();
                connection
            });
            let server = NameServerConfig::new(server.ip(), true, connections.to_vec());
            let config = ResolverConfig::from_parts(None, Vec::new(), vec![server]);
            Resolver::builder_with_config(config, TokioRuntimeProvider::default())
        }
        None => Resolver::builder_tokio()?,
    };
    // We ask when an answer is due, and then want a new one.
    builder.options_mut().cache_size = 0;
    Ok(builder.build()?)
}

async fn resolve(resolver: &TokioResolver, dns: &Dns) -> anyhow::Result<Found> {
    let (addresses, due) = match dns.record {
        DnsRecord::Srv => services(resolver, dns).await?,
        DnsRecord::A | DnsRecord::Aaaa => {
            let (addresses, due) = addresses(resolver, &dns.name, dns.record).await?;
            let port = dns.port.unwrap_or(80);
            (addresses.into_iter().map(|ip| SocketAddr::new(ip, port)).collect(), due)
        }
    };
    let refuse = dns.private_addresses == Some(PrivateAddresses::Refuse);
    let (refused, good): (Vec<SocketAddr>, Vec<_>) =
        addresses.into_iter().take(MAX_ENDPOINTS).partition(|address| refuse && !is_public(address.ip()));
    Ok(Found {
        endpoints: good.into_iter().map(Endpoint::Address).collect(),
        refused: refused.into_iter().map(|address| address.ip()).collect(),
        due,
    })
}

async fn addresses(
    resolver: &TokioResolver,
    name: &str,
    record: DnsRecord,
) -> anyhow::Result<(Vec<IpAddr>, Instant)> {
    let kind = if record == DnsRecord::Aaaa { RecordType::AAAA } else { RecordType::A };
    let answer = resolver.lookup(name, kind).await?;
    let found = answer.answers().iter().filter_map(|record| match &record.data {
        RData::A(address) => Some(IpAddr::V4(address.0)),
        RData::AAAA(address) => Some(IpAddr::V6(address.0)),
        _ => None,
    });
    Ok((found.collect(), answer.valid_until()))
}

/// The hosts and ports of the SRV records that come first, and the addresses of those hosts, of IPv6 where they have no other.
/// A host without any takes no other along.
async fn services(resolver: &TokioResolver, dns: &Dns) -> anyhow::Result<(Vec<SocketAddr>, Instant)> {
    let answer = resolver.lookup(dns.name.as_str(), RecordType::SRV).await?;
    let services = answer.answers().iter().filter_map(|record| match &record.data {
        RData::SRV(service) => Some((service.priority, service.target.to_utf8(), service.port)),
        _ => None,
    });
    let services: Vec<_> = services.collect();
    let first = services.iter().map(|(priority, ..)| *priority).min();
    let mut due = answer.valid_until();
    let (mut found, mut last_error) = (Vec::new(), None);
    let first = services.iter().filter(|(priority, ..)| Some(*priority) == first).take(MAX_TARGETS);
    for (_, target, port) in first {
        let of_v4 = addresses(resolver, target, DnsRecord::A).await;
        let answer = match of_v4 {
            Ok((some, until)) if !some.is_empty() => Ok((some, until)),
            Ok(_) | Err(_) => addresses(resolver, target, DnsRecord::Aaaa).await,
        };
        match answer {
            Ok((addresses, until)) => {
                due = due.min(until);
                found.extend(addresses.into_iter().map(|ip| SocketAddr::new(ip, *port)));
            }
            Err(error) => last_error = Some(error.context(format!("`{target}`"))),
        }
    }
    match last_error {
        Some(error) if found.is_empty() => Err(error),
        _ => Ok((found, due)),
    }
}
