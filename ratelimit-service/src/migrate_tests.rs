//! What becomes of an environment.

use std::collections::BTreeMap;

use super::*;
use crate::config::Config;

fn migrated(settings: &[(&'static str, &'static str)]) -> Migrated {
    let all: BTreeMap<_, _> = settings.iter().copied().collect();
    migrate(|name| all.get(name).copied(), all.keys().copied())
}

fn config(settings: &[(&'static str, &'static str)]) -> Config {
    let yaml = migrated(settings).yaml;
    tollgate_runtime::config::parse_yaml(std::path::Path::new("migrated.yaml"), &yaml)
        .unwrap_or_else(|error| panic!("{error}\n{yaml}"))
}

#[test]
fn what_changes_answers_has_a_key() {
    let config = config(&[
        ("RUNTIME_ROOT", "/data"),
        ("RUNTIME_SUBDIRECTORY", "ratelimit"),
        ("GRPC_PORT", "9001"),
        ("SHADOW_MODE", "true"),
        ("NEAR_LIMIT_RATIO", "0.9"),
        ("LIMIT_RESPONSE_HEADERS_ENABLED", "true"),
        ("LIMIT_LIMIT_HEADER", "X-Limit"),
        ("MERGE_DOMAIN_CONFIG", "true"),
        ("REDIS_URL", "redis.local:6379"),
        ("REDIS_AUTH", "secret"),
        ("REDIS_TLS", "true"),
        ("CACHE_KEY_PREFIX", "ours:"),
    ]);
    assert_eq!(
        config.limits.folder.as_deref().and_then(std::path::Path::to_str),
        Some("/data/ratelimit/config")
    );
    assert!(config.limits.merge_domains);
    assert_eq!(config.listen.port(), 9001);
    assert_eq!(config.mode, crate::answer::Enforcement::Shadow);
    assert_eq!(config.near_ratio.to_string(), "0.9");
    let headers = config.response_headers.unwrap();
    assert_eq!((headers.limit.as_str(), headers.remaining.as_str()), ("X-Limit", "RateLimit-Remaining"));
    let redis = config.counters.redis;
    assert_eq!(redis.url.unwrap().expose(), "rediss://:secret@redis.local:6379");
    assert_eq!(redis.key_prefix, "ours:");
}

#[test]
fn sentinels_and_clusters_are_understood() {
    let redis = config(&[("REDIS_TYPE", "SENTINEL"), ("REDIS_URL", "mymaster,a:1,b:2")]).counters.redis;
    assert_eq!(redis.sentinel.unwrap().master, "mymaster");
    assert_eq!((redis.url.unwrap().expose(), redis.nodes[0].expose()), ("redis://a:1", "redis://b:2"));
    let redis = config(&[("REDIS_TYPE", "CLUSTER"), ("REDIS_URL", "a:1,b:2")]).counters.redis;
    assert!(redis.cluster && redis.nodes.len() == 1);
}

/// Further variables, one and its value, and the line that it makes; none where it is named as left out.
type Case<'c> = (&'c [(&'c str, &'c str)], &'c str, &'c str, Option<&'c str>);

/// Every variable that the reference documents, and what becomes of it.
#[test]
fn every_documented_variable_has_its_answer() {
    const REDIS: &[(&str, &str)] = &[("REDIS_URL", "a:1"), ("REDIS_TLS", "true")];
    const XDS: &[(&str, &str)] = &[("CONFIG_TYPE", "GRPC_XDS_SOTW")];
    let table: &[Case<'_>] = &[
        (&[], "PORT", "1", Some("http: 127.0.0.1:1")),
        (&[], "HOST", "10.0.0.1", None),
        (&[], "GRPC_HOST", "10.0.0.1", None),
        (&[], "GRPC_PORT", "1", Some("listen: 127.0.0.1:1")),
        (&[], "DEBUG_PORT", "1", Some("  listen: 127.0.0.1:1")),
        (&[], "GRPC_UDS", "/a", None),
        (&[], "GRPC_SERVER_USE_TLS", "true", None),
        (&[], "GRPC_SERVER_TLS_CERT", "a", None),
        (&[], "GRPC_SERVER_TLS_KEY", "a", None),
        (&[], "GRPC_CLIENT_TLS_CACERT", "a", None),
        (&[], "GRPC_CLIENT_TLS_SAN", "a", None),
        (&[], "LOG_LEVEL", "WARNING", Some("  log: warn")),
        (&[], "CONFIG_TYPE", "GRPC_XDS_DELTA", None),
        (XDS, "CONFIG_GRPC_XDS_NODE_ID", "n", Some("    node_id: \"n\"")),
        (XDS, "CONFIG_GRPC_XDS_SERVER_URL", "a:1", Some("    address: \"http://a:1\"")),
        (XDS, "CONFIG_GRPC_XDS_SERVER_USE_TLS", "true", Some("    address: \"https://localhost:18000\"")),
        (XDS, "CONFIG_GRPC_XDS_SERVER_CONNECT_RETRY_INTERVAL", "5s", Some("    retry_interval: 5s")),
        (XDS, "CONFIG_GRPC_XDS_SERVER_TLS_CACERT", "a", Some("    tls: {ca: \"a\"}")),
        (XDS, "CONFIG_GRPC_XDS_CLIENT_TLS_CERT", "a", Some("    tls: {cert: \"a\"}")),
        (XDS, "CONFIG_GRPC_XDS_CLIENT_TLS_KEY", "a", Some("    tls: {key: \"a\"}")),
        (XDS, "CONFIG_GRPC_XDS_SERVER_TLS_SAN", "a", Some("    tls: {server_name: \"a\"}")),
        (XDS, "CONFIG_GRPC_XDS_CLIENT_ADDITIONAL_HEADERS", "a:b", None),
        (XDS, "CONFIG_GRPC_XDS_NODE_METADATA", "a:b", None),
        (&[], "RUNTIME_ROOT", "/a", Some("  folder: \"/a/config\"")),
        (&[], "RUNTIME_SUBDIRECTORY", "b", Some("  folder: \"/srv/runtime_data/current/b/config\"")),
        (&[], "RUNTIME_APPDIRECTORY", "b", Some("  folder: \"/srv/runtime_data/current/b\"")),
        (&[], "LOCAL_CACHE_SIZE_IN_BYTES", "6400", Some("  remember_over: 100")),
        (&[], "NEAR_LIMIT_RATIO", "0.7", Some("near_ratio: 0.7")),
        (&[], "BACKEND_TYPE", "memcache", None),
        (REDIS, "CACHE_KEY_PREFIX", "p", Some("    key_prefix: \"p\"")),
        (&[], "STOP_CACHE_KEY_INCREMENT_WHEN_OVERLIMIT", "true", None),
        (&[], "LIMIT_RESPONSE_HEADERS_ENABLED", "true", Some("response_headers: {}")),
        (&[("LIMIT_RESPONSE_HEADERS_ENABLED", "true")], "LIMIT_LIMIT_HEADER", "a", Some("  limit: \"a\"")),
        (
            &[("LIMIT_RESPONSE_HEADERS_ENABLED", "true")],
            "LIMIT_REMAINING_HEADER",
            "a",
            Some("  remaining: \"a\""),
        ),
        (&[("LIMIT_RESPONSE_HEADERS_ENABLED", "true")], "LIMIT_RESET_HEADER", "a", Some("  reset: \"a\"")),
        (&[], "HEALTHY_WITH_AT_LEAST_ONE_CONFIG_LOADED", "true", None),
        (&[], "REDIS_URL", "a:1", Some("    url: \"redis://a:1\"")),
        (REDIS, "REDIS_TYPE", "CLUSTER", Some("    cluster: true")),
        (REDIS, "REDIS_AUTH", "s", Some("    url: \"rediss://:s@a:1\"")),
        (&[("REDIS_URL", "a:1")], "REDIS_TLS", "true", Some("    url: \"rediss://a:1\"")),
        (REDIS, "REDIS_TLS_CACERT", "a", Some("    tls: {ca: \"a\"}")),
        (REDIS, "REDIS_TLS_CLIENT_CERT", "a", Some("    tls: {cert: \"a\"}")),
        (REDIS, "REDIS_TLS_CLIENT_KEY", "a", Some("    tls: {key: \"a\"}")),
        (REDIS, "REDIS_TLS_SKIP_HOSTNAME_VERIFICATION", "true", None),
        (REDIS, "REDIS_PERSECOND", "true", None),
        (REDIS, "REDIS_PERSECOND_URL", "b:1", None),
        (REDIS, "REDIS_TIMEOUT", "5ms", Some("    timeout: 5ms")),
        (&[], "MEMCACHE_HOST_PORT", "a:1", None),
        (&[], "SHADOW_MODE", "true", Some("mode: shadow")),
        (&[], "MERGE_DOMAIN_CONFIG", "true", Some("  merge_domains: true")),
    ];
    for (with, name, value, expected) in table {
        let settings: Vec<_> = with.iter().copied().chain([(*name, *value)]).collect();
        let migrated = migrated(&settings);
        let is_named = migrated.left_out.iter().any(|line| line.contains(name));
        let (has_line, told) = match expected {
            Some(line) => (migrated.yaml.lines().any(|one| one == *line), &migrated.yaml),
            None => (true, &migrated.yaml),
        };
        assert!(has_line && is_named == expected.is_none(), "{name}: {told}");
    }
    // What concerns the reference's own works is passed over.
    for name in
        ["STATSD_PORT", "USE_PROMETHEUS", "REDIS_POOL_SIZE", "TRACING_ENABLED", "GRPC_MAX_CONNECTION_AGE"]
    {
        assert_eq!(migrated(&[(name, "1")]).left_out, [""; 0], "{name}");
    }
}

#[test]
fn nothing_is_lost_silently() {
    let left = migrated(&[
        ("REDIS_URL", "a:1"),
        ("REDIS_PERSECOND", "true"),
        ("BACKEND_TYPE", "redis"),
        ("GRPC_HOST", "0.0.0.0"),
        ("STATSD_HOST", "a"),
        ("RESPONSE_DYNAMIC_METADATA", "true"),
        ("HOME", "/root"),
    ])
    .left_out;
    assert_eq!(left.len(), 3, "{left:?}");
}
