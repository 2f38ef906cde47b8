//! What an operator may set, its defaults, and the only place that checks it.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tollgate_runtime::config::{Invalid, Secret, ServiceConfig, duration};
use tollgate_runtime::process::ProcessConfig;
use tollgate_runtime::telemetry::TelemetryConfig;

use crate::answer::Enforcement;
use crate::counters::OnError;
use crate::limits::Folder;

/// Counters the memory may be told to hold; more would need another kind of machine.
const MOST_KEYS: usize = 100_000_000;
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
    /// Where the limits are.
    pub limits: LimitsConfig,
    /// `enforce`, or `shadow`: every request passes, and statuses and metrics tell what would not have.
    #[serde(default)]
    pub mode: Enforcement,
    /// Where counts live.
    #[serde(default)]
    pub counters: CountersConfig,
}

/// Where the limits are.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LimitsConfig {
    /// A folder of files in envoyproxy/ratelimit's format, one a domain. Changes are taken while running.
    pub folder: PathBuf,
}

/// Where counts live.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CountersConfig {
    /// Counters kept in this process at most; a full store forgets the smallest.
    pub max_keys: usize,
    /// Counters in Redis, shared by replicas; used when it has a `url`.
    pub redis: RedisConfig,
    /// What happens while Redis does not answer: `allow`, `deny`, or `local` (each replica counts for itself).
    pub on_error: OnError,
}

impl Default for CountersConfig {
    fn default() -> Self {
        Self { max_keys: 1_000_000, redis: RedisConfig::default(), on_error: OnError::default() }
    }
}

/// The Redis server.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RedisConfig {
    /// `redis://[user:password@]host[:port][/database]`; also `TOLLGATE_REDIS_URL`.
    pub url: Option<Secret>,
    /// How long one call may wait for it.
    #[serde(with = "duration")]
    pub timeout: Duration,
}

impl Default for RedisConfig {
    fn default() -> Self {
        Self { url: None, timeout: Duration::from_millis(10) }
    }
}

fn default_listen() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 7002).into()
}

impl Config {
    /// The defaults, with limits from this folder.
    pub fn with_folder(folder: impl Into<PathBuf>) -> Self {
        Self {
            process: ProcessConfig::default(),
            telemetry: TelemetryConfig::default(),
            listen: default_listen(),
            limits: LimitsConfig { folder: folder.into() },
            mode: Enforcement::default(),
            counters: CountersConfig::default(),
        }
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
        let timeout = self.counters.redis.timeout;
        if timeout.is_zero() || timeout > LONGEST_TIMEOUT {
            let problem = format!("is {}", duration::format(timeout));
            return Err(Invalid::new("counters.redis.timeout", problem, "1ms to 1s"));
        }
        if let Some(url) = &self.counters.redis.url
            && let Err(error) = redis::Client::open(url.expose())
        {
            let problem = format!("is not a Redis URL ({error})");
            return Err(Invalid::new("counters.redis.url", problem, "redis://host:port/database"));
        }
        // The limits are part of the input: `--check-config` and the start refuse wrong ones alike.
        Folder::read(&self.limits.folder).and_then(|folder| folder.compile()).map_err(|error| {
            Invalid::new("limits.folder", error.to_string(), "a folder of valid limits files")
        })?;
        Ok(())
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
            ("limits: {folder: LIMITS}\ncounters: {on_error: panic}", "on_error"),
            ("limits: {folder: LIMITS}\nport: 1", "port"),
            ("limits: {folder: /nowhere}", "limits.folder"),
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
        let set = Folder::read(&loaded.config.limits.folder).unwrap().compile().unwrap();
        let rule = set.domain("insurance").unwrap().find([("subject", "reader")]).unwrap();
        assert_eq!(rule.name(), "per-subject");
    }
}
