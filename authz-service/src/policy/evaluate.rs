//! May this request pass? A pure function of the rules, what we believe about the request, and the time.
//!
//! ```text
//! bad token ──> revocation ──> denials ──> caller gate ──> grants ──> default deny
//!                              └────── once for each way to read the request ──────┘
//! ```
//!
//! No I/O, no clock, no lock, and nothing on the heap unless more than [`MATCHES`] permissions speak of one path, or
//! the path is spelt in a way that has several readings. The request is seen through a `Reader` alone, which notes
//! what was read.

use std::fmt;

use smallvec::SmallVec;
use smol_str::SmolStr;
use tollgate_paths::MAX_READINGS;
use tollgate_proto::Reason;

use super::condition::Truth;
use super::footprint::Footprint;
use super::model::{Binding, Denial, Offer, Permission, Revocation};
use super::nearest::NearestMiss;
use super::reader::{Lines, Reader};
use super::snapshot::{ServiceRules, Snapshot};
use super::spec::Mode;
use super::subjects::Holding;
use crate::facts::{Credential, Entry, Facts, Guard};

/// How many permissions that speak of one path are held without the heap, and how many grants the search for the
/// nearest miss looks at: a refusal must cost no more than twice an allow.
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
    /// What the rules that are only tried would have made of it, where that is another answer.
    pub dry_run: Option<DryRun<'s>>,
    /// What was read.
    pub footprint: Footprint<'s>,
    /// Unix seconds at which the same question may have another answer.
    pub expires: Option<i64>,
}

/// What would have been decided had the dry-run rules been in force.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DryRun<'s> {
    /// The answer.
    pub verdict: Verdict,
    /// Why.
    pub reason: Reason,
    /// What would have decided.
    pub rule: Rule<'s>,
}

/// What decided.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Rule<'s> {
    /// The token was refused before any rule was looked at.
    Token,
    /// What the caller presented was revoked.
    Revocation(&'s Revocation),
    /// A denial.
    Denial(&'s Denial),
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
            Self::Revocation(revocation) => write!(f, "revocation {}", revocation.name),
            Self::Denial(denial) => write!(f, "denial {}", denial.key),
            Self::CallerGate => f.write_str("caller-gate"),
            Self::Grant(binding, permission) => {
                write!(f, "{} → {}.{}", binding.key, permission.role_name, permission.name)
            }
            Self::DefaultDeny => f.write_str("default-deny"),
        }
    }
}

/// Decides. `now` is in Unix seconds.
pub fn evaluate<'s>(snapshot: &'s Snapshot, facts: &Facts<'s>, now: i64) -> Decision<'s> {
    let mut reader = Reader::new(facts, now);
    let credential = reader.credential();
    let mut dry_run = None;
    let mut forgiven = None;
    let mut outcome = if let Credential::Refused(refusal) = credential {
        Outcome::deny(refusal.reason, Rule::Token)
    } else if let Some(revocation) = snapshot.revocations.find(&mut reader) {
        Outcome::deny(revocation.reason(), Rule::Revocation(revocation))
    } else if let Some(rules) = facts.service {
        let mut judge = Judge { snapshot, rules, reader: &mut reader, dry: Dry::Unseen };
        let outcome = judge.guarded();
        if judge.dry == Dry::Seen {
            judge.dry = Dry::InForce;
            dry_run = Some(judge.guarded()).filter(|tried| tried.verdict != outcome.verdict);
        }
        outcome
    } else {
        // That it is about no service follows from its host.
        reader.host();
        Outcome::no_grant(credential, None)
    };
    if outcome.relaxed && outcome.verdict == Verdict::Allow && facts.guard == Guard::Log {
        forgiven = Some(Reason::AmbiguousRequest);
    }
    if outcome.verdict == Verdict::Deny
        && outcome.lacks_grant
        && facts.service.is_some_and(|rules| rules.service.mode == Mode::Audit)
    {
        forgiven = Some(outcome.reason);
        (outcome.verdict, outcome.reason) = (Verdict::Allow, Reason::Ok);
    }
    let (footprint, expires) = reader.finish();
    Decision {
        verdict: outcome.verdict,
        reason: outcome.reason,
        rule: outcome.rule,
        nearest_miss: outcome.nearest,
        forgiven,
        dry_run: dry_run.map(|Outcome { verdict, reason, rule, .. }| DryRun { verdict, reason, rule }),
        footprint,
        expires,
    }
}

/// What is decided on one reading of the path alone.
pub(super) fn judge_reading<'s>(
    snapshot: &'s Snapshot,
    rules: &'s ServiceRules,
    facts: &Facts<'s>,
    (path, now): (&str, i64),
) -> (Verdict, Reason, String) {
    let mut reader = Reader::new(facts, now);
    let outcome = Judge { snapshot, rules, reader: &mut reader, dry: Dry::Unseen }.judge(path);
    (outcome.verdict, outcome.reason, outcome.rule.to_string())
}

/// What the rules say about one reading of a request.
struct Outcome<'s> {
    verdict: Verdict,
    reason: Reason,
    rule: Rule<'s>,
    nearest: Option<NearestMiss<'s>>,
    /// Whether nothing but a grant is missing, which audit mode forgives.
    lacks_grant: bool,
    /// Whether other readings of the path say something else, and the route's guard lets that be.
    relaxed: bool,
}

impl<'s> Outcome<'s> {
    const fn allow(rule: Rule<'s>) -> Self {
        Self {
            verdict: Verdict::Allow,
            reason: Reason::Ok,
            rule,
            nearest: None,
            lacks_grant: false,
            relaxed: false,
        }
    }

    const fn deny(reason: Reason, rule: Rule<'s>) -> Self {
        Self { verdict: Verdict::Deny, reason, rule, nearest: None, lacks_grant: false, relaxed: false }
    }

    fn no_grant(credential: Credential<'_>, nearest: Option<NearestMiss<'s>>) -> Self {
        let reason = match (&nearest, credential) {
            (_, Credential::Absent) => Reason::TokenAbsent,
            (Some(miss), _) => miss.reason(),
            (None, _) => Reason::DefaultDeny,
        };
        let rule = match &nearest {
            Some(NearestMiss { binding: Some(binding), permissions, .. })
                if reason == Reason::ScopeMissing =>
            {
                permissions.first().map_or(Rule::DefaultDeny, |permission| Rule::Grant(binding, permission))
            }
            _ => Rule::DefaultDeny,
        };
        Self { verdict: Verdict::Deny, reason, rule, nearest, lacks_grant: true, relaxed: false }
    }
}

/// Rules that are only tried.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Dry {
    /// Left out, and none was met yet.
    Unseen,
    /// Left out, and one was met that may matter.
    Seen,
    /// Taken as if they were in force.
    InForce,
}

struct Judge<'j, 'a, 's> {
    snapshot: &'s Snapshot,
    rules: &'s ServiceRules,
    reader: &'j mut Reader<'a, 's>,
    dry: Dry,
}

impl<'s> Judge<'_, '_, 's> {
    /// Judges the request as it may be read, under the guard of its route.
    fn guarded(&mut self) -> Outcome<'s> {
        let outcome = self.every_reading();
        if outcome.reason != Reason::AmbiguousRequest || self.reader.guard() == Guard::Deny {
            return outcome;
        }
        let thorough = self.as_declared();
        self.reader.read_lines(Lines::Joined);
        thorough.map_or(outcome, |thorough| Outcome { relaxed: true, ..thorough })
    }

    /// Judges what an upstream reads that does all that it is declared to do. There is no answer if that depends on
    /// the order in which it does so, or on which of several header lines it reads, and none if a denial speaks of any
    /// reading at all: a guard that is off opens no way around a denial.
    fn as_declared(&mut self) -> Option<Outcome<'s>> {
        let path = self.reader.path();
        let upstream = self.rules.service.upstream;
        let (all, thorough) = (path.readings(upstream).ok()?, path.thorough_readings(upstream).ok()?);
        let mut agreed: Option<Outcome<'s>> = None;
        for lines in [Lines::Joined, Lines::First, Lines::Last] {
            if lines != Lines::Joined && !self.reader.saw_repeated_header() {
                break;
            }
            self.reader.read_lines(lines);
            if all.iter().any(|reading| self.denial(reading).is_some()) {
                return None;
            }
            for reading in &thorough {
                let outcome = self.judge(reading);
                if agreed.as_ref().is_some_and(|agreed| agreed.verdict != outcome.verdict) {
                    return None;
                }
                agreed.get_or_insert(outcome);
            }
        }
        agreed
    }

    /// Judges the request as it may be read. Where readings are judged differently there is no right answer.
    fn every_reading(&mut self) -> Outcome<'s> {
        let ambiguous = || Outcome::deny(Reason::AmbiguousRequest, Rule::DefaultDeny);
        let Ok(readings) = self.reader.path().readings(self.rules.service.upstream) else {
            return ambiguous();
        };
        let mut first: Option<Outcome<'s>> = None;
        for (count, lines) in (1..).zip([Lines::Joined, Lines::First, Lines::Last]) {
            if lines != Lines::Joined {
                if !self.reader.saw_repeated_header() {
                    break;
                }
                if readings.len() * count > MAX_READINGS {
                    return ambiguous();
                }
            }
            self.reader.read_lines(lines);
            for path in &readings {
                let outcome = self.judge(path);
                match &first {
                    None => first = Some(outcome),
                    Some(first) if first.verdict != outcome.verdict => return ambiguous(),
                    // Of refusals the one that audit mode does not forgive counts, whichever reading it is about.
                    Some(forgivable) if forgivable.lacks_grant && !outcome.lacks_grant => {
                        first = Some(outcome)
                    }
                    Some(_) => {}
                }
            }
        }
        self.reader.read_lines(Lines::Joined);
        first.unwrap_or_else(ambiguous)
    }

    fn judge(&mut self, path: &str) -> Outcome<'s> {
        if let Some(denial) = self.denial(path) {
            return Outcome::deny(Reason::RuleDeny, Rule::Denial(denial));
        }
        if !self.gate_is_open() {
            return Outcome::deny(Reason::CallerDenied, Rule::CallerGate);
        }
        if let Some((binding, permission)) = self.grant(path) {
            return Outcome::allow(Rule::Grant(binding, permission));
        }
        let nearest = NearestMiss::find(self.snapshot, self.rules, self.reader, path);
        Outcome::no_grant(self.reader.credential(), nearest)
    }

    /// Whether a rule counts now. One that is only tried is remembered.
    fn counts(&mut self, dry_run: bool) -> bool {
        if dry_run && self.dry != Dry::InForce {
            self.dry = Dry::Seen;
            return false;
        }
        true
    }

    /// The first denial that speaks of the request. A condition that cannot be answered denies.
    fn denial(&mut self, path: &str) -> Option<&'s Denial> {
        let (rules, snapshot) = (self.rules, self.snapshot);
        let mut denials = snapshot.rules_of(rules).flat_map(|rules| rules.denials.matches(path));
        denials.by_ref().map(|denial| &**denial).find(|denial| {
            (denial.selector.methods.is_any() || denial.selector.methods.contains(self.reader.method()))
                && (denial.selector.hosts.is_empty() || denial.selector.allows_host(self.reader.host()))
                && self.reader.is(&denial.who)
                && self.reader.within(denial.period)
                && self.counts(denial.dry_run)
                && denial.when.as_ref().is_none_or(|when| when.ask(self.reader) != Truth::False)
        })
    }

    /// The caller gate: a stolen token is useless from a workload that has no business here.
    fn gate_is_open(&mut self) -> bool {
        let callers = &self.rules.service.callers;
        if callers.external && self.reader.entry() == Entry::Outside {
            return true;
        }
        if callers.workloads.is_empty() {
            return false;
        }
        let peer = self.reader.peer();
        peer.is_some_and(|peer| callers.workloads.iter().any(|pattern| pattern.matches(peer)))
    }

    /// Whether a binding gives its role to the caller now.
    fn holds(&mut self, binding: &'s Binding) -> bool {
        self.reader.is(&binding.who)
            && self.reader.within(binding.period)
            && self.counts(binding.dry_run)
            && binding.when.as_ref().is_none_or(|when| when.ask(self.reader) == Truth::True)
    }

    /// The first grant that holds in full.
    fn grant(&mut self, path: &str) -> Option<(&'s Binding, &'s Permission)> {
        let (rules, snapshot) = (self.rules, self.snapshot);
        let offers: SmallVec<[&'s Offer; MATCHES]> = (snapshot.rules_of(rules))
            .flat_map(|rules| rules.paths.matches(path))
            .filter(|offer| {
                if !offer.methods().is_any() && !offer.methods().contains(self.reader.method()) {
                    return false;
                }
                (!offer.has_hosts() || offer.permission.selector.allows_host(self.reader.host()))
                    && self.counts(offer.is_dry_run())
            })
            .collect();
        if offers.is_empty() {
            return None;
        }
        let namespace = &rules.service.namespace;
        let candidates =
            snapshot.subjects().candidates(namespace, self.reader.principal(), self.reader.peer());
        for Holding { role, holds_as_filed, binding } in candidates.into_iter().flatten() {
            // Most of what somebody holds is about something else.
            let mut given = offers.iter().filter(|offer| offer.is_given_by(*role)).peekable();
            if given.peek().is_none() || !(*holds_as_filed || self.holds(binding)) {
                continue;
            }
            let held = given.find(|offer| {
                let permission = &offer.permission;
                (permission.needs_no_scopes() || permission.scopes_hold(self.reader.scopes()))
                    && permission.when.as_ref().is_none_or(|when| when.ask(self.reader) == Truth::True)
            });
            if let Some(offer) = held {
                return Some((binding, &offer.permission));
            }
        }
        None
    }
}

impl Decision<'_> {
    /// What would have been enough, as `scope:…`, `role:…`, `period:…` and `condition:…`.
    pub fn missing(&self, scopes: &[SmolStr]) -> Vec<String> {
        self.nearest_miss.as_ref().map_or_else(Vec::new, |miss| miss.missing(scopes))
    }
}
