//! What a proxy does when there is more to do than it can.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};
use tollgate_runtime::config::{Invalid, duration};

use super::words::one_of;

/// Refusing some requests early, so that the others are served as fast as ever.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct OverloadConfig {
    /// Whether requests are refused, or it is only told when some would be.
    pub mode: OverloadMode,
    /// How long work may wait for a processor. When it waits longer for 200 ms on end, as many requests are refused as
    /// bring it back to this.
    #[serde(with = "duration")]
    #[schemars(with = "String")]
    pub target_delay: Duration,
    /// What a refused client is told to wait (`retry-after`, in whole seconds).
    #[serde(with = "duration")]
    #[schemars(with = "String")]
    pub retry_after: Duration,
}

/// What becomes of too much work.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OverloadMode {
    /// Requests are answered 503 before anything is done for them, and new TLS connections closed before their handshake.
    #[default]
    Shed,
    /// Nothing is refused; metrics and status tell when some would be. Since that changes nothing, it comes to more and more.
    Observe,
    /// Nothing is measured.
    Off,
}

impl<'de> Deserialize<'de> for OverloadMode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        one_of(deserializer, [("shed", Self::Shed), ("observe", Self::Observe), ("off", Self::Off)])
    }
}

impl Default for OverloadConfig {
    fn default() -> Self {
        Self {
            mode: OverloadMode::Shed,
            target_delay: Self::TARGET_DELAY,
            retry_after: Duration::from_secs(1),
        }
    }
}

impl OverloadConfig {
    /// The target where nothing else is said.
    pub(crate) const TARGET_DELAY: Duration = Duration::from_millis(4);

    pub(super) fn check(&self) -> Result<(), Invalid> {
        let bounds = Duration::from_millis(1)..=Duration::from_secs(1);
        if bounds.contains(&self.target_delay) {
            return Ok(());
        }
        let found = format!("is {}", duration::format(self.target_delay));
        Err(Invalid::new("overload.target_delay", found, "1ms to 1s"))
    }
}
