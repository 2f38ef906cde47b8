//! Why a request is answered as it is: every rule that speaks of it, with each predicate ticked or crossed.
//!
//! Pure, like evaluation, and as thorough as that is quick: it looks at every candidate, not only at the nearest.
//! For operators alone, since it tells what the policy says. Values of headers and claims are not in it.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tollgate_paths::{Readings, shown};
use utoipa::ToSchema;

use super::condition::{Condition, Truth};
use super::evaluate::{evaluate, judge_reading};
use super::model::{Binding, Offer, Period, Permission, Selector, Who};
use super::reader::Reader;
use super::snapshot::{Offers, ServiceRules, Snapshot};
use super::subjects::Holding;
use super::{Decision, Verdict};
use crate::facts::{Credential, Entry, Facts};

/// More candidates than these are not listed; the policy that has them is beyond reading anyway.
pub const MAX_CANDIDATES: usize = 1000;

/// Why a request is answered as it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Explanation {
    /// `allow` or `deny`.
    pub decision: String,
    /// One of the closed set of reasons.
    pub reason: String,
    /// The rule that decided, as an operator reads it.
    pub rule: String,
    /// In audit mode: the reason for which it would have been refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forgiven: Option<String>,
    /// What the rules that are only tried would have made of it, where that is another answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dry_run: Option<Tried>,
    /// The ways in which the upstream may read the path, with what each of them would get.
    pub readings: Vec<Reading>,
    /// Denials that speak of the path.
    pub denials: Vec<Candidate>,
    /// The caller gate: which workloads may talk to the service.
    pub caller_gate: Vec<Predicate>,
    /// Grants that speak of the path: those that name the caller, then permissions that he holds by none.
    pub grants: Vec<Candidate>,
    /// What was read of the request.
    pub read: Vec<String>,
    /// Unix seconds at which the same question may have another answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<i64>,
    /// Whether there are more candidates than are listed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cut_off: bool,
}

/// What would have been decided had the dry-run rules been in force.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Tried {
    /// `allow` or `deny`.
    pub decision: String,
    /// One of the closed set of reasons.
    pub reason: String,
    /// What would have decided.
    pub rule: String,
}

/// One way to read the path.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Reading {
    /// The path.
    pub path: String,
    /// `allow` or `deny`.
    pub decision: String,
    /// One of the closed set of reasons.
    pub reason: String,
    /// The rule that decides on this reading.
    pub rule: String,
}

/// A rule that speaks of the request, and how it fared.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Candidate {
    /// `namespace/name` of the binding or the denial; absent where no binding names the caller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// `role.permission`; absent of a denial.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub permission: Option<String>,
    /// Whether every predicate holds on a reading of the path (of a denial: whether none surely fails).
    pub applies: bool,
    /// Whether it is only tried.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
    /// What it asks.
    pub predicates: Vec<Predicate>,
}

/// One thing that a rule asks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Predicate {
    /// `path`, `method`, `host`, `who`, `role`, `period`, `scopes`, `condition`, `caller`.
    pub name: String,
    /// Whether it holds.
    pub holds: Holds,
    /// What the rule wants.
    pub wanted: String,
    /// What the request has; absent where that is the caller's own business.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub found: Option<String>,
}

/// How a predicate fared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Holds {
    /// It holds.
    Yes,
    /// It does not.
    No,
    /// It cannot be told: a claim has the wrong type. A grant takes that for no, a denial for yes.
    Error,
}

impl From<Truth> for Holds {
    fn from(truth: Truth) -> Self {
        match truth {
            Truth::True => Self::Yes,
            Truth::False => Self::No,
            Truth::Error => Self::Error,
        }
    }
}

/// Explains what [`evaluate`] answers. `now` is in Unix seconds.
pub fn explain(snapshot: &Snapshot, facts: &Facts<'_>, now: i64) -> Explanation {
    let decision = evaluate(snapshot, facts, now);
    let mut explanation = Explanation::of(&decision);
    let Some(rules) = facts.service else { return explanation };
    if let Credential::Refused(_) = facts.credential {
        return explanation;
    }
    let mut explainer =
        Explainer { snapshot, rules, facts, reader: Reader::new(facts, now), left: MAX_CANDIDATES };
    explanation.caller_gate = explainer.caller_gate();
    let Ok(readings) = facts.path.readings(rules.service.upstream) else { return explanation };
    for path in &readings {
        let (verdict, reason, rule) = judge_reading(snapshot, rules, facts, (path, now));
        explanation.readings.push(Reading {
            path: shown(path).into_owned(),
            decision: name(verdict).to_owned(),
            reason: reason.as_str().to_owned(),
            rule,
        });
    }
    explanation.denials = explainer.denials(&readings);
    explanation.grants = explainer.grants(&readings);
    explanation.cut_off = explainer.left == 0;
    explanation
}

const fn name(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Allow => "allow",
        Verdict::Deny => "deny",
    }
}

impl Explanation {
    fn of(decision: &Decision<'_>) -> Self {
        Self {
            decision: name(decision.verdict).to_owned(),
            reason: decision.reason.as_str().to_owned(),
            rule: decision.rule.to_string(),
            forgiven: decision.forgiven.map(|reason| reason.as_str().to_owned()),
            dry_run: decision.dry_run.map(|tried| Tried {
                decision: name(tried.verdict).to_owned(),
                reason: tried.reason.as_str().to_owned(),
                rule: tried.rule.to_string(),
            }),
            readings: Vec::new(),
            denials: Vec::new(),
            caller_gate: Vec::new(),
            grants: Vec::new(),
            read: decision.footprint.names().map(std::borrow::Cow::into_owned).collect(),
            expires_at: decision.expires,
            cut_off: false,
        }
    }
}

struct Explainer<'a, 's> {
    snapshot: &'s Snapshot,
    rules: &'s ServiceRules,
    facts: &'a Facts<'s>,
    reader: Reader<'a, 's>,
    /// How many candidates may still be listed.
    left: usize,
}

impl<'s> Explainer<'_, 's> {
    fn caller_gate(&self) -> Vec<Predicate> {
        let callers = &self.rules.service.callers;
        let peer = self.facts.peer;
        let mut predicates = Vec::new();
        if callers.external {
            let outside = self.facts.entry == Entry::Outside;
            let found = if outside { "entered from outside" } else { "came from inside" };
            predicates.push(predicate("caller", outside, "external".to_owned(), Some(found)));
        }
        for pattern in &callers.workloads {
            let holds = peer.is_some_and(|peer| pattern.matches(peer));
            let found = peer.unwrap_or("no workload identity");
            predicates.push(predicate("caller", holds, pattern.to_string(), Some(found)));
        }
        if predicates.is_empty() {
            predicates.push(predicate("caller", false, "nobody may call this service".to_owned(), None));
        }
        predicates
    }

    /// Rules that speak of one of the readings, each once.
    fn matching<T>(
        &self,
        readings: &Readings<'_>,
        matches: impl Fn(&'s Offers, &str) -> Vec<&'s T>,
    ) -> Vec<&'s T> {
        let mut found: Vec<&T> = Vec::new();
        for path in readings {
            for rule in self.snapshot.rules_of(self.rules).flat_map(|offers| matches(offers, path)) {
                if !found.iter().any(|known| std::ptr::eq(*known, rule)) {
                    found.push(rule);
                }
            }
        }
        found
    }

    fn denials(&mut self, readings: &Readings<'_>) -> Vec<Candidate> {
        let denials = self.matching(readings, |offers, path| {
            offers.denials.matches(path).map(|denial| &**denial).collect()
        });
        let mut candidates = Vec::new();
        for denial in denials {
            if !self.may_list() {
                break;
            }
            let mut predicates = self.requests(&denial.selector);
            predicates.push(self.who(&denial.who));
            predicates.extend(self.period(denial.period));
            predicates.extend(self.condition(denial.when.as_deref()));
            candidates.push(Candidate {
                rule: Some(denial.key.to_string()),
                permission: None,
                applies: predicates.iter().all(|one| one.holds != Holds::No),
                dry_run: denial.dry_run,
                predicates,
            });
        }
        candidates
    }

    fn grants(&mut self, readings: &Readings<'_>) -> Vec<Candidate> {
        let mut offers: Vec<&'s Offer> = Vec::new();
        for offer in self.matching(readings, |offers, path| offers.paths.matches(path).collect()) {
            // One permission may stand under several templates.
            if !offers.iter().any(|known| Arc::ptr_eq(&known.permission, &offer.permission)) {
                offers.push(offer);
            }
        }
        let (token, peer) = (self.facts.credential.token(), self.facts.peer);
        let lists = self.snapshot.subjects().candidates(&self.rules.service.namespace, token, peer);
        let holdings: Vec<&Holding> =
            lists.into_iter().flatten().filter(|holding| holding.binding.who.is(token, peer)).collect();
        let mut held = Vec::new();
        let mut lacking = Vec::new();
        for offer in offers {
            let by: Vec<_> = holdings.iter().filter(|holding| offer.is_given_by(holding.role)).collect();
            for Holding { binding, .. } in by.iter().copied() {
                if self.may_list() {
                    held.push(self.grant(Some(binding), &offer.permission));
                }
            }
            if by.is_empty() && self.may_list() {
                lacking.push(self.grant(None, &offer.permission));
            }
        }
        held.append(&mut lacking);
        held
    }

    fn grant(&mut self, binding: Option<&'s Binding>, permission: &'s Permission) -> Candidate {
        let mut predicates = self.requests(&permission.selector);
        match binding {
            Some(binding) => {
                predicates.push(self.who(&binding.who));
                predicates.extend(self.period(binding.period));
                predicates.extend(self.condition(binding.when.as_deref()));
            }
            None => {
                let found = "no binding gives the caller a role that has this".to_owned();
                let wanted = format!("role {}", permission.role);
                predicates.push(predicate("role", false, wanted, Some(&found)));
            }
        }
        if !permission.needs_no_scopes() {
            let scopes = self.facts.credential.scopes();
            let wanted = match (&*permission.scopes_all, &*permission.scopes_any) {
                (all, []) => all.join(" "),
                ([], any) => format!("one of {}", any.join(" ")),
                (all, any) => format!("{} and one of {}", all.join(" "), any.join(" ")),
            };
            let found = scopes.join(" ");
            predicates.push(predicate("scopes", permission.scopes_hold(scopes), wanted, Some(&found)));
        }
        predicates.extend(self.condition(permission.when.as_deref()));
        Candidate {
            rule: binding.map(|binding| binding.key.to_string()),
            permission: Some(format!("{}.{}", permission.role, permission.name)),
            applies: predicates.iter().all(|one| one.holds == Holds::Yes),
            dry_run: permission.dry_run || binding.is_some_and(|binding| binding.dry_run),
            predicates,
        }
    }

    fn requests(&mut self, selector: &Selector) -> Vec<Predicate> {
        let templates: Vec<String> = selector.templates.iter().map(ToString::to_string).collect();
        let path = self.facts.path.as_str();
        let mut predicates = vec![predicate("path", true, templates.join(" "), Some(path))];
        if !selector.methods.is_any() {
            let method = self.facts.method;
            let holds = selector.methods.contains(method);
            predicates.push(predicate("method", holds, selector.methods.names().join(" "), Some(method)));
        }
        if !selector.hosts.is_empty() {
            let host = self.reader.host();
            predicates.push(predicate(
                "host",
                selector.allows_host(host),
                selector.hosts.join(" "),
                Some(host),
            ));
        }
        predicates
    }

    fn who(&self, who: &Who) -> Predicate {
        let (token, peer) = (self.facts.credential.token(), self.facts.peer);
        let token_text = token.map(|token| format!("{} of {}", token.subject, token.issuer));
        let found = match (token_text, peer) {
            (Some(token), Some(peer)) => format!("{token}, by {peer}"),
            (Some(token), None) => token,
            (None, Some(peer)) => peer.to_owned(),
            (None, None) => "nobody known".to_owned(),
        };
        predicate("who", who.is(token, peer), who.to_string(), Some(&found))
    }

    fn period(&mut self, period: Period) -> Option<Predicate> {
        let holds = self.reader.within(period);
        (period != Period::ALWAYS).then(|| predicate("period", holds, period.to_string(), None))
    }

    /// The parts of a conjunction one by one, so that it is seen which fails.
    fn condition(&mut self, when: Option<&'s Condition>) -> Vec<Predicate> {
        let parts = match when {
            None => &[],
            Some(Condition::All(parts)) => &parts[..],
            Some(one) => std::slice::from_ref(one),
        };
        let asked = parts.iter().map(|part| Predicate {
            name: "condition".to_owned(),
            holds: part.ask(&mut self.reader).into(),
            wanted: part.to_string(),
            found: None,
        });
        asked.collect()
    }

    fn may_list(&mut self) -> bool {
        let may = self.left > 0;
        self.left = self.left.saturating_sub(1);
        may
    }
}

fn predicate(name: &str, holds: bool, wanted: String, found: Option<&str>) -> Predicate {
    let holds = Truth::from(holds).into();
    Predicate { name: name.to_owned(), holds, wanted, found: found.map(str::to_owned) }
}
