//! The shape of a limits file, as envoyproxy/ratelimit documents it. Unknown keys are refused by
//! serde; whether the values make sense is for `compile` to say.

use serde::Deserialize;

use super::rule::Enforced;

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
    /// Several limits on the same key, each held to; in place of `rate_limit`.
    #[serde(default)]
    pub rate_limits: Option<Vec<RateLimitNode>>,
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
    /// How requests are counted; `fixed_window` unless set.
    #[serde(default)]
    pub algorithm: Option<AlgorithmName>,
    /// Tokens a bucket holds (`token_bucket`), and what may be taken at once of a divided limit
    /// (`enforcement: quota`); `requests_per_unit` unless set.
    #[serde(default)]
    pub burst: Option<u32>,
    /// `exact` (unless set): each request is counted here. `quota`: proxies that ask for quota decide by themselves.
    #[serde(default)]
    pub enforcement: Option<Enforced>,
    /// A limit tried beside this one: counted and shown, never enforced.
    #[serde(default)]
    pub candidate: Option<CandidateNode>,
}

/// A limit that is only tried.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CandidateNode {
    /// How many.
    #[serde(default)]
    pub requests_per_unit: Option<u32>,
    /// In what time; the unit of the limit beside it unless set.
    #[serde(default)]
    pub unit: Option<String>,
    /// How many units; 1 unless set.
    #[serde(default)]
    pub unit_multiplier: Option<u32>,
    /// How; as the limit beside it unless set.
    #[serde(default)]
    pub algorithm: Option<AlgorithmName>,
    /// Tokens a bucket holds.
    #[serde(default)]
    pub burst: Option<u32>,
}

/// The algorithms by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AlgorithmName {
    /// Windows cut from the epoch.
    FixedWindow,
    /// Any time as long as the window.
    SlidingWindow,
    /// A burst, and a rate.
    TokenBucket,
}

/// A rule named by another.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Replaced {
    /// Its name.
    #[serde(default)]
    pub name: Option<String>,
}
