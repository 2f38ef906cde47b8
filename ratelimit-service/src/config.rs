//! What an operator may set, its defaults, and the only place that checks it.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tollgate_identity::IdPattern;
use tollgate_identity::config::IdentityConfig;
use tollgate_identity::tls::{Clients, DoorTls};
use tollgate_runtime::config::{Invalid, Secret, ServiceConfig, duration};
use tollgate_runtime::process::ProcessConfig;
use tollgate_runtime::telemetry::TelemetryConfig;

use crate::answer::{Enforcement, HeaderNames, Manner};
use crate::counters::redis::{Target, TlsFiles, Topology};
use crate::counters::{Bounds, OnError};
use crate::limits::{Domains, Folder};
use crate::quota::hub::Settings;
use crate::xds::XdsConfig;

/// Counters the memory may be told to hold; more would need another kind of machine.
const MOST_KEYS: usize = 100_000_000;
/// Bytes the memory may be told to hold.
const MOST_BYTES: usize = 1 << 40;
/// How long an assignment may live.
const SHORTEST_TTL: Duration = Duration::from_secs(5);
const LONGEST_TTL: Duration = Duration::from_secs(600);
/// A proxy waits 20 ms for the whole call unless told otherwise.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(1);

/// The configuration of the rate-limit service.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The process listener and the grace for stopping.
    #[serde(default)]
    pub process: ProcessConfig,
    /// Traces, metrics and logs.
    #[serde(default)]
    pub telemetry: TelemetryConfig,
    /// Where proxies call the rate limit service (gRPC).
    #[serde(default = "default_listen")]
    pub listen: SocketAddr,
    /// Where this service's own certificate comes from. With it callers at `listen` must show one; without it they are on
    /// this machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<IdentityConfig>,
    /// Who may call at `listen`: SPIFFE ids, or patterns ending in `/*`. Everybody of our trust domain if none is named.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub callers: Vec<IdPattern>,
    /// The HTTP door, for people and tools: asking by JSON, live view, explanation, trial, reset. There is none unless
    /// it is set.
    #[serde(default)]
    pub http: Option<SocketAddr>,
    /// How the HTTP door speaks TLS. Without it the door is for this machine, where everybody is believed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http_tls: Option<DoorTls>,
    /// Who may come in by the HTTP door over TLS: SPIFFE ids, or patterns ending in `/*`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub http_callers: Vec<IdPattern>,
    /// Whether the gRPC port tells tools what it speaks (gRPC reflection).
    #[serde(default = "default_reflection")]
    pub reflection: bool,
    /// Where the limits are.
    pub limits: LimitsConfig,
    /// `enforce`, or `shadow`: every request passes, and statuses and metrics tell what would not have.
    #[serde(default)]
    pub mode: Enforcement,
    /// The share of a limit above which it counts as near, in metrics and the live view.
    #[serde(default = "default_near_ratio")]
    pub near_ratio: f64,
    /// Headers for the client about the tightest limit, made here; proxies make better ones from the statuses, so
    /// they are off unless named.
    #[serde(default)]
    pub response_headers: Option<HeaderNames>,
    /// Where counts live.
    #[serde(default)]
    pub counters: CountersConfig,
    /// Limits that proxies hold by themselves, by shares dealt out here.
    #[serde(default)]
    pub quota: QuotaConfig,
    /// Calls of the last day, kept for trying limits on them.
    #[serde(default)]
    pub arrivals: ArrivalsConfig,
}

/// Calls of the last day.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ArrivalsConfig {
    /// Bytes they may take; 0 keeps none. Where more comes, part of the callers is kept, each whole.
    pub max_bytes: usize,
}

impl Default for ArrivalsConfig {
    fn default() -> Self {
        Self { max_bytes: 64 << 20 }
    }
}

/// How shares of limits are dealt out.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct QuotaConfig {
    /// How long an assignment lives. Envoy reports every five seconds, so less than 10s loses shares by chance.
    #[serde(with = "duration")]
    pub ttl: Duration,
    /// When the share of a lost stream returns: `expiry` of its assignment, or `at_once`, which adds its share times
    /// the lifetime to what may pass.
    pub reclaim: Reclaim,
}

/// When the share of a lost stream returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reclaim {
    /// When its assignment has expired: the proxy may live on and use it.
    #[default]
    Expiry,
    /// At once.
    AtOnce,
}

impl Default for QuotaConfig {
    fn default() -> Self {
        Self { ttl: Duration::from_secs(15), reclaim: Reclaim::default() }
    }
}

impl QuotaConfig {
    /// As the hub wants to know it.
    pub fn settings(&self) -> Settings {
        Settings { ttl: self.ttl, reclaim_at_once: self.reclaim == Reclaim::AtOnce }
    }
}

/// Where the limits are.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LimitsConfig {
    /// A folder of files in envoyproxy/ratelimit's format, one a domain. Changes are taken while running.
    #[serde(default)]
    pub folder: Option<PathBuf>,
    /// An xDS server that has them, in place of a folder.
    #[serde(default)]
    pub xds: Option<XdsConfig>,
    /// Whether several files may make one domain, as long as no key stands in two of them.
    #[serde(default)]
    pub merge_domains: bool,
}

impl LimitsConfig {
    /// As the folder's reader wants to know it.
    pub fn domains(&self) -> Domains {
        if self.merge_domains { Domains::Merged } else { Domains::OneFileEach }
    }

    fn check(&self) -> Result<(), Invalid> {
        match (&self.folder, &self.xds) {
            // The limits are part of the input: `--check-config` and the start refuse wrong ones alike.
            (Some(folder), None) => Folder::read(folder)
                .and_then(|folder| folder.compile_with(self.domains()))
                .map(drop)
                .map_err(|error| {
                    Invalid::new("limits.folder", error.to_string(), "a folder of valid limits files")
                }),
            (None, Some(xds)) => xds.check(),
            (Some(_), Some(_)) => Err(Invalid::new("limits.xds", "stands beside `folder`", "one of the two")),
            (None, None) => {
                Err(Invalid::new("limits", "come from nowhere", "`folder`, or `xds` with an address"))
            }
        }
    }
}

/// Where counts live.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CountersConfig {
    /// Counters kept in this process at most; a full store forgets the smallest.
    pub max_keys: usize,
    /// Bytes they and their tables may take at most.
    pub max_bytes: usize,
    /// A file that the counters of this process are written to when it stops, and read from when it starts; with
    /// Redis it is not used. Without it a restart begins with nothing.
    pub snapshot: Option<PathBuf>,
    /// Counters that are over their limit and remembered here for a moment, so that they cost Redis nothing.
    pub remember_over: usize,
    /// Counters in Redis, shared by replicas; used when it has a `url`.
    pub redis: RedisConfig,
    /// What happens while Redis does not answer: `allow`, `deny`, or `local` (each replica holds its share of a limit).
    pub on_error: OnError,
}

impl Default for CountersConfig {
    fn default() -> Self {
        Self {
            max_keys: 1_000_000,
            max_bytes: 512 << 20,
            snapshot: None,
            remember_over: 65_536,
            redis: RedisConfig::default(),
            on_error: OnError::default(),
        }
    }
}

/// The Redis server.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RedisConfig {
    /// `redis://[user:password@]host[:port][/database]`, `rediss://` with TLS; also `TOLLGATE_REDIS_URL`.
    /// With `sentinel` or `cluster`, the address of one of their nodes, with the server's user, password and database.
    pub url: Option<Secret>,
    /// Further Sentinels, or nodes of the Cluster, as URLs.
    pub nodes: Vec<Secret>,
    /// The addresses are Sentinels, which know the master.
    pub sentinel: Option<SentinelConfig>,
    /// The addresses are nodes of a Cluster.
    pub cluster: bool,
    /// Certificates, where the system's do not do.
    pub tls: RedisTlsConfig,
    /// Stands before the name of every key.
    pub key_prefix: String,
    /// How long one call may wait for it.
    #[serde(with = "duration")]
    pub timeout: Duration,
}

/// Sentinels.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SentinelConfig {
    /// The name they know the master by.
    pub master: String,
    /// Their own password, if they have one.
    #[serde(default)]
    pub password: Option<Secret>,
}

/// Certificates for Redis, as PEM files.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RedisTlsConfig {
    /// Who is trusted, in place of the system's roots.
    pub ca: Option<PathBuf>,
    /// Our certificate.
    pub cert: Option<PathBuf>,
    /// Its key.
    pub key: Option<PathBuf>,
}

impl Default for RedisConfig {
    fn default() -> Self {
        Self {
            url: None,
            nodes: Vec::new(),
            sentinel: None,
            cluster: false,
            tls: RedisTlsConfig::default(),
            key_prefix: String::new(),
            timeout: Duration::from_millis(10),
        }
    }
}

impl RedisConfig {
    /// How to reach it, where it has an address.
    pub fn target(&self) -> Option<Target> {
        let topology = match &self.sentinel {
            Some(sentinel) => {
                Topology::Sentinel { master: sentinel.master.clone(), password: sentinel.password.clone() }
            }
            None if self.cluster => Topology::Cluster,
            None => Topology::Single,
        };
        let tls =
            TlsFiles { ca: self.tls.ca.clone(), client: self.tls.cert.clone().zip(self.tls.key.clone()) };
        Some(Target { url: self.url.clone()?, nodes: self.nodes.clone(), topology, tls })
    }

    fn check(&self) -> Result<(), Invalid> {
        let flaw = |key: &str, problem: String, remedy: &str| {
            Err(Invalid::new(format!("counters.redis.{key}"), problem, remedy))
        };
        if self.timeout.is_zero() || self.timeout > LONGEST_TIMEOUT {
            return flaw("timeout", format!("is {}", duration::format(self.timeout)), "1ms to 1s");
        }
        if self.sentinel.is_some() && self.cluster {
            return flaw("cluster", "stands beside `sentinel`".to_owned(), "one of the two");
        }
        if !self.nodes.is_empty() && self.sentinel.is_none() && !self.cluster {
            return flaw(
                "nodes",
                "has further addresses of a single server".to_owned(),
                "`sentinel` or `cluster`",
            );
        }
        if self.tls.cert.is_some() != self.tls.key.is_some() {
            return flaw("tls", "has one of certificate and key".to_owned(), "`cert` and `key`, or neither");
        }
        if self.key_prefix.contains(['{', '}']) {
            return flaw(
                "key_prefix",
                "has braces, which choose a Cluster's node".to_owned(),
                "other letters",
            );
        }
        if let Some(target) = self.target() {
            let secure = target.url.expose().starts_with("rediss://");
            if !secure && (self.tls.ca.is_some() || self.tls.cert.is_some()) {
                return flaw("tls", "has files, and the url is without TLS".to_owned(), "a rediss:// url");
            }
            if let Err(error) = target.check() {
                return flaw("url", format!("is not a Redis URL ({error})"), "redis://host:port/database");
            }
        }
        Ok(())
    }
}

fn default_near_ratio() -> f64 {
    0.8
}

fn default_reflection() -> bool {
    true
}

fn default_listen() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 7002).into()
}

impl Config {
    /// The defaults, with limits from this folder.
    pub fn with_folder(folder: impl Into<PathBuf>) -> Self {
        Self {
            identity: None,
            callers: Vec::new(),
            process: ProcessConfig::default(),
            telemetry: TelemetryConfig::default(),
            listen: default_listen(),
            http: None,
            http_tls: None,
            http_callers: Vec::new(),
            reflection: default_reflection(),
            limits: LimitsConfig { folder: Some(folder.into()), xds: None, merge_domains: false },
            mode: Enforcement::default(),
            near_ratio: default_near_ratio(),
            response_headers: None,
            counters: CountersConfig::default(),
            quota: QuotaConfig::default(),
            arrivals: ArrivalsConfig::default(),
        }
    }

    fn check_door(&self) -> Result<(), Invalid> {
        let Some(tls) = &self.http_tls else { return Ok(()) };
        tls.check("http_tls", Clients::Required, self.identity.is_some())?;
        if tls.clients.is_some_and(|clients| clients != Clients::Required) {
            let problem = "lets in who shows no certificate, and this door knows its callers by nothing else";
            return Err(Invalid::new("http_tls.clients", problem, "`required`"));
        }
        if self.http_callers.is_empty() {
            let remedy = "ids such as spiffe://example.org/ns/tollgate-system/sa/operator";
            return Err(Invalid::new("http_callers", "names nobody who may come in by TLS", remedy));
        }
        Ok(())
    }

    /// What counters in this process may take.
    pub fn bounds(&self) -> Bounds {
        Bounds { max_keys: self.counters.max_keys, max_bytes: self.counters.max_bytes }
    }

    /// How answers are made.
    pub fn manner(&self) -> Manner {
        Manner { enforcement: self.mode, near_ratio: self.near_ratio, headers: self.response_headers.clone() }
    }
}

impl ServiceConfig for Config {
    const NAME: &'static str = "ratelimit";
    const ENV_SHORT: &'static [(&'static str, &'static str)] =
        &[("TOLLGATE_REDIS_URL", "counters.redis.url")];

    fn process(&self) -> &ProcessConfig {
        &self.process
    }

    fn telemetry(&self) -> &TelemetryConfig {
        &self.telemetry
    }

    fn check(&self) -> Result<(), Invalid> {
        if !(1..=MOST_KEYS).contains(&self.counters.max_keys) {
            let problem = format!("is {}", self.counters.max_keys);
            return Err(Invalid::new("counters.max_keys", problem, format!("1 to {MOST_KEYS}")));
        }
        if !(1 << 20..=MOST_BYTES).contains(&self.counters.max_bytes) {
            let problem = format!("is {}", self.counters.max_bytes);
            return Err(Invalid::new("counters.max_bytes", problem, format!("{} to {MOST_BYTES}", 1 << 20)));
        }
        if !(0.0..=1.0).contains(&self.near_ratio) {
            return Err(Invalid::new("near_ratio", format!("is {}", self.near_ratio), "0.0 to 1.0"));
        }
        if let Some(identity) = &self.identity {
            identity.check("identity")?;
        }
        self.check_door()?;
        self.counters.redis.check()?;
        let ttl = self.quota.ttl;
        if !(SHORTEST_TTL..=LONGEST_TTL).contains(&ttl) {
            let problem = format!("is {}", duration::format(ttl));
            return Err(Invalid::new("quota.ttl", problem, "5s to 10m"));
        }
        self.limits.check()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use tollgate_runtime::config::{Env, load};

    use super::*;

    fn checked(text: &str, env: &Env) -> Result<Config, String> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ratelimit.yaml");
        std::fs::create_dir(folder.path().join("limits")).unwrap();
        std::fs::write(&file, text.replace("LIMITS", folder.path().join("limits").to_str().unwrap()))
            .unwrap();
        load(&file, &[], env).map(|loaded| loaded.config).map_err(|error| error.to_string())
    }

    #[test]
    fn defaults_need_only_a_folder() {
        let config = checked("limits: {folder: LIMITS}", &Env::empty()).unwrap();
        assert_eq!(config.listen, "127.0.0.1:7002".parse().unwrap());
        assert!(config.counters.redis.url.is_none());
        assert_eq!(config.counters.redis.timeout, Duration::from_millis(10));
    }

    #[test]
    fn one_variable_switches_to_redis_and_its_password_is_not_shown() {
        let env = Env::of([("TOLLGATE_REDIS_URL", "redis://:secret@localhost:1")]);
        let config = checked("limits: {folder: LIMITS}", &env).unwrap();
        assert_eq!(config.counters.redis.url.as_ref().unwrap().expose(), "redis://:secret@localhost:1");
        assert!(!format!("{config:?}").contains("secret"));
    }

    #[test]
    fn wrong_values_are_named() {
        let table = [
            ("limits: {folder: LIMITS}\ncounters: {max_keys: 0}", "counters.max_keys"),
            ("limits: {folder: LIMITS}\ncounters: {redis: {timeout: 2m}}", "counters.redis.timeout"),
            ("limits: {folder: LIMITS}\ncounters: {redis: {url: 'http://x'}}", "counters.redis.url"),
            ("limits: {folder: LIMITS}\ncounters: {redis: {nodes: ['redis://a']}}", "counters.redis.nodes"),
            (
                "limits: {folder: LIMITS}\ncounters: {redis: {cluster: true, sentinel: {master: m}}}",
                "counters.redis.cluster",
            ),
            ("limits: {folder: LIMITS}\ncounters: {redis: {tls: {cert: a}}}", "counters.redis.tls"),
            ("limits: {folder: LIMITS}\ncounters: {redis: {key_prefix: '{a}'}}", "counters.redis.key_prefix"),
            ("limits: {folder: LIMITS}\ncounters: {max_bytes: 5}", "counters.max_bytes"),
            ("limits: {folder: LIMITS}\nnear_ratio: 2.0", "near_ratio"),
            ("limits: {folder: LIMITS}\nquota: {ttl: 1s}", "quota.ttl"),
            ("limits: {folder: LIMITS}\ncounters: {on_error: panic}", "on_error"),
            ("limits: {folder: LIMITS}\nport: 1", "port"),
            ("limits: {folder: /nowhere}", "limits.folder"),
            ("limits: {}", "limits"),
            ("limits: {folder: LIMITS, xds: {address: 'http://a:1'}}", "limits.xds"),
            ("limits: {xds: {address: 'a:1'}}", "limits.xds.address"),
            ("limits: {xds: {address: 'https://a:1'}}", "limits.xds.tls.ca"),
            ("limits: {xds: {address: 'http://a:1', tls: {ca: a}}}", "limits.xds.tls"),
            ("limits: {xds: {address: 'http://a:1', retry_interval: 2m}}", "limits.xds.retry_interval"),
            ("listen: 127.0.0.1:1", "limits"),
        ];
        for (text, key) in table {
            let error = checked(text, &Env::empty()).unwrap_err();
            assert!(error.contains(key), "{text}: {error}");
        }
    }

    #[test]
    fn the_example_loads() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let sets = [format!("limits.folder={}", root.join("config/limits").display())];
        let loaded = load::<Config>(&root.join("config/ratelimit.yaml"), &sets, &Env::empty()).unwrap();
        let set = Folder::read(&loaded.config.limits.folder.unwrap()).unwrap().compile().unwrap();
        let rule = set.domain("insurance").unwrap().find([("subject", "reader")]);
        assert_eq!(rule[0].name(), "per-subject");
    }
}
