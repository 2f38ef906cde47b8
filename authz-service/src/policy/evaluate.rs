//! May this request pass? A pure function of the rules, what we believe about the request, and the time.
//!
//! ```text
//! bad token ──> caller gate ──> grants: binding × permission × scopes ──> default deny
//! ```
//!
//! No I/O, no clock, no lock, and nothing on the heap unless more than [`MATCHES`] permissions speak of one path.

use std::fmt;

use smallvec::SmallVec;
use tollgate_proto::Reason;

use super::footprint::Footprint;
use super::model::{Binding, Offer, Permission};
use super::snapshot::{ServiceRules, Snapshot, without_port};
use super::spec::Mode;
use crate::facts::{Credential, Entry, Facts};

/// How many permissions that speak of one path are held without the heap, and how many of them a
/// nearest miss names: a refusal must cost no more than twice an allow.
pub const MATCHES: usize = 16;

/// The answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It may pass.
    Allow,
    /// It may not.
    Deny,
}

/// What was decided, why, and what was read for it.
#[derive(Debug, Clone)]
pub struct Decision<'s> {
    /// The answer.
    pub verdict: Verdict,
    /// Why.
    pub reason: Reason,
    /// What decided.
    pub rule: Rule<'s>,
    /// What almost allowed it.
    pub nearest_miss: Option<NearestMiss<'s>>,
    /// In audit mode: why it would have been refused.
    pub forgiven: Option<Reason>,
    /// What was read.
    pub footprint: Footprint,
    /// Unix seconds at which the same question may have another answer.
    pub expires: Option<i64>,
}

/// What decided.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Rule<'s> {
    /// The token was refused before any rule was looked at.
    Token,
    /// The workload may not talk to the service.
    CallerGate,
    /// A grant allowed it, or would have.
    Grant(&'s Binding, &'s Permission),
    /// No rule says that it may pass.
    DefaultDeny,
}

/// As an operator reads it: `insurance/reader-reads → policy-reader.read`.
impl fmt::Display for Rule<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Token => f.write_str("token"),
            Self::CallerGate => f.write_str("caller-gate"),
            Self::Grant(binding, permission) => {
                write!(f, "{} → {}.{}", binding.key, permission.role_name, permission.name)
            }
            Self::DefaultDeny => f.write_str("default-deny"),
        }
    }
}

/// The nearest thing to an allow, and what it lacked.
#[derive(Debug, Clone)]
pub enum NearestMiss<'s> {
    /// This grant holds, but the token lacks scopes.
    Scopes(&'s Permission),
    /// These permissions would do, but the caller holds no role that has them.
    Roles(Matched<'s>),
}

/// Permissions that speak of a request's method, host and path.
pub type Matched<'s> = SmallVec<[&'s Offer; MATCHES]>;

/// Decides. `now` is in Unix seconds.
pub fn evaluate<'s>(snapshot: &'s Snapshot, facts: &Facts<'s>, now: i64) -> Decision<'s> {
    let token_end = match facts.credential {
        Credential::Refused(refusal) => return Decision::deny(refusal.reason, Rule::Token, Footprint::TOKEN),
        Credential::Verified(token) => Some(token.expires_at),
        Credential::Absent => None,
    };
    let mut decision = match facts.service {
        Some(service) => decide(snapshot, service, facts, facts.path.normal(), now),
        None => default_deny(facts, Matched::new(), Footprint::HOST.and(Footprint::TOKEN)),
    };
    if let Some(service) = facts.service {
        for reading in facts.path.others(service.service.strip_params) {
            let other = decide(snapshot, service, facts, reading, now);
            if other.verdict != decision.verdict {
                let read = decision.footprint.and(other.footprint);
                decision = Decision::deny(Reason::AmbiguousRequest, Rule::DefaultDeny, read);
                break;
            }
        }
    }
    decision.expires = earliest(decision.expires, token_end);
    decision
}

fn decide<'s>(
    snapshot: &'s Snapshot,
    rules: &'s ServiceRules,
    facts: &Facts<'s>,
    path: &str,
    now: i64,
) -> Decision<'s> {
    let mut read = Footprint::HOST.and(Footprint::ENTRY).and(Footprint::TOKEN);
    if !gate_is_open(rules, facts, &mut read) {
        return Decision::deny(Reason::CallerDenied, Rule::CallerGate, read);
    }
    read.read(Footprint::METHOD.and(Footprint::PATH));
    let host = without_port(facts.host);
    let anywhere = snapshot.anywhere(&rules.service.namespace).map(|offers| offers.paths.matches(path));
    let offers = rules.offers.paths.matches(path).chain(anywhere.into_iter().flatten());
    let matched: Matched<'s> = (offers.map(|offer| &**offer))
        .filter(|offer| offer.permission.allows_method(facts.method) && offer.permission.allows_host(host))
        .collect();
    let granted = grant(snapshot, rules, facts, &matched, now, &mut read);
    let mut decision = match granted {
        Grant::Full(binding, permission) => {
            Decision { expires: binding.not_after, ..Decision::allow(Rule::Grant(binding, permission), read) }
        }
        Grant::WithoutScopes(binding, permission) if facts.credential.token().is_some() => Decision {
            nearest_miss: Some(NearestMiss::Scopes(permission)),
            ..Decision::deny(Reason::ScopeMissing, Rule::Grant(binding, permission), read)
        },
        Grant::WithoutScopes(..) | Grant::None => default_deny(facts, matched, read),
    };
    if decision.verdict == Verdict::Deny && rules.service.mode == Mode::Audit {
        decision.forgiven = Some(decision.reason);
        (decision.verdict, decision.reason) = (Verdict::Allow, Reason::Ok);
    }
    decision
}

/// The caller gate: a stolen token is useless from a workload that has no business here.
fn gate_is_open(rules: &ServiceRules, facts: &Facts<'_>, read: &mut Footprint) -> bool {
    let callers = &rules.service.callers;
    if callers.external && facts.entry == Entry::Outside {
        return true;
    }
    read.read(Footprint::PEER);
    facts.peer.is_some_and(|peer| callers.workloads.iter().any(|pattern| pattern.matches(peer)))
}

enum Grant<'s> {
    Full(&'s Binding, &'s Permission),
    WithoutScopes(&'s Binding, &'s Permission),
    None,
}

fn grant<'s>(
    snapshot: &'s Snapshot,
    rules: &'s ServiceRules,
    facts: &Facts<'s>,
    matched: &[&'s Offer],
    now: i64,
    read: &mut Footprint,
) -> Grant<'s> {
    if matched.is_empty() {
        return Grant::None;
    }
    read.read(Footprint::PEER);
    let token = facts.credential.token();
    let mut nearest = Grant::None;
    let candidates = snapshot.subjects().candidates(&rules.service.namespace, token, facts.peer);
    for binding in candidates.into_iter().flatten() {
        if binding.not_before.is_some() || binding.not_after.is_some() {
            read.read(Footprint::TIME);
        }
        if !binding.holds_for(token, facts.peer) || !binding.grants_at(now) {
            continue;
        }
        for offer in matched.iter().filter(|offer| offer.is_given_by(&binding.role)) {
            let permission = &*offer.permission;
            if permission.scopes_hold(facts.credential.scopes()) {
                return Grant::Full(binding, permission);
            }
            if matches!(nearest, Grant::None) {
                nearest = Grant::WithoutScopes(binding, permission);
            }
        }
    }
    nearest
}

fn default_deny<'s>(facts: &Facts<'s>, matched: Matched<'s>, read: Footprint) -> Decision<'s> {
    let reason = match (facts.credential, matched.is_empty()) {
        (Credential::Absent, _) => Reason::TokenAbsent,
        (_, false) => Reason::RoleMissing,
        (_, true) => Reason::DefaultDeny,
    };
    let nearest_miss = (!matched.is_empty()).then_some(NearestMiss::Roles(matched));
    Decision { nearest_miss, ..Decision::deny(reason, Rule::DefaultDeny, read) }
}

fn earliest(a: Option<i64>, b: Option<i64>) -> Option<i64> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (one, other) => one.or(other),
    }
}

impl<'s> Decision<'s> {
    fn allow(rule: Rule<'s>, footprint: Footprint) -> Self {
        Self {
            verdict: Verdict::Allow,
            reason: Reason::Ok,
            rule,
            nearest_miss: None,
            forgiven: None,
            footprint,
            expires: None,
        }
    }

    fn deny(reason: Reason, rule: Rule<'s>, footprint: Footprint) -> Self {
        Self { verdict: Verdict::Deny, reason, ..Self::allow(rule, footprint) }
    }

    /// What would have been enough, as `scope:…` and `role:…`.
    pub fn missing(&self, scopes: &[String]) -> Vec<String> {
        match &self.nearest_miss {
            None => Vec::new(),
            Some(NearestMiss::Scopes(permission)) => {
                missing_scopes(permission, scopes).map(|scope| format!("scope:{scope}")).collect()
            }
            Some(NearestMiss::Roles(offers)) => {
                let mut roles: Vec<String> = Vec::new();
                for offer in offers.iter().take(MATCHES) {
                    let role = format!("role:{}", offer.permission.role_name);
                    if !roles.contains(&role) {
                        roles.push(role);
                    }
                }
                roles
            }
        }
    }
}

/// Scopes that `permission` asks for and `scopes` has not; of alternatives, the first stands for all.
pub fn missing_scopes<'s>(permission: &'s Permission, scopes: &[String]) -> impl Iterator<Item = &'s str> {
    let has = |wanted: &str| scopes.iter().any(|scope| scope == wanted);
    let any_holds = permission.scopes_any.iter().any(|scope| has(scope));
    let alternative = (!any_holds).then(|| permission.scopes_any.first()).flatten();
    (permission.scopes_all.iter().filter(move |scope| !has(scope))).chain(alternative).map(|scope| &**scope)
}
