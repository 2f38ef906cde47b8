//! From a request to what is to be counted for it.
//!
//! Pure. Each descriptor becomes one [`Step`]; the counted ones also become one counting of the
//! [`Batch`] each. Which rule a descriptor falls under is for `limits`, how it ends for `answer`.

use std::borrow::Cow;
use std::num::NonZeroU32;

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
#[derive(Debug, Clone, PartialEq)]
pub enum Step<'a> {
    /// No rule says anything about it, or the rule that does is replaced by another's.
    Free,
    /// A rule lifts all limits from it.
    Unlimited,
    /// It is counted.
    Counted(Ruling<'a>),
}

/// The limit a descriptor is held to.
#[derive(Debug, Clone, PartialEq)]
pub struct Ruling<'a> {
    /// The rule's name, or for an override the composite of its keys.
    pub name: Cow<'a, str>,
    /// The limit.
    pub limit: Limit,
    /// What passing it leads to.
    pub mode: Mode,
    /// What this call does to the count.
    pub hits: Hits,
    /// Its place in the batch, and among the tallies.
    pub place: usize,
}

/// What to do for one request.
#[derive(Debug)]
pub struct Plan<'a> {
    /// One a descriptor, in their order.
    pub steps: Vec<Step<'a>>,
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
            None => domain.find(descriptor.pairs()).map_or(Found::Nothing, Found::Rule),
        };
        any_replaces |= one.rule().is_some_and(|rule| !rule.replaces.is_empty());
        found.push(one);
    }

    let mut batch = Batch::with_capacity(found.len());
    let mut steps = Vec::with_capacity(found.len());
    for (one, descriptor) in found.iter().zip(&request.descriptors) {
        let step = match one {
            Found::Nothing => Step::Free,
            Found::Rule(rule) if any_replaces && is_replaced(rule, &found) => Step::Free,
            Found::Rule(Rule { allowance: Allowance::Unlimited, .. }) => Step::Unlimited,
            Found::Rule(rule @ Rule { allowance: Allowance::Limited(limit), .. }) => {
                let ruling = Ruling {
                    name: Cow::Borrowed(rule.name()),
                    mode: rule.mode,
                    ..counted(&mut batch, domain, request, descriptor, *limit, &rule.shared)
                };
                Step::Counted(ruling)
            }
            Found::Override(limit) => {
                let ruling = Ruling {
                    name: Cow::Owned(composite_of_keys(domain, descriptor)),
                    ..counted(&mut batch, domain, request, descriptor, *limit, &[])
                };
                Step::Counted(ruling)
            }
        };
        steps.push(step);
    }
    Ok(Plan { steps, batch })
}

enum Found<'a> {
    Nothing,
    Rule(&'a Rule),
    Override(Limit),
}

impl<'a> Found<'a> {
    fn rule(&self) -> Option<&'a Rule> {
        match self {
            Self::Rule(rule) => Some(rule),
            _ => None,
        }
    }
}

/// Whether another rule of the request, an unlimited one included, takes this one's place.
fn is_replaced(rule: &Rule, found: &[Found<'_>]) -> bool {
    let Some(name) = &rule.given_name else { return false };
    found.iter().filter_map(Found::rule).any(|other| other.replaces.contains(name))
}

fn counted(
    batch: &mut Batch,
    domain: &Domain,
    request: &RateLimitRequest,
    descriptor: &Descriptor,
    limit: Limit,
    shared: &[Option<Box<str>>],
) -> Ruling<'static> {
    let hits = Hits::asked(request.hits_addend, descriptor.hits_addend, descriptor.is_negative_hits);
    let place = batch.push(limit.window, hits, |buffer| {
        key::write(buffer, domain.name(), limit.window.seconds(), descriptor.pairs(), shared);
    });
    Ruling { name: Cow::Borrowed(""), limit, mode: Mode::Enforce, hits, place }
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
    Ok(Limit { requests: limit.requests_per_unit, window })
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
