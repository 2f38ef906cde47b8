//! What almost allowed a request, and what that lacked.
//!
//! A grant is a binding that speaks of the caller and a permission of its role. Each is a row of predicates, and the
//! nearest is the one with the fewest that fail; of equals, the one whose failure is mended more easily: a scope
//! before a condition, a condition before a role. The search looks at [`MATCHES`] grants at most, the most specific
//! templates first.

use std::fmt;

use smallvec::SmallVec;
use smol_str::SmolStr;
use tollgate_proto::Reason;

use super::condition::Truth;
use super::evaluate::MATCHES;
use super::model::{Binding, Offer, Permission};
use super::reader::Reader;
use super::snapshot::{ServiceRules, Snapshot};
use super::subjects::Holding;

/// Predicates of a grant that do not hold. The lower a bit, the more easily it is mended.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Failed(u8);

impl Failed {
    /// Everything holds.
    pub const NONE: Self = Self(0);
    /// The token lacks scopes.
    pub const SCOPES: Self = Self(1);
    /// The permission's condition does not hold.
    pub const PERMISSION_WHEN: Self = Self(1 << 1);
    /// The binding's condition does not hold.
    pub const BINDING_WHEN: Self = Self(1 << 2);
    /// The binding has not begun, or has ended.
    pub const PERIOD: Self = Self(1 << 3);
    /// No binding gives the caller a role with the permission.
    pub const ROLE: Self = Self(1 << 4);
    /// The permission speaks of other hosts.
    pub const HOST: Self = Self(1 << 5);
    /// The permission speaks of other methods.
    pub const METHOD: Self = Self(1 << 6);

    const NAMES: [(Self, &'static str); 7] = [
        (Self::SCOPES, "scopes"),
        (Self::PERMISSION_WHEN, "permission_when"),
        (Self::BINDING_WHEN, "binding_when"),
        (Self::PERIOD, "period"),
        (Self::ROLE, "role"),
        (Self::HOST, "host"),
        (Self::METHOD, "method"),
    ];

    /// Whether all of `other` is in it.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The names of what fails.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        Self::NAMES.into_iter().filter(move |(one, _)| self.contains(*one)).map(|(_, name)| name)
    }

    fn note(&mut self, holds: bool, failure: Self) {
        if !holds {
            *self = self.and(failure);
        }
    }

    /// Fewer failures are nearer, then easier ones.
    const fn distance(self) -> (u32, u8) {
        (self.0.count_ones(), self.0)
    }
}

impl fmt::Debug for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.names()).finish()
    }
}

/// The nearest thing to an allow, and what it lacked.
#[derive(Debug, Clone)]
pub struct NearestMiss<'s> {
    /// What failed.
    pub failed: Failed,
    /// The binding by which the caller would have it; `None` where a role is what is missing.
    pub binding: Option<&'s Binding>,
    /// The permission that would do, and others that are as near; never empty.
    pub permissions: SmallVec<[&'s Permission; 2]>,
}

impl<'s> NearestMiss<'s> {
    /// Searches on one reading of the path.
    pub(super) fn find(
        snapshot: &'s Snapshot,
        rules: &'s ServiceRules,
        reader: &mut Reader<'_, 's>,
        path: &str,
    ) -> Option<Self> {
        let enforced = (snapshot.rules_of(rules))
            .flat_map(|rules| rules.paths.matches(path))
            .filter(|offer| !offer.permission.dry_run);
        let offers: SmallVec<[&'s Offer; MATCHES]> = enforced.take(MATCHES).collect();
        if offers.is_empty() {
            return None;
        }
        let of_permission: SmallVec<[Failed; MATCHES]> =
            offers.iter().map(|offer| failures(&offer.permission, reader)).collect();
        let mut search = Search { nearest: None, looked_at: 0 };
        let mut held = 0_u32;
        let candidates =
            snapshot.subjects().candidates(&rules.service.namespace, reader.principal(), reader.peer());
        for Holding { role, binding, .. } in candidates.into_iter().flatten() {
            let gives = offers.iter().any(|offer| offer.is_given_by(*role));
            if !gives || binding.dry_run || !reader.is(&binding.who) {
                continue;
            }
            let mut of_binding = None;
            for (index, offer) in offers.iter().enumerate() {
                if !offer.is_given_by(*role) || !search.may_look() {
                    continue;
                }
                held |= 1 << index;
                let of_binding = *of_binding.get_or_insert_with(|| {
                    let mut failed = Failed::NONE;
                    failed.note(reader.within(binding.period), Failed::PERIOD);
                    let when = binding.when.as_ref().is_none_or(|when| when.ask(reader) == Truth::True);
                    failed.note(when, Failed::BINDING_WHEN);
                    failed
                });
                search.look(of_permission[index].and(of_binding), Some(binding), &offer.permission);
            }
        }
        for (index, offer) in offers.iter().enumerate() {
            if held >> index & 1 == 0 && search.may_look() {
                search.look(of_permission[index].and(Failed::ROLE), None, &offer.permission);
            }
        }
        search.nearest
    }

    /// The reason that this makes.
    pub(super) fn reason(&self) -> Reason {
        if self.failed == Failed::SCOPES {
            Reason::ScopeMissing
        } else if self.failed.contains(Failed::METHOD) || self.failed.contains(Failed::HOST) {
            Reason::DefaultDeny
        } else if self.failed.contains(Failed::ROLE) || self.failed.contains(Failed::PERIOD) {
            Reason::RoleMissing
        } else {
            Reason::DefaultDeny
        }
    }

    /// The permission that would do.
    pub fn permission(&self) -> Option<&'s Permission> {
        self.permissions.first().copied()
    }

    /// What would have been enough, as `scope:…`, `role:…`, `period:…` and `condition:…`. Nothing, where no role
    /// allows this method or host to anybody.
    pub fn missing(&self, scopes: &[SmolStr]) -> Vec<String> {
        let Some(permission) = self.permission() else { return Vec::new() };
        if self.failed.contains(Failed::METHOD) || self.failed.contains(Failed::HOST) {
            return Vec::new();
        }
        let mut missing = Vec::new();
        if self.failed.contains(Failed::ROLE) {
            for permission in &self.permissions {
                let role = format!("role:{}", permission.role_name);
                if !missing.contains(&role) {
                    missing.push(role);
                }
            }
        }
        if self.failed.contains(Failed::SCOPES) {
            missing.extend(missing_scopes(permission, scopes).map(|scope| format!("scope:{scope}")));
        }
        if let Some(binding) = self.binding {
            if self.failed.contains(Failed::PERIOD) {
                missing.push(format!("period:{}", binding.key));
            }
            if self.failed.contains(Failed::BINDING_WHEN) {
                missing.push(format!("condition:{}", binding.key));
            }
        }
        if self.failed.contains(Failed::PERMISSION_WHEN) {
            missing.push(format!("condition:{}.{}", permission.role, permission.name));
        }
        missing
    }
}

/// What fails of a permission, whoever holds it.
fn failures<'s>(permission: &'s Permission, reader: &mut Reader<'_, 's>) -> Failed {
    let selector = &permission.selector;
    let mut failed = Failed::NONE;
    failed.note(selector.methods.is_any() || selector.methods.contains(reader.method()), Failed::METHOD);
    failed.note(selector.hosts.is_empty() || selector.allows_host(reader.host()), Failed::HOST);
    let scopes = permission.needs_no_scopes() || permission.scopes_hold(reader.scopes());
    failed.note(scopes, Failed::SCOPES);
    let when = permission.when.as_ref().is_none_or(|when| when.ask(reader) == Truth::True);
    failed.note(when, Failed::PERMISSION_WHEN);
    failed
}

struct Search<'s> {
    nearest: Option<NearestMiss<'s>>,
    looked_at: usize,
}

impl<'s> Search<'s> {
    fn may_look(&self) -> bool {
        self.looked_at < MATCHES
    }

    fn look(&mut self, failed: Failed, binding: Option<&'s Binding>, permission: &'s Permission) {
        self.looked_at += 1;
        match &mut self.nearest {
            Some(nearest) if nearest.failed == failed && binding.is_none() => {
                nearest.permissions.push(permission)
            }
            Some(nearest) if nearest.failed.distance() <= failed.distance() => {}
            nearest => {
                *nearest =
                    Some(NearestMiss { failed, binding, permissions: SmallVec::from_iter([permission]) });
            }
        }
    }
}

/// Scopes that `permission` asks for and `scopes` has not; of alternatives, the first stands for all.
pub fn missing_scopes<'s>(permission: &'s Permission, scopes: &[SmolStr]) -> impl Iterator<Item = &'s str> {
    let has = |wanted: &str| scopes.iter().any(|scope| scope == wanted);
    let any_holds = permission.scopes_any.iter().any(|scope| has(scope));
    let alternative = (!any_holds).then(|| permission.scopes_any.first()).flatten();
    (permission.scopes_all.iter().filter(move |scope| !has(scope))).chain(alternative).map(|scope| &**scope)
}
