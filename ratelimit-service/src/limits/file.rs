//! The shape of a limits file, as envoyproxy/ratelimit documents it. Unknown keys are refused by
//! serde; whether the values make sense is for `compile` to say.

use serde::Deserialize;

/// One file: one domain.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LimitFile {
    /// Which calls these limits are for.
    #[serde(default)]
    pub domain: Option<String>,
    /// What is limited, by the first entry of a descriptor.
    #[serde(default)]
    pub descriptors: Option<Vec<DescriptorNode>>,
}

/// What one entry of a descriptor must be, and what follows it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DescriptorNode {
    /// The entry's key.
    #[serde(default)]
    pub key: Option<String>,
    /// The entry's value; ending in `*` it is a prefix; absent, any value matches and each has a counter.
    #[serde(default)]
    pub value: Option<String>,
    /// The limit of descriptors that end here.
    #[serde(default)]
    pub rate_limit: Option<RateLimitNode>,
    /// What may follow.
    #[serde(default)]
    pub descriptors: Option<Vec<DescriptorNode>>,
    /// Count and report, never refuse.
    #[serde(default)]
    pub shadow_mode: bool,
    /// Refuse only when every rule of a request in this mode is passed.
    #[serde(default)]
    pub quota_mode: bool,
    /// All values a wildcard matches share one counter.
    #[serde(default)]
    pub share_threshold: bool,
    /// Read for compatibility; values never become metric labels here, whose number is bounded.
    #[serde(default)]
    pub detailed_metric: bool,
    /// Read for compatibility, as `detailed_metric`.
    #[serde(default)]
    pub value_to_metric: bool,
}

/// The limit itself.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RateLimitNode {
    /// How many; required unless `unlimited`.
    #[serde(default)]
    pub requests_per_unit: Option<u32>,
    /// In what time: second, minute, hour, day, week, month or year.
    #[serde(default)]
    pub unit: Option<String>,
    /// How many units a window spans; 1 unless set.
    #[serde(default)]
    pub unit_multiplier: Option<u32>,
    /// No limit at all.
    #[serde(default)]
    pub unlimited: bool,
    /// A name that `replaces` of others, headers and logs refer to.
    #[serde(default)]
    pub name: Option<String>,
    /// Rules that do not count where this one matches.
    #[serde(default)]
    pub replaces: Option<Vec<Replaced>>,
}

/// A rule named by another.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Replaced {
    /// Its name.
    #[serde(default)]
    pub name: Option<String>,
}
