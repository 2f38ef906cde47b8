//! Who is meant: those whom a policy names, held against those who are known. Pure.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::policy::model::WorkloadPattern;
use crate::policy::spec::WhoSpec;

/// Somebody.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Somebody {
    /// The issuer's name in the policy; any when absent.
    pub issuer: Option<String>,
    /// The token's subject.
    pub subject: Option<String>,
    /// The token's groups.
    pub groups: Vec<String>,
    /// The token's client.
    pub client: Option<String>,
    /// The calling workload's SPIFFE id.
    pub workload: Option<String>,
}

impl Somebody {
    fn has_token(&self) -> bool {
        self.subject.is_some() || self.client.is_some() || !self.groups.is_empty()
    }
}

/// Whether somebody may be one of those. What was not said of them is not held against them, as far as something was.
pub(super) fn may_be(who: &WhoSpec, somebody: &Somebody) -> bool {
    let has_token = somebody.has_token();
    let issuer = match (&who.issuer, &somebody.issuer) {
        (Some(wanted), Some(said)) => wanted == said,
        _ => true,
    };
    let same = |wanted: &Option<String>, said: &Option<String>| wanted.is_none() || wanted == said;
    let workload = who.workload.as_deref().is_none_or(|wanted| {
        let pattern = WorkloadPattern::parse(wanted);
        somebody.workload.as_deref().is_some_and(|id| pattern.is_ok_and(|pattern| pattern.matches(id)))
    });
    issuer
        && workload
        && same(&who.subject, &somebody.subject)
        && same(&who.client, &somebody.client)
        && who.group.as_ref().is_none_or(|group| somebody.groups.contains(group))
        && (has_token || !who.authenticated && who.issuer.is_none())
}

/// Whether those who hold a grant are those whom a denial denies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Overlap {
    Never,
    Sometimes,
    Always,
}

/// `known` is what is known of the one who holds the grant beside that. "Never" and "always" are always true.
pub(super) fn overlap(holder: &WhoSpec, known: Option<&Somebody>, denied: &WhoSpec) -> Overlap {
    let of = |field: fn(&WhoSpec) -> &Option<String>, more: fn(&Somebody) -> &Option<String>| {
        let said = field(holder).as_ref().or_else(|| known.and_then(|known| more(known).as_ref()));
        match (field(denied), said) {
            (None, _) => Overlap::Always,
            (Some(denied), Some(said)) if denied == said => Overlap::Always,
            (Some(_), Some(_)) => Overlap::Never,
            (Some(_), None) => Overlap::Sometimes,
        }
    };
    let group = match &denied.group {
        Some(group) if holder.group.as_ref() != Some(group) => {
            let is_member = known.is_some_and(|known| known.groups.contains(group));
            if is_member { Overlap::Always } else { Overlap::Sometimes }
        }
        _ => Overlap::Always,
    };
    let has_token = holder.authenticated || holder.issuer.is_some() || known.is_some_and(Somebody::has_token);
    let authenticated = if denied.authenticated && !has_token { Overlap::Sometimes } else { Overlap::Always };
    let workload =
        match (&denied.workload, holder.workload.as_ref().or(known.and_then(|one| one.workload.as_ref()))) {
            (None, _) => Overlap::Always,
            (Some(_), None) => Overlap::Sometimes,
            (Some(denied), Some(said)) => workloads(denied, said),
        };
    [
        of(|who| &who.issuer, |one| &one.issuer),
        of(|who| &who.subject, |one| &one.subject),
        of(|who| &who.client, |one| &one.client),
        group,
        authenticated,
        workload,
    ]
    .into_iter()
    .min_by_key(|overlap| *overlap as u8)
    .unwrap_or(Overlap::Sometimes)
}

/// Whether the workloads of `said` are among those of `denied`; both may be patterns.
fn workloads(denied: &str, said: &str) -> Overlap {
    let below =
        |pattern: &str, id: &str| pattern.strip_suffix('*').is_some_and(|start| id.starts_with(start));
    if denied == said || below(denied, said) {
        Overlap::Always
    } else if below(said, denied) {
        Overlap::Sometimes
    } else {
        Overlap::Never
    }
}
