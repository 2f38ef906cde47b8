//! An Envoy that limits by quota (RLQS) and answers every request by itself.

use std::net::SocketAddr;

use crate::envoy::{Envoy, cluster, socket_address};

/// Whom it asks, and about what.
#[derive(Debug, Clone, Copy)]
pub struct QuotaConfig {
    /// Serves `RateLimitQuotaService`.
    pub service: SocketAddr,
    /// The rate-limit domain.
    pub domain: &'static str,
    /// The bucket has this one entry, whose value is the request header of that name.
    pub bucket_header: &'static str,
    /// What holds without an assignment, and after one has expired: `ALLOW_ALL` or `DENY_ALL`.
    pub without: &'static str,
}

/// Starts it and waits until it is live.
///
/// # Panics
/// As [`Envoy::start`].
pub fn start(config: &QuotaConfig) -> Envoy {
    Envoy::start_from(1, |address, admin| bootstrap(config, address, admin))
}

fn bootstrap(config: &QuotaConfig, address: SocketAddr, admin: SocketAddr) -> String {
    let header = format!(
        r#"{{"name": "header", "typed_config": {{
            "@type": "type.googleapis.com/envoy.type.matcher.v3.HttpRequestHeaderMatchInput",
            "header_name": "{}"}}}}"#,
        config.bucket_header
    );
    let fallback = format!(r#""fallback_rate_limit": {{"blanket_rule": "{}"}}"#, config.without);
    format!(
        r#"{{
  "admin": {{"address": {admin}}},
  "static_resources": {{
    "listeners": [{{"name": "in", "address": {address}, "filter_chains": [{{"filters": [{{
      "name": "hcm", "typed_config": {{
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "in",
        "route_config": {{"virtual_hosts": [{{"name": "all", "domains": ["*"], "routes": [{{
          "match": {{"prefix": "/"}}, "direct_response": {{"status": 200}}}}]}}]}},
        "http_filters": [
          {{"name": "quota", "typed_config": {{
            "@type": "type.googleapis.com/envoy.extensions.filters.http.rate_limit_quota.v3.RateLimitQuotaFilterConfig",
            "rlqs_server": {{"envoy_grpc": {{"cluster_name": "quota"}}}},
            "domain": "{domain}",
            "bucket_matchers": {{"matcher_list": {{"matchers": [{{
              "predicate": {{"single_predicate": {{"input": {header}, "value_match": {{"safe_regex": {{"google_re2": {{}}, "regex": ".*"}}}}}}}},
              "on_match": {{"action": {{"name": "bucket", "typed_config": {{
                "@type": "type.googleapis.com/envoy.extensions.filters.http.rate_limit_quota.v3.RateLimitQuotaBucketSettings",
                "bucket_id_builder": {{"bucket_id_builder": {{"{key}": {{"custom_value": {header}}}}}}},
                "reporting_interval": "5s",
                "no_assignment_behavior": {{{fallback}}},
                "expired_assignment_behavior": {{"expired_assignment_behavior_timeout": "1s", {fallback}}}
              }}}}}}
            }}]}}}}}}}},
          {{"name": "router", "typed_config": {{"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}}}
        ]
      }}
    }}]}}]}}],
    "clusters": [{quota}]
  }}
}}"#,
        admin = socket_address(admin),
        address = socket_address(address),
        domain = config.domain,
        key = config.bucket_header,
        quota = cluster("quota", config.service, true),
    )
}
