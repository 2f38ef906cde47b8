//! From the environment of an envoyproxy/ratelimit to a configuration of ours.
//!
//! Pure: settings in, YAML out. What changes answers has a key here; what has none is named in a comment, so that
//! nothing is lost silently.

/// Settings that mean nothing here, by how their names begin: telemetry goes elsewhere, pools and threads are not ours.
const OF_NO_USE: &[&str] = &[
    "DISABLE_STATS",
    "DOG_STATSD",
    "USE_DOG_STATSD",
    "USE_STATSD",
    "STATSD_",
    "USE_PROMETHEUS",
    "PROMETHEUS_",
    "EXTRA_TAGS",
    "LOG_FORMAT",
    "GODEBUG",
    "GOMAXPROCS",
    "RUNTIME_WATCH_ROOT",
    "RUNTIME_IGNOREDOTFILES",
    "REDIS_POOL_",
    "REDIS_PIPELINE_",
    "REDIS_SOCKET_TYPE",
    "REDIS_HEALTH_CHECK",
    "FORCE_START_WITHOUT_INITIAL_CONFIG",
    "TRACING_",
    "EXPIRATION_JITTER_MAX_SECONDS",
    "GRPC_MAX_CONNECTION_AGE",
    "DEBUG_HOST",
    "USE_MINI_METRICS",
    "XDS_CLIENT_BACKOFF_",
];

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Migrated {
    /// The configuration.
    pub yaml: String,
    /// What could not be taken over, one line each.
    pub left_out: Vec<String>,
}

/// Translates what `setting` knows of the reference's variables; `names` are all there are.
pub fn migrate<'e>(
    setting: impl Fn(&str) -> Option<&'e str>,
    names: impl Iterator<Item = &'e str>,
) -> Migrated {
    let mut out = Migration { setting: &setting, used: Vec::new(), left_out: Vec::new() };
    let yaml = out.yaml();
    let Migration { used, mut left_out, .. } = out;
    for name in names.filter(|name| is_of_the_reference(name) && !used.contains(&(*name).to_owned())) {
        if !OF_NO_USE.iter().any(|start| name.starts_with(start)) {
            left_out.push(format!("{name} has no counterpart here"));
        }
    }
    left_out.sort();
    left_out.dedup();
    let comments: String = left_out.iter().map(|line| format!("# left out: {line}\n")).collect();
    Migrated { yaml: format!("{comments}{yaml}"), left_out }
}

fn is_of_the_reference(name: &str) -> bool {
    const STARTS: &[&str] = &[
        "RUNTIME_",
        "REDIS_",
        "MEMCACHE_",
        "GRPC_",
        "LIMIT_",
        "CONFIG_",
        "BACKEND_TYPE",
        "NEAR_LIMIT_RATIO",
        "SHADOW_MODE",
        "LOCAL_CACHE_SIZE_IN_BYTES",
        "CACHE_KEY_PREFIX",
        "MERGE_DOMAIN_CONFIG",
        "GLOBAL_QUOTA",
        "STOP_CACHE_KEY_INCREMENT_WHEN_OVERLIMIT",
        "RESPONSE_DYNAMIC_METADATA",
        "XDS_",
        "HEALTHY_WITH",
        "LOG_LEVEL",
        "DEBUG_PORT",
    ];
    STARTS.iter().any(|start| name.starts_with(start))
}

struct Migration<'a, F> {
    setting: &'a F,
    used: Vec<String>,
    left_out: Vec<String>,
}

impl<'e, F: Fn(&str) -> Option<&'e str>> Migration<'_, F> {
    fn get(&mut self, name: &str) -> Option<&'e str> {
        self.used.push(name.to_owned());
        (self.setting)(name).filter(|value| !value.is_empty())
    }

    fn is_on(&mut self, name: &str) -> bool {
        self.get(name)
            .is_some_and(|value| matches!(value.to_ascii_lowercase().as_str(), "true" | "1" | "t" | "yes"))
    }

    fn yaml(&mut self) -> String {
        let mut yaml = String::new();
        let mut line = |text: String| {
            yaml.push_str(&text);
            yaml.push('\n');
        };
        let port = self.get("GRPC_PORT").unwrap_or("8081");
        self.note_host("GRPC_HOST");
        line(format!("listen: 127.0.0.1:{port}"));
        let http = self.get("PORT").unwrap_or("8080");
        self.note_host("HOST");
        line(format!("http: 127.0.0.1:{http}"));
        let (root, below) = (self.get("RUNTIME_ROOT"), self.get("RUNTIME_SUBDIRECTORY"));
        let last = self.get("RUNTIME_APPDIRECTORY").unwrap_or("config");
        let folder = [root.unwrap_or("/srv/runtime_data/current"), below.unwrap_or_default(), last];
        let folder: Vec<_> =
            folder.iter().filter(|part| !part.is_empty()).map(|part| part.trim_end_matches('/')).collect();
        let xds = self.xds();
        line("limits:".to_owned());
        match xds {
            Some(lines) => lines.into_iter().for_each(&mut line),
            None => line(format!("  folder: {}", quoted(&folder.join("/")))),
        }
        if self.is_on("MERGE_DOMAIN_CONFIG") {
            line("  merge_domains: true".to_owned());
        }
        if self.is_on("SHADOW_MODE") {
            line("mode: shadow".to_owned());
        }
        if let Some(ratio) = self.get("NEAR_LIMIT_RATIO") {
            line(format!("near_ratio: {ratio}"));
        }
        let names = [
            ("limit", "LIMIT_LIMIT_HEADER"),
            ("remaining", "LIMIT_REMAINING_HEADER"),
            ("reset", "LIMIT_RESET_HEADER"),
        ];
        let names: Vec<_> =
            names.into_iter().filter_map(|(key, name)| Some((key, self.get(name)?))).collect();
        if self.is_on("LIMIT_RESPONSE_HEADERS_ENABLED") {
            line(if names.is_empty() { "response_headers: {}" } else { "response_headers:" }.to_owned());
            names.iter().for_each(|(key, name)| line(format!("  {key}: {}", quoted(name))));
        }
        let counters = self.counters();
        if !counters.is_empty() {
            line(format!("counters:\n{}", counters.join("\n")));
        }
        if let Some(level) = self.get("LOG_LEVEL") {
            line(format!("telemetry:\n  log: {}", level.to_ascii_lowercase().replace("warning", "warn")));
        }
        if let Some(debug) = self.get("DEBUG_PORT") {
            line(format!("process:\n  listen: 127.0.0.1:{debug}"));
        }
        yaml
    }

    /// Limits from an xDS server.
    fn xds(&mut self) -> Option<Vec<String>> {
        match self.get("CONFIG_TYPE") {
            None | Some("FILE") => return None,
            Some("GRPC_XDS_SOTW") => {}
            Some(other) => {
                self.left_out.push(format!("CONFIG_TYPE {other}: limits are in files, or at an xDS server"));
                return None;
            }
        }
        let scheme = if self.is_on("CONFIG_GRPC_XDS_SERVER_USE_TLS") { "https" } else { "http" };
        let server = self.get("CONFIG_GRPC_XDS_SERVER_URL").unwrap_or("localhost:18000");
        let mut lines =
            vec!["  xds:".to_owned(), format!("    address: {}", quoted(&format!("{scheme}://{server}")))];
        if let Some(node) = self.get("CONFIG_GRPC_XDS_NODE_ID") {
            lines.push(format!("    node_id: {}", quoted(node)));
        }
        if let Some(wait) = self.get("CONFIG_GRPC_XDS_SERVER_CONNECT_RETRY_INTERVAL") {
            lines.push(format!("    retry_interval: {wait}"));
        }
        let files = [
            ("ca", "CONFIG_GRPC_XDS_SERVER_TLS_CACERT"),
            ("cert", "CONFIG_GRPC_XDS_CLIENT_TLS_CERT"),
            ("key", "CONFIG_GRPC_XDS_CLIENT_TLS_KEY"),
            ("server_name", "CONFIG_GRPC_XDS_SERVER_TLS_SAN"),
        ];
        let files: Vec<_> = files
            .into_iter()
            .filter_map(|(key, name)| Some(format!("{key}: {}", quoted(self.get(name)?))))
            .collect();
        if !files.is_empty() {
            lines.push(format!("    tls: {{{}}}", files.join(", ")));
        }
        Some(lines)
    }

    /// Plaintext listeners are on loopback here.
    fn note_host(&mut self, name: &str) {
        if let Some(host) = self.get(name)
            && !matches!(host, "127.0.0.1" | "localhost" | "::1")
        {
            self.left_out.push(format!("{name} {host}: a listener without TLS is on loopback"));
        }
    }

    fn counters(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        if let Some(bytes) = self.get("LOCAL_CACHE_SIZE_IN_BYTES").and_then(|bytes| bytes.parse::<u64>().ok())
        {
            // A place of ours takes about as much as an entry of the reference's cache.
            lines.push(format!("  remember_over: {}", bytes / 64));
        }
        match self.get("BACKEND_TYPE") {
            None | Some("redis") => {}
            Some(other) => {
                self.left_out.push(format!("BACKEND_TYPE {other}: counters are in memory or in Redis"));
                return lines;
            }
        }
        let Some(url) = self.get("REDIS_URL") else { return lines };
        let secure = self.is_on("REDIS_TLS");
        let scheme = if secure { "rediss" } else { "redis" };
        let login = match self.get("REDIS_AUTH") {
            None => String::new(),
            Some(auth) if auth.contains(':') => format!("{auth}@"),
            Some(password) => format!(":{password}@"),
        };
        let address = |host: &str| {
            let host = host.rsplit_once("://").map_or(host, |(_, host)| host);
            quoted(&format!("{scheme}://{login}{host}"))
        };
        let mut hosts: Vec<&str> = url.split(',').map(str::trim).filter(|host| !host.is_empty()).collect();
        lines.push("  redis:".to_owned());
        match self.get("REDIS_TYPE").map(str::to_ascii_uppercase).as_deref() {
            Some("SENTINEL") => {
                // The first is the master's name, the others are the Sentinels.
                let master = if hosts.is_empty() { "" } else { hosts.remove(0) };
                let password =
                    self.get("REDIS_SENTINEL_AUTH").map(|auth| format!(", password: {}", quoted(auth)));
                let password = password.unwrap_or_default();
                lines.push(format!("    sentinel: {{master: {}{password}}}", quoted(master)));
            }
            Some("CLUSTER") => lines.push("    cluster: true".to_owned()),
            _ => hosts.truncate(1),
        }
        if let Some(first) = hosts.first() {
            lines.push(format!("    url: {}", address(first)));
        }
        if hosts.len() > 1 {
            let nodes: Vec<_> = hosts[1..].iter().map(|host| address(host)).collect();
            lines.push(format!("    nodes: [{}]", nodes.join(", ")));
        }
        if let Some(prefix) = self.get("CACHE_KEY_PREFIX") {
            lines.push(format!("    key_prefix: {}", quoted(prefix)));
        }
        if let Some(timeout) = self.get("REDIS_TIMEOUT") {
            lines.push(format!("    timeout: {timeout}"));
        }
        let files =
            [("ca", "REDIS_TLS_CACERT"), ("cert", "REDIS_TLS_CLIENT_CERT"), ("key", "REDIS_TLS_CLIENT_KEY")];
        let files: Vec<_> = files
            .into_iter()
            .filter_map(|(key, name)| Some(format!("{key}: {}", quoted(self.get(name)?))))
            .collect();
        if !files.is_empty() {
            lines.push(format!("    tls: {{{}}}", files.join(", ")));
        }
        if self.is_on("REDIS_PERSECOND") {
            self.left_out.push("REDIS_PERSECOND: all counters are in one Redis".to_owned());
        }
        lines
    }
}

/// A YAML text in double quotes.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
#[path = "migrate_tests.rs"]
mod tests;
