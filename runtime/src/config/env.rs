//! The environment, read once at the edge and passed as a value, so tests never touch the real one.

use std::collections::BTreeMap;

use super::overrides::Override;

const PREFIX: &str = "TOLLGATE_";

/// A copy of the environment variables.
#[derive(Debug, Clone, Default)]
pub struct Env(BTreeMap<String, String>);

impl Env {
    /// The process's own environment. Variables that are not UTF-8 are left out.
    pub fn of_process() -> Self {
        Self(
            std::env::vars_os()
                .filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)))
                .collect(),
        )
    }

    /// No variables at all.
    pub fn empty() -> Self {
        Self::default()
    }

    /// A made-up environment.
    pub fn of<K: Into<String>, V: Into<String>>(vars: impl IntoIterator<Item = (K, V)>) -> Self {
        Self(vars.into_iter().map(|(k, v)| (k.into(), v.into())).collect())
    }

    /// One variable; an empty one counts as absent.
    pub fn var(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// The names of all variables.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// `TOLLGATE_SECTION__KEY=value` and the short forms, as overrides of the file.
    ///
    /// Only names with a double underscore count: orchestrators inject others
    /// (`TOLLGATE_AUTHZ_SERVICE_HOST`) that are not meant for us.
    pub(super) fn overrides(&self, short: &[(&str, &str)]) -> Vec<Override> {
        let mut found = Vec::new();
        for (name, key) in short {
            if let Some(value) = self.var(name) {
                found.push(Override::text(name, key, value));
            }
        }
        for (name, value) in &self.0 {
            let Some(path) = name.strip_prefix(PREFIX) else { continue };
            if path.contains("__") {
                found.push(Override::new(name, &path.to_ascii_lowercase().replace("__", "."), value));
            }
        }
        found
    }
}
