//! An Envoy that asks a rate limit service about request headers; its own admin page answers what may pass.

use std::net::SocketAddr;

use crate::envoy::{Envoy, cluster, socket_address};

/// Starts one that makes a descriptor of each of these lists of headers, as `(header, descriptor key)`; Envoy leaves
/// those out whose headers a request lacks.
///
/// # Panics
/// As [`Envoy::start`].
pub fn start(service: SocketAddr, domain: &str, descriptors: &[&[(&str, &str)]]) -> Envoy {
    Envoy::start_from(1, |address, admin| bootstrap(service, domain, descriptors, address, admin))
}

fn bootstrap(
    service: SocketAddr,
    domain: &str,
    descriptors: &[&[(&str, &str)]],
    address: SocketAddr,
    admin: SocketAddr,
) -> String {
    let action = |(header, key): &(&str, &str)| {
        format!(r#"{{"request_headers": {{"header_name": "{header}", "descriptor_key": "{key}"}}}}"#)
    };
    let limits: Vec<_> = descriptors
        .iter()
        .map(|entries| {
            let actions: Vec<_> = entries.iter().map(action).collect();
            format!(r#"{{"actions": [{}]}}"#, actions.join(", "))
        })
        .collect();
    format!(
        r#"{{
  "admin": {{"address": {admin}}},
  "static_resources": {{
    "listeners": [{{"name": "in", "address": {address}, "filter_chains": [{{"filters": [{{
      "name": "hcm", "typed_config": {{
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "in",
        "route_config": {{"virtual_hosts": [{{"name": "all", "domains": ["*"], "routes": [{{
          "match": {{"prefix": "/"}}, "route": {{"cluster": "upstream", "prefix_rewrite": "/ready"}},
          "typed_per_filter_config": {{"ratelimit": {{
            "@type": "type.googleapis.com/envoy.extensions.filters.http.ratelimit.v3.RateLimitPerRoute",
            "rate_limits": [{limits}]}}}}}}]}}]}},
        "http_filters": [
          {{"name": "ratelimit", "typed_config": {{
            "@type": "type.googleapis.com/envoy.extensions.filters.http.ratelimit.v3.RateLimit",
            "domain": "{domain}", "enable_x_ratelimit_headers": "DRAFT_VERSION_03", "timeout": "5s",
            "rate_limit_service": {{"transport_api_version": "V3", "grpc_service": {{"envoy_grpc": {{"cluster_name": "ratelimit"}}}}}}}}}},
          {{"name": "router", "typed_config": {{"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}}}
        ]
      }}
    }}]}}]}}],
    "clusters": [{cluster}, {upstream}]
  }}
}}"#,
        admin = socket_address(admin),
        address = socket_address(address),
        limits = limits.join(", "),
        cluster = cluster("ratelimit", service, true),
        // Direct responses are not limited; its own admin page is an upstream that is always there.
        upstream = cluster("upstream", admin, false),
    )
}
