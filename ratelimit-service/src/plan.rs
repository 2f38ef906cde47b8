//! From a request to what is to be counted for it.
//!
//! Pure. Each descriptor becomes one [`Step`]; each limit it is held to becomes one [`Ruling`] and one counting of
//! the [`Batch`], at the same place in both. Which rule a descriptor falls under is for `limits`, how it ends for `answer`.

use std::borrow::Cow;
use std::num::NonZeroU32;
use std::ops::Range;
use std::sync::Arc;

use crate::counters::{Batch, key};
use crate::limits::compile::MAX_DEPTH;
use crate::limits::{Allowance, Domain, Limit, Mode, Rule};
use crate::window::{Hits, Unit, Window};
use crate::wire::messages::{Descriptor, Override, RateLimitRequest};

/// Descriptors one request may carry.
pub const MAX_DESCRIPTORS: usize = 128;

/// A request that cannot be answered; the texts are the reference's where it has one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// No domain.
    #[error("rate limit domain must not be empty")]
    NoDomain,
    /// No descriptors.
    #[error("rate limit descriptor list must not be empty")]
    NoDescriptors,
    /// No limits file at all.
    #[error("no rate limit configuration loaded")]
    NoLimits,
    /// More descriptors than a request may carry.
    #[error("a request may carry {MAX_DESCRIPTORS} rate limit descriptors at most")]
    TooManyDescriptors,
    /// A descriptor longer than any rule can be.
    #[error("a rate limit descriptor may have {MAX_DEPTH} entries at most")]
    TooManyEntries,
    /// An override whose window means nothing.
    #[error("rate limit override has no usable unit")]
    OverrideUnit,
}

/// What happens to one descriptor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// No rule says anything about it, or the rule that does is replaced by another's.
    Free,
    /// A rule lifts all limits from it.
    Unlimited,
    /// It is counted, by these of the plan's rulings.
    Counted(Range<usize>),
}

/// One limit a descriptor is held to.
#[derive(Debug, Clone, PartialEq)]
pub struct Ruling<'a> {
    /// The rule; none where the caller overrides the limit.
    pub rule: Option<&'a Rule>,
    /// The rule's name, or for an override the composite of its keys.
    pub name: Cow<'a, str>,
    /// The limit.
    pub limit: Limit,
    /// What passing it leads to.
    pub mode: Mode,
    /// What this call does to the count.
    pub hits: Hits,
}

/// What to do for one request.
#[derive(Debug)]
pub struct Plan<'a> {
    /// One a descriptor, in their order.
    pub steps: Vec<Step>,
    /// One a counter of the batch, in their order.
    pub rulings: Vec<Ruling<'a>>,
    /// What to count.
    pub batch: Batch,
}

/// Refuses what no limits could be applied to.
pub fn check(request: &RateLimitRequest) -> Result<(), Malformed> {
    if request.domain.is_empty() {
        return Err(Malformed::NoDomain);
    }
    if request.descriptors.is_empty() {
        return Err(Malformed::NoDescriptors);
    }
    if request.descriptors.len() > MAX_DESCRIPTORS {
        return Err(Malformed::TooManyDescriptors);
    }
    if request.descriptors.iter().any(|descriptor| descriptor.entries.len() > MAX_DEPTH) {
        return Err(Malformed::TooManyEntries);
    }
    Ok(())
}

/// What to do for a request that passed [`check`].
pub fn plan<'a>(domain: &'a Domain, request: &RateLimitRequest) -> Result<Plan<'a>, Malformed> {
    let mut found = Vec::with_capacity(request.descriptors.len());
    let mut any_replaces = false;
    for descriptor in &request.descriptors {
        // An override needs no rule, and knows neither shadow nor names.
        let one = match &descriptor.limit {
            Some(limit) => Found::Override(overriding(limit)?),
            None => Found::Rules(domain.find(descriptor.pairs())),
        };
        any_replaces |= one.rules().iter().any(|rule| !rule.replaces.is_empty());
        found.push(one);
    }

    let mut counting = Planner {
        domain,
        request,
        rulings: Vec::with_capacity(found.len()),
        batch: Batch::with_capacity(found.len()),
    };
    let mut steps = Vec::with_capacity(found.len());
    for (one, descriptor) in found.iter().zip(&request.descriptors) {
        let first = counting.rulings.len();
        let mut unlimited = false;
        match one {
            Found::Override(limit) => {
                counting.count(descriptor, None, *limit, Cow::Owned(composite_of_keys(domain, descriptor)));
            }
            Found::Rules(rules) => {
                for rule in *rules {
                    if any_replaces && is_replaced(rule, &found) {
                        continue;
                    }
                    match &rule.allowance {
                        Allowance::Unlimited => unlimited = true,
                        Allowance::Limited(limit) => {
                            counting.count(descriptor, Some(rule), *limit, Cow::Borrowed(rule.name()));
                        }
                    }
                }
            }
        }
        let counted = first..counting.rulings.len();
        steps.push(match (counted.is_empty(), unlimited) {
            (false, _) => Step::Counted(counted),
            (true, true) => Step::Unlimited,
            (true, false) => Step::Free,
        });
    }
    Ok(Plan { steps, rulings: counting.rulings, batch: counting.batch })
}

enum Found<'a> {
    Rules(&'a [Arc<Rule>]),
    Override(Limit),
}

impl<'a> Found<'a> {
    fn rules(&self) -> &'a [Arc<Rule>] {
        match self {
            Self::Rules(rules) => rules,
            Self::Override(_) => &[],
        }
    }
}

/// Whether another rule of the request, an unlimited one included, takes this one's place.
fn is_replaced(rule: &Rule, found: &[Found<'_>]) -> bool {
    let Some(name) = &rule.given_name else { return false };
    found.iter().flat_map(Found::rules).any(|other| other.replaces.contains(name))
}

struct Planner<'a, 'r> {
    domain: &'a Domain,
    request: &'r RateLimitRequest,
    rulings: Vec<Ruling<'a>>,
    batch: Batch,
}

impl<'a> Planner<'a, '_> {
    fn count(&mut self, descriptor: &Descriptor, rule: Option<&'a Rule>, limit: Limit, name: Cow<'a, str>) {
        let hits = Hits::asked(self.request.hits_addend, descriptor.hits_addend, descriptor.is_negative_hits);
        let (mode, shared) = rule.map_or((Mode::Enforce, &[][..]), |rule| (rule.mode, &rule.shared[..]));
        self.batch.push(limit, mode, hits, |buffer| {
            key::write(buffer, self.domain.name(), &limit, mode, descriptor.pairs(), shared);
        });
        self.rulings.push(Ruling { rule, name, limit, mode, hits });
    }
}

/// The override's units are `type.v3.RateLimitUnit`, which is not the enum of the answer.
fn overriding(limit: &Override) -> Result<Limit, Malformed> {
    let unit = match limit.unit {
        1 => Unit::Second,
        2 => Unit::Minute,
        3 => Unit::Hour,
        4 => Unit::Day,
        5 => Unit::Month,
        6 => Unit::Year,
        _ => return Err(Malformed::OverrideUnit),
    };
    let window = NonZeroU32::new(limit.unit_multiplier.unwrap_or(1))
        .and_then(|multiplier| Window::of_several(multiplier, unit))
        .ok_or(Malformed::OverrideUnit)?;
    Ok(Limit::fixed(limit.requests_per_unit, window))
}

/// Values stay out of an override's name: it is shown to clients in a header.
fn composite_of_keys(domain: &Domain, descriptor: &Descriptor) -> String {
    let mut name = domain.name().to_owned();
    for entry in &descriptor.entries {
        name.push('.');
        name.push_str(&entry.key);
    }
    name
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
