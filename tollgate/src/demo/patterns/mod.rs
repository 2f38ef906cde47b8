//! `tollgate demo [PATTERN]`: the proxy's patterns, shown on a mesh that runs: something is done to it, something is
//! expected of it, and what was seen is said in numbers.
//!
//! Requests go the way that the application `quotes` sends its own, out through its sidecar, where no limit of a
//! person's counts; those about versions come in at the ingress. What a story breaks it mends again.

mod rollback;
mod stage;
mod stories;

use std::path::Path;

use clap::ValueEnum;
use tollgate_runtime::config::Env;

use crate::commands::say;
use crate::policy::place::open_store;
use stage::Stage;

/// A pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Pattern {
    /// An instance that fails every second request is left out, and comes back once it is well.
    Eject,
    /// More than an upstream can take is refused at once.
    Breaker,
    /// A tenth goes to the new version, and whoever asks for it.
    Canary,
    /// A canary that fails is rolled back by itself, and gets nothing any more.
    Rollback,
    /// Copies reach the new version without credentials, and nobody waits for them.
    Mirror,
    /// A registered partner is reached by TLS, anybody else is refused by name.
    Egress,
}

impl Pattern {
    /// All, in the order in which they are shown.
    pub const ALL: [Self; 6] =
        [Self::Eject, Self::Breaker, Self::Canary, Self::Rollback, Self::Mirror, Self::Egress];
}

/// What came of a story.
#[derive(Debug, Clone)]
pub struct Told {
    /// What was done.
    pub did: String,
    /// What should come of it.
    pub expected: &'static str,
    /// What came of it.
    pub saw: String,
    /// Whether that is the same.
    pub seen: bool,
}

/// Shows one pattern or all, and whether each was seen.
pub async fn run(data: &Path, pattern: Option<Pattern>, env: &Env) -> anyhow::Result<bool> {
    let mut all_seen = true;
    for pattern in pattern.map_or(Pattern::ALL.to_vec(), |pattern| vec![pattern]) {
        let name = pattern.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned());
        let told = tell(data, pattern, env).await?;
        all_seen &= told.seen;
        say(&format!("{name}: {}", if told.seen { "seen" } else { "NOT SEEN" }));
        say(&format!("  did       {}", told.did));
        say(&format!("  expected  {}", told.expected));
        say(&format!("  saw       {}", told.saw));
    }
    Ok(all_seen)
}

/// Tells one story on the demo that runs on this data folder, in this environment.
pub async fn tell(data: &Path, pattern: Pattern, env: &Env) -> anyhow::Result<Told> {
    let stage = Stage::open(data)?;
    match pattern {
        Pattern::Eject => stories::eject(&stage).await,
        Pattern::Breaker => stories::breaker(&stage).await,
        Pattern::Canary => stories::canary(&stage).await,
        Pattern::Rollback => rollback::tell(&stage, &open_store(data, env).await?).await,
        Pattern::Mirror => stories::mirror(&stage).await,
        Pattern::Egress => stories::egress(&stage).await,
    }
}
