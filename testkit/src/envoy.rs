//! A real, unmodified Envoy, for tests of what it makes of our answers.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::ports::free_addresses;

/// How long Envoy may take to say that it is live.
const START_DEADLINE: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A running Envoy with one HTTP listener.
#[derive(Debug)]
pub struct Envoy {
    process: Child,
    address: SocketAddr,
    admin: SocketAddr,
    folder: TempDir,
}

/// Whom it asks and where it forwards.
#[derive(Debug, Clone)]
pub struct EnvoyConfig {
    /// Answers `Authorization/Check`, where it is asked.
    pub authz: Option<SocketAddr>,
    /// Answers `RateLimitService/ShouldRateLimit`, where it is asked.
    pub ratelimit: Option<SocketAddr>,
    /// The only upstream.
    pub upstream: SocketAddr,
    /// Where OTLP access logs go, if anywhere.
    pub otlp: Option<SocketAddr>,
    /// Worker threads.
    pub concurrency: u32,
    /// Sent as `context_extensions["tollgate.service"]`.
    pub service: &'static str,
    /// The rate-limit domain.
    pub domain: &'static str,
    /// The folder with `tls.crt`, `tls.key` and `ca.crt` by which it speaks mTLS to all of them; plaintext without.
    pub identity: Option<PathBuf>,
}

impl Envoy {
    /// Starts it and waits until it is live.
    ///
    /// # Panics
    /// Where `envoy` is not installed, or does not start: the test cannot say anything then.
    pub fn start(config: &EnvoyConfig) -> Self {
        Self::start_from(config.concurrency, |address, admin| bootstrap(config, address, admin))
    }

    /// As [`Self::start`], with a bootstrap of the caller's own, made for these addresses of listener and admin.
    ///
    /// # Panics
    /// As [`Self::start`].
    pub fn start_from(concurrency: u32, bootstrap: impl FnOnce(SocketAddr, SocketAddr) -> String) -> Self {
        let folder = TempDir::new().expect("a temporary folder can be made");
        let [address, admin] = free_addresses();
        let file = folder.path().join("envoy.json");
        std::fs::write(&file, bootstrap(address, admin)).expect("the folder is writable");
        let log = std::fs::File::create(folder.path().join("envoy.log")).expect("the folder is writable");
        let child = Command::new(binary())
            .arg("-c")
            .arg(&file)
            .args(["--concurrency", &concurrency.to_string(), "--log-level", "warn", "--use-dynamic-base-id"])
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        let process = child.unwrap_or_else(|error| {
            panic!("this test needs Envoy 1.40 ({error}); tools/test-dependencies installs it into .venv")
        });
        let mut envoy = Self { process, address, admin, folder };
        let deadline = Instant::now() + START_DEADLINE;
        while !envoy.is_live() {
            let ended = envoy.process.try_wait().is_ok_and(|status| status.is_some());
            assert!(!ended && Instant::now() < deadline, "envoy did not start: {}", envoy.log());
            std::thread::sleep(LOOK_EVERY);
        }
        envoy
    }

    /// Its HTTP listener.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends it at once, as a crash would.
    pub fn kill(&mut self) {
        // It may have ended by itself; then there is nothing to kill.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }

    /// Its process id, for measuring.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    fn is_live(&self) -> bool {
        let mut answer = String::new();
        TcpStream::connect(self.admin)
            .and_then(|mut stream| {
                stream.set_read_timeout(Some(Duration::from_secs(1)))?;
                stream.write_all(b"GET /ready HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n\r\n")?;
                stream.read_to_string(&mut answer)
            })
            .is_ok_and(|_| answer.contains("LIVE"))
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("envoy.log")).unwrap_or_default()
    }
}

impl Drop for Envoy {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The one in the workspace's Python environment, else the one on the PATH.
fn binary() -> PathBuf {
    let installed = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.venv/bin/envoy");
    if installed.exists() { installed } else { PathBuf::from("envoy") }
}

fn bootstrap(config: &EnvoyConfig, address: SocketAddr, admin: SocketAddr) -> String {
    let access_log = match config.otlp {
        None => String::new(),
        Some(_) => r#""access_log": [{"name": "otlp", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.access_loggers.open_telemetry.v3.OpenTelemetryAccessLogConfig",
            "grpc_service": {"envoy_grpc": {"cluster_name": "otlp"}}, "log_name": "access",
            "body": {"string_value": "%REQ(:METHOD)% %REQ(:PATH)% %RESPONSE_CODE%"},
            "attributes": {"values": [
                {"key": "http.request.method", "value": {"string_value": "%REQ(:METHOD)%"}},
                {"key": "url.path", "value": {"string_value": "%REQ(:PATH)%"}},
                {"key": "server.address", "value": {"string_value": "%REQ(:AUTHORITY)%"}},
                {"key": "http.response.status_code", "value": {"string_value": "%RESPONSE_CODE%"}},
                {"key": "response_flags", "value": {"string_value": "%RESPONSE_FLAGS%"}},
                {"key": "response_code_details", "value": {"string_value": "%RESPONSE_CODE_DETAILS%"}},
                {"key": "duration", "value": {"string_value": "%DURATION%"}},
                {"key": "bytes_sent", "value": {"string_value": "%BYTES_SENT%"}},
                {"key": "bytes_received", "value": {"string_value": "%BYTES_RECEIVED%"}},
                {"key": "upstream_host", "value": {"string_value": "%UPSTREAM_HOST%"}},
                {"key": "request_id", "value": {"string_value": "%REQ(X-REQUEST-ID)%"}},
                {"key": "user_agent", "value": {"string_value": "%REQ(USER-AGENT)%"}}
            ]}}}],"#
            .to_owned(),
    };
    let otlp = config.otlp.map(|addr| format!(", {}", cluster("otlp", addr, true))).unwrap_or_default();
    let asked = |name, address: Option<SocketAddr>| {
        let asked = address.map(|address| format!(", {}", secured(cluster(name, address, true), config)));
        asked.unwrap_or_default()
    };
    format!(
        r#"{{
  "admin": {{"address": {admin}}},
  "static_resources": {{
    "listeners": [{{"name": "in", "address": {address}, "filter_chains": [{{"filters": [{{
      "name": "hcm", "typed_config": {{
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "in", {access_log}
        "route_config": {{"virtual_hosts": [{{"name": "all", "domains": ["*"], "routes": [{{
          "match": {{"prefix": "/"}},
          "route": {{"cluster": "upstream"{limits}}}{check}
        }}]}}]}},
        "http_filters": [
          {filters}
          {{"name": "router", "typed_config": {{"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}}}
        ]
      }}
    }}]}}]}}],
    "clusters": [{upstream}{authz}{ratelimit}{otlp}]
  }}
}}"#,
        admin = socket_address(admin),
        address = socket_address(address),
        check = config.authz.map_or_else(String::new, |_| about(config.service)),
        limits = config.ratelimit.map_or_else(String::new, |_| LIMITED_BY_SUBJECT.to_owned()),
        filters = filters(config),
        authz = asked("authz", config.authz),
        ratelimit = asked("ratelimit", config.ratelimit),
        upstream = secured(cluster("upstream", config.upstream, false), config),
    )
}

/// A descriptor of the subject that authorization has told.
const LIMITED_BY_SUBJECT: &str = r#", "rate_limits": [{"actions": [{"metadata": {
    "descriptor_key": "subject",
    "metadata_key": {"key": "envoy.filters.http.ext_authz", "path": [{"key": "tollgate"}, {"key": "subject"}]}
}}]}]"#;

/// Which service a Check is about.
fn about(service: &str) -> String {
    format!(
        r#", "typed_per_filter_config": {{"ext_authz": {{
            "@type": "type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute",
            "check_settings": {{"context_extensions": {{"tollgate.service": "{service}", "tollgate.point": "ingress"}}}}
        }}}}"#
    )
}

/// The filters before the router, each with a comma behind it.
fn filters(config: &EnvoyConfig) -> String {
    let authz = r#"{"name": "ext_authz", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz",
        "transport_api_version": "V3",
        "grpc_service": {"envoy_grpc": {"cluster_name": "authz"}, "timeout": "1s"}}},"#;
    let ratelimit = format!(
        r#"{{"name": "ratelimit", "typed_config": {{
        "@type": "type.googleapis.com/envoy.extensions.filters.http.ratelimit.v3.RateLimit",
        "domain": "{}", "enable_x_ratelimit_headers": "DRAFT_VERSION_03", "timeout": "1s",
        "rate_limit_service": {{"transport_api_version": "V3", "grpc_service": {{"envoy_grpc": {{"cluster_name": "ratelimit"}}}}}}}}}},"#,
        config.domain
    );
    config.authz.map_or("", |_| authz).to_owned() + config.ratelimit.map_or("", |_| &ratelimit)
}

pub(crate) fn socket_address(addr: SocketAddr) -> String {
    format!(r#"{{"socket_address": {{"address": "{}", "port_value": {}}}}}"#, addr.ip(), addr.port())
}

/// The same cluster over mTLS, where Envoy has an identity. Who answers is believed by our root.
fn secured(cluster: String, config: &EnvoyConfig) -> String {
    let Some(folder) = &config.identity else { return cluster };
    let file = |name: &str| folder.join(name).display().to_string();
    let open = cluster.strip_suffix('}').unwrap_or(&cluster);
    format!(
        r#"{open}, "transport_socket": {{"name": "tls", "typed_config": {{
           "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
           "common_tls_context": {{
             "tls_params": {{"tls_maximum_protocol_version": "TLSv1_3"}},
             "tls_certificates": [{{"certificate_chain": {{"filename": "{}"}}, "private_key": {{"filename": "{}"}}}}],
             "validation_context": {{"trusted_ca": {{"filename": "{}"}}}}
           }}}}}}}}"#,
        file("tls.crt"),
        file("tls.key"),
        file("ca.crt")
    )
}

pub(crate) fn cluster(name: &str, addr: SocketAddr, http2: bool) -> String {
    let protocol = if http2 {
        r#", "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": {"http2_protocol_options": {}}}}"#
    } else {
        ""
    };
    format!(
        r#"{{"name": "{name}", "type": "STATIC", "connect_timeout": "1s",
           "circuit_breakers": {{"thresholds": [{{"max_requests": 100000, "max_pending_requests": 100000, "max_connections": 100000}}]}},
           "load_assignment": {{"cluster_name": "{name}", "endpoints": [{{"lb_endpoints": [{{"endpoint": {{"address": {}}}}}]}}]}}{protocol}}}"#,
        socket_address(addr)
    )
}
