//! Which bindings may speak of a caller, found by hash.
//!
//! Each binding is filed once, under the most telling thing it asks for, so the cost of a look-up
//! follows the caller (how many groups its token has), not the number of bindings.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use hashbrown::Equivalent;
use smallvec::SmallVec;
use smol_str::SmolStr;

use super::model::{Binding, Period, RoleTag, Who, WorkloadPattern};
use super::shards::Shards;
use crate::token::VerifiedToken;

/// All bindings, by whom they speak of.
#[derive(Debug, Clone, Default)]
pub struct Subjects {
    named: Shards<Name, Holdings>,
    namespaces: Shards<Arc<str>, Arc<Broad>>,
}

/// So many lists are held without the heap: a subject's, a client's, and those of some groups.
const LISTS: usize = 16;

/// Nearly always one: somebody's role in a namespace.
type Holdings = SmallVec<[Holding; 1]>;

/// A binding as it is filed: what is asked first lies beside it.
#[derive(Debug, Clone)]
pub struct Holding {
    /// The role.
    pub role: RoleTag,
    /// Whether it is held by all under whose name it is filed, whatever else there is about them.
    pub holds_as_filed: bool,
    /// By which it is held.
    pub binding: Arc<Binding>,
}

/// Bindings of one namespace that speak of many, and how many there are of the others: what nobody is named by is
/// not looked for.
#[derive(Debug, Clone, Default)]
struct Broad {
    issuers: Vec<Holding>,
    authenticated: Vec<Holding>,
    anyone: Vec<Holding>,
    named: [u32; KINDS_OF_NAMES],
}

/// What somebody is named by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    Subject,
    Client,
    Group,
    Workload,
    WorkloadsBelow,
}

const KINDS_OF_NAMES: usize = By::WorkloadsBelow as usize + 1;

/// A name in a namespace, said by an issuer unless it is a workload's.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Name {
    by: By,
    namespace: Arc<str>,
    issuer: Option<Arc<str>>,
    name: SmolStr,
}

/// The same, borrowed.
#[derive(Debug, Clone, Copy)]
struct NameRef<'a> {
    by: By,
    namespace: &'a str,
    issuer: Option<&'a str>,
    name: &'a str,
}

impl Name {
    fn borrow(&self) -> NameRef<'_> {
        NameRef { by: self.by, namespace: &self.namespace, issuer: self.issuer.as_deref(), name: &self.name }
    }
}

impl Hash for NameRef<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // What tells most comes first; texts that differ in the rest are told apart by it all the same.
        self.name.hash(state);
        self.namespace.hash(state);
        self.issuer.hash(state);
        (self.by as u8).hash(state);
    }
}

impl Hash for Name {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.borrow().hash(state);
    }
}

impl Equivalent<Name> for NameRef<'_> {
    fn equivalent(&self, key: &Name) -> bool {
        self.by == key.by
            && self.name == key.name
            && *self.namespace == *key.namespace
            && self.issuer == key.issuer.as_deref()
    }
}

/// Where a binding is filed.
enum Place {
    Named(Name),
    Issuer,
    Authenticated,
    Anyone,
}

fn place_of(binding: &Binding) -> Place {
    let who = &binding.who;
    let named = |by, issuer: Option<&Arc<str>>, name: &str| {
        Place::Named(Name {
            by,
            namespace: Arc::clone(&binding.namespace),
            issuer: issuer.map(Arc::clone),
            name: name.into(),
        })
    };
    match who {
        Who { issuer: Some(issuer), subject: Some(subject), .. } => named(By::Subject, Some(issuer), subject),
        Who { issuer: Some(issuer), client: Some(client), .. } => named(By::Client, Some(issuer), client),
        Who { issuer: Some(issuer), group: Some(group), .. } => named(By::Group, Some(issuer), group),
        Who { issuer: Some(_), .. } => Place::Issuer,
        Who { workload: Some(WorkloadPattern::Exact(id)), .. } => named(By::Workload, None, id),
        Who { workload: Some(WorkloadPattern::Below(prefix)), .. } => named(By::WorkloadsBelow, None, prefix),
        Who { authenticated: true, .. } => Place::Authenticated,
        Who { .. } => Place::Anyone,
    }
}

/// Whether nothing is left to ask of somebody who was found at `place`.
fn holds_as_filed(binding: &Binding, place: &Place) -> bool {
    let Who { issuer: _, subject, group, client, workload, authenticated: _ } = &binding.who;
    let asked = [subject.is_some(), group.is_some(), client.is_some(), workload.is_some()];
    // The issuer and the token are part of every name but a workload's.
    let by_name =
        matches!(place, Place::Named(Name { by, .. }) if *by != By::Workload && *by != By::WorkloadsBelow);
    by_name
        && asked.into_iter().filter(|asked| *asked).count() == 1
        && binding.period == Period::ALWAYS
        && binding.when.is_none()
        && !binding.dry_run
}

/// Lists are in the order of keys, so that every replica finds the same binding first.
fn place_among(list: &[Holding], binding: &Binding) -> usize {
    list.partition_point(|other| other.binding.key < binding.key)
}

fn file(list: &mut Vec<Holding>, holding: Holding) {
    list.insert(place_among(list, &holding.binding), holding);
}

impl Subjects {
    /// Files a binding.
    pub fn insert(&mut self, binding: Arc<Binding>) {
        let place = place_of(&binding);
        let broad = self.namespaces.get_or_default(&binding.namespace);
        let holding = Holding {
            role: RoleTag::of(&binding.role),
            holds_as_filed: holds_as_filed(&binding, &place),
            binding,
        };
        // A name that is known already changes nothing here, so the namespace need not be copied.
        match place {
            Place::Named(name) => {
                let by = name.by;
                let holdings = self.named.get_or_default(&name);
                if holdings.is_empty() {
                    Arc::make_mut(broad).named[by as usize] += 1;
                }
                let place = place_among(holdings, &holding.binding);
                holdings.insert(place, holding);
            }
            Place::Issuer => file(&mut Arc::make_mut(broad).issuers, holding),
            Place::Authenticated => file(&mut Arc::make_mut(broad).authenticated, holding),
            Place::Anyone => file(&mut Arc::make_mut(broad).anyone, holding),
        }
    }

    /// Takes a binding out; it must be the one that was filed.
    pub fn remove(&mut self, binding: &Arc<Binding>) {
        let Some(broad) = self.namespaces.get_mut(&*binding.namespace) else { return };
        let other = |filed: &Holding| !Arc::ptr_eq(&filed.binding, binding);
        match place_of(binding) {
            Place::Named(name) => {
                let Some(holdings) = self.named.get_mut(&name) else { return };
                holdings.retain(|filed| other(filed));
                if holdings.is_empty() {
                    Arc::make_mut(broad).named[name.by as usize] -= 1;
                    self.named.remove(&name);
                }
            }
            Place::Issuer => Arc::make_mut(broad).issuers.retain(other),
            Place::Authenticated => Arc::make_mut(broad).authenticated.retain(other),
            Place::Anyone => Arc::make_mut(broad).anyone.retain(other),
        }
    }

    /// The name of a namespace in which there are bindings: to share its text.
    pub(super) fn namespace(&self, namespace: &str) -> Option<&Arc<str>> {
        self.namespaces.key(namespace)
    }

    /// Lists of every binding of the namespace that can hold for this caller, and of few that do not.
    pub fn candidates(
        &self,
        namespace: &str,
        token: Option<&VerifiedToken>,
        peer: Option<&str>,
    ) -> SmallVec<[&[Holding]; LISTS]> {
        let mut lists = SmallVec::new();
        let Some(broad) = self.namespaces.get(namespace) else { return lists };
        let mut look = |by: By, issuer: Option<&str>, name: &str| {
            if let Some(holdings) = self.named.get(&NameRef { by, namespace, issuer, name }) {
                lists.push(&holdings[..]);
            }
        };
        let anybody = |by: By| broad.named[by as usize] > 0;
        if let Some(token) = token {
            let issuer = Some(&*token.issuer);
            if anybody(By::Subject) {
                look(By::Subject, issuer, &token.subject);
            }
            if let Some(client) = token.client_id.as_deref().filter(|_| anybody(By::Client)) {
                look(By::Client, issuer, client);
            }
            if anybody(By::Group) {
                token.groups.iter().for_each(|group| look(By::Group, issuer, group));
            }
        }
        if let Some(peer) = peer {
            if anybody(By::Workload) {
                look(By::Workload, None, peer);
            }
            if anybody(By::WorkloadsBelow) {
                peer.match_indices('/').for_each(|(at, _)| look(By::WorkloadsBelow, None, &peer[..=at]));
            }
        }
        if token.is_some() {
            lists.extend([&broad.issuers[..], &broad.authenticated]);
        }
        lists.push(&broad.anyone);
        lists
    }
}
