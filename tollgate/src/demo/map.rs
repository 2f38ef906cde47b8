//! Where the pieces of a running demo are, for commands that do something to it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use crate::ca::write_private;

/// Addresses of one run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Map {
    /// Clients come in here.
    pub ingress: SocketAddr,
    /// By way of this, `quotes` asks others.
    pub outbound: SocketAddr,
    /// The instances of `policies` 1.0.
    pub policies: Vec<SocketAddr>,
    /// The one instance of `policies` 1.1.
    pub canary: SocketAddr,
    /// Process listeners, by the names of their parts.
    pub processes: BTreeMap<String, SocketAddr>,
}

impl Map {
    /// Writes it into the data folder.
    pub fn write(&self, data: &Path) -> anyhow::Result<()> {
        write_private(&file(data), &format!("{}\n", serde_json::to_string_pretty(self)?))
    }

    /// Reads that of the last run on this data folder.
    pub fn read(data: &Path) -> anyhow::Result<Self> {
        let file = file(data);
        let text = std::fs::read_to_string(&file)
            .with_context(|| format!("no demo has run on {}; `tollgate up` makes it", data.display()))?;
        serde_json::from_str(&text).with_context(|| format!("{} is not of this version", file.display()))
    }

    /// The process listener of a part.
    pub fn process(&self, part: &str) -> anyhow::Result<SocketAddr> {
        self.processes.get(part).copied().with_context(|| format!("the demo has no {part}"))
    }
}

fn file(data: &Path) -> PathBuf {
    data.join("demo").join("mesh.json")
}
