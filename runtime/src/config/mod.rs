//! Configuration: a file or a folder of files, the environment and `--set`, becoming one checked value.
//!
//! ```text
//! file --parse--> value <--TOLLGATE_SECTION__KEY-- environment
//!                   ^---- --set section.key=value
//!                   |--> typed --check--> Config        every error: file, line, key, problem, remedy
//! ```
//!
//! Nothing else in the workspace reads the environment.

pub mod duration;
mod env;
mod error;
mod files;
mod overrides;
mod secret;
mod source_map;
mod typed;
mod watch;
mod yaml;

use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

pub use env::Env;
pub use error::{ConfigError, Invalid};
pub use secret::Secret;
pub use source_map::SourceMap;
pub use watch::{FileWatch, watch_files, watch_files_while};
pub use yaml::{Located, parse_yaml, parse_yaml_documents};

use crate::process::ProcessConfig;
use crate::telemetry::TelemetryConfig;
use files::Files;
use overrides::Override;

/// What a service's configuration type tells the runtime about itself.
pub trait ServiceConfig: Serialize + DeserializeOwned + Clone + Send + Sync + 'static {
    /// The service's name, used where the configuration gives no other.
    const NAME: &'static str;

    /// Environment variables with a short name of their own, and the key that each sets.
    const ENV_SHORT: &'static [(&'static str, &'static str)] = &[];

    /// An example to begin with, if the service has one.
    const EXAMPLE: Option<&'static str> = None;

    /// The JSON schema of the file, for editors, if the service has one.
    fn schema() -> Option<serde_json::Value> {
        None
    }

    /// The name of this instance: `service.name` on what it reports.
    fn instance_name(&self) -> &str {
        Self::NAME
    }

    /// The process section.
    fn process(&self) -> &ProcessConfig;

    /// The telemetry section.
    fn telemetry(&self) -> &TelemetryConfig;

    /// What serde cannot check: references, ranges, combinations.
    fn check(&self) -> Result<(), Invalid> {
        Ok(())
    }
}

/// A configuration and the file it came from.
#[derive(Debug, Clone)]
pub struct Loaded<C> {
    /// The checked configuration.
    pub config: C,
    /// Its file or folder, for messages and for reloading.
    pub file: PathBuf,
}

/// Where a process's configuration came from, so that it can be read again.
#[derive(Debug, Clone)]
pub struct Source {
    file: PathBuf,
    sets: Vec<String>,
    env: Env,
}

impl Source {
    /// The file, and what is laid over it.
    pub fn new(file: &Path, sets: &[String], env: &Env) -> Self {
        Self { file: file.to_owned(), sets: sets.to_vec(), env: env.clone() }
    }

    /// The file.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Reads and checks it as it is now.
    pub fn load<C: ServiceConfig>(&self) -> Result<Loaded<C>, ConfigError> {
        load(&self.file, &self.sets, &self.env)
    }
}

/// Reads `file`, which may be a folder, lays the environment and `sets` (`key.path=value`) over it, and checks the result.
pub fn load<C: ServiceConfig>(file: &Path, sets: &[String], env: &Env) -> Result<Loaded<C>, ConfigError> {
    let config = typed(&Files::read(file)?, sets, env)?;
    Ok(Loaded { config, file: file.to_owned() })
}

/// As [`load`], from a text in hand; `file` is what errors call it.
pub fn load_text<C: ServiceConfig>(
    file: &Path,
    text: &str,
    sets: &[String],
    env: &Env,
) -> Result<C, ConfigError> {
    typed(&Files::one(file, text.to_owned())?, sets, env)
}

fn typed<C: ServiceConfig>(files: &Files, sets: &[String], env: &Env) -> Result<C, ConfigError> {
    let config: C = files.typed(&laid_over::<C>(sets, env)?)?;
    check(&config).map_err(|invalid| files.placed(invalid))?;
    Ok(config)
}

fn check<C: ServiceConfig>(config: &C) -> Result<(), Invalid> {
    config.telemetry().check()?;
    config.check()
}

fn laid_over<C: ServiceConfig>(sets: &[String], env: &Env) -> Result<Vec<Override>, ConfigError> {
    let mut laid_over = env.overrides(C::ENV_SHORT);
    for set in sets {
        laid_over
            .push(Override::parse_set(set).map_err(|problem| ConfigError::of_command_line(set, problem))?);
    }
    Ok(laid_over)
}

#[cfg(test)]
mod tests;
