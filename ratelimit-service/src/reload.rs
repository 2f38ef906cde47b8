//! Limits that change while the service runs: read all, then swap all, or keep what holds.

use std::path::Path;

use tollgate_runtime::Service;
use tollgate_runtime::config::{ConfigError, watch_files};

use crate::limiter::Limiter;
use crate::limits::{Domains, Folder, LimitSet};
use crate::metrics::Metrics;
use crate::quota::Hub;

/// The folder of limits files, and what was read from it last.
#[derive(Debug)]
pub struct Limits {
    folder: Box<Path>,
    domains: Domains,
    last: Folder,
}

impl Limits {
    /// Reads the folder for the first time.
    pub fn load(folder: &Path, domains: Domains) -> Result<(Self, LimitSet), ConfigError> {
        let last = Folder::read(folder)?;
        let set = last.compile_with(domains)?;
        if set.is_empty() {
            tracing::warn!(folder = %folder.display(), "no limits are loaded: the folder has no .yaml or .yml file");
        }
        Ok((Self { folder: folder.into(), domains, last }, set))
    }

    /// Gives limiter and hub what the folder holds, whenever that changes, until the service stops.
    pub fn keep_current(mut self, service: &Service, limiter: Limiter, hub: Hub, metrics: Metrics) {
        let paths = vec![self.folder.to_path_buf()];
        watch_files(service, paths, move || self.take_changes(&limiter, &hub, &metrics));
    }

    /// A folder that touches nothing but an editor's swap file has no change.
    fn take_changes(&mut self, limiter: &Limiter, hub: &Hub, metrics: &Metrics) {
        let read = match Folder::read(&self.folder) {
            Ok(read) if read == self.last => return,
            Ok(read) => read,
            Err(error) => return refused(&error, metrics),
        };
        let compiled = read.compile_with(self.domains);
        // A bad edition is remembered too, so that it is complained about once.
        self.last = read;
        match compiled {
            Ok(set) => {
                let rules: usize = set.domains().map(|domain| domain.rules().len()).sum();
                limiter.replace(set);
                hub.limits_changed();
                metrics.reloaded(true);
                tracing::info!(folder = %self.folder.display(), rules, "limits changed");
            }
            Err(error) => refused(&error, metrics),
        }
    }
}

fn refused(error: &ConfigError, metrics: &Metrics) {
    metrics.reloaded(false);
    tracing::error!(%error, "changed limits are wrong, the ones before stay in force");
}
