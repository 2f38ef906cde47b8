//! From checked objects to a snapshot that answers by hash and trie.
//!
//! ```text
//! previous snapshot ──copy of pointers──> next ──put, remove──> what they touch is marked ──finish──> built anew
//! ```
//!
//! What a change does not touch is shared with the snapshot before it: a service is built anew when it, an issuer it
//! accepts, or a role that speaks of it has changed, and a binding is filed where it belongs and nowhere else.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use rustc_hash::FxHashMap;
use smol_str::SmolStr;
use tollgate_paths::{Spelling, Template, TemplateTrie};

use super::model::{Binding, Denial, Model, Offer, Permission, Role, RoleTag, Service};
use super::object::{Kind, ObjectId};
use super::snapshot::{Offers, SecretHash, ServiceRules, Snapshot};
use crate::token::keys::KeySet;
use crate::token::{Issuer, KeyOrigin, TokenPlace, TrustedIssuer};

/// Fetched key sets and when they were last confirmed, by issuer and address.
pub type Fetched = FxHashMap<(String, String), (Arc<KeySet>, Arc<AtomicI64>)>;

/// What a snapshot is made of beside the checked policy.
#[derive(Debug, Default)]
pub struct Parts {
    /// The change that the snapshot is of.
    pub epoch: u64,
    /// Names of administrators by the hash of their opaque token.
    pub administrators: FxHashMap<SecretHash, Arc<str>>,
    /// Fetched key sets.
    pub fetched: Fetched,
}

/// Compiles a whole policy. Of `previous` only lives on when fetched keys were last confirmed.
pub fn compile(model: Model, parts: Parts, previous: &Snapshot) -> Snapshot {
    let mut compiler = Compiler::default();
    compiler.administrators(parts.administrators);
    compiler.keys(parts.fetched);
    compiler.remember_confirmations(previous);
    compiler.put(model);
    compiler.finish(parts.epoch)
}

/// The next snapshot in the making.
#[derive(Debug, Default)]
pub struct Compiler {
    next: Snapshot,
    fetched: Fetched,
    /// When keys were confirmed, by issuer: it lives on from snapshot to snapshot; the database learns of it less often.
    confirmed: FxHashMap<Arc<str>, Arc<AtomicI64>>,
    /// Services as they will be.
    services: FxHashMap<Arc<str>, Arc<Service>>,
    /// Targets of offers that must be built anew: keys of services, and `namespace/*`.
    touched: BTreeSet<Arc<str>>,
    /// Services one of whose issuers has its tokens at other places now.
    moved: BTreeSet<Arc<str>>,
}

impl Compiler {
    /// Goes on from a snapshot.
    pub fn on(previous: &Snapshot) -> Self {
        let mut compiler = Self { next: previous.clone(), ..Self::default() };
        compiler.remember_confirmations(previous);
        compiler
    }

    /// Lets live on when `previous` knew fetched keys to be confirmed.
    pub fn remember_confirmations(&mut self, previous: &Snapshot) {
        let confirmed = |trusted: &Arc<TrustedIssuer>| {
            Some((Arc::clone(&trusted.issuer.name), Arc::clone(trusted.confirmed.as_ref()?)))
        };
        self.confirmed = previous.issuers().filter_map(confirmed).collect();
    }

    /// Replaces all administrators.
    pub fn administrators(&mut self, administrators: FxHashMap<SecretHash, Arc<str>>) {
        self.next.administrators = Arc::new(administrators);
    }

    /// Takes key sets in; issuers that are not put again get theirs too.
    pub fn keys(&mut self, fetched: Fetched) {
        let names: BTreeSet<&str> = fetched.keys().map(|(issuer, _)| issuer.as_str()).collect();
        let known = names.into_iter().filter_map(|name| self.next.issuers.get(name));
        let issuers: Vec<_> = known.map(|trusted| Arc::clone(&trusted.issuer)).collect();
        self.fetched.extend(fetched);
        issuers.into_iter().for_each(|issuer| self.put_issuer(issuer));
    }

    /// Takes objects in, each over the one of its name.
    pub fn put(&mut self, model: Model) {
        for issuer in model.issuers.into_values() {
            self.put_issuer(issuer);
        }
        for (name, enforcer) in model.enforcers {
            self.forget_enforcer(&name);
            if let Some(id) = &enforcer.spiffe_id {
                self.next.enforcer_ids.insert(Arc::clone(id), Arc::clone(&enforcer));
            }
            self.next.enforcers.insert(name, enforcer);
        }
        for (key, service) in model.services {
            self.forget_names(&key);
            self.touched.insert(Arc::clone(&key));
            self.services.insert(key, service);
        }
        for role in model.roles.into_values() {
            self.remove_role(&role.key.clone());
            self.put_role(role);
        }
        for binding in model.bindings.into_values() {
            self.remove_binding(&binding.key);
            self.put_binding(binding);
        }
        for denial in model.denials.into_values() {
            self.remove_denial(&denial.key);
            self.put_denial(denial);
        }
        for revocation in model.revocations.into_values() {
            self.next.revocations.insert(revocation);
        }
    }

    fn forget_enforcer(&mut self, name: &str) {
        let id = self.next.enforcers.remove(name).and_then(|enforcer| enforcer.spiffe_id.clone());
        if let Some(id) = id.filter(|id| self.next.enforcer_ids.get(id).is_some_and(|one| *one.name == *name))
        {
            self.next.enforcer_ids.remove(&id);
        }
    }

    /// Takes an object out.
    pub fn remove(&mut self, id: &ObjectId) {
        let key = format!("{}/{}", id.namespace, id.name);
        match id.kind {
            Kind::Issuer => {
                if let Some(trusted) = self.next.issuers.remove(id.name.as_str()) {
                    self.forget_issuer_url(&trusted);
                    self.move_services_that_accept(&trusted.issuer);
                }
            }
            Kind::Enforcer => self.forget_enforcer(&id.name),
            Kind::Service => {
                self.forget_names(&key);
                self.services.remove(key.as_str());
                self.next.services.remove(key.as_str());
            }
            Kind::Role => self.remove_role(&key.as_str().into()),
            Kind::Binding => self.remove_binding(&key),
            Kind::Denial => self.remove_denial(&key),
            Kind::Revocation => self.next.revocations.remove(&id.name),
        }
    }

    /// Builds what was touched.
    pub fn finish(mut self, epoch: u64) -> Snapshot {
        let touched = std::mem::take(&mut self.touched);
        for target in std::mem::take(&mut self.moved).difference(&touched) {
            // What is offered there is as before: ten thousand services may accept one issuer.
            if let Some(ServiceRules { service, offers, .. }) = self.next.services.get(&**target).cloned() {
                self.put_service(service, offers);
            }
        }
        for target in touched {
            if let Some(namespace) = target.strip_suffix("/*") {
                let offers = self.offers_anywhere(&target);
                self.next.anywhere.insert(namespace.into(), offers);
                continue;
            }
            let known = || self.next.services.get(&*target).map(|rules| Arc::clone(&rules.service));
            let Some(service) = self.services.remove(&target).or_else(known) else { continue };
            let offers = self.offers(&target, service.upstream.spelling());
            self.put_service(service, Arc::new(offers));
        }
        self.next.epoch = epoch;
        self.next
    }

    fn put_service(&mut self, service: Arc<Service>, offers: Arc<Offers>) {
        let token_places = self.token_places(&service);
        let rules = ServiceRules { token_places, offers, service };
        for host in &rules.service.hosts {
            self.next.hosts.insert(SmolStr::from(&**host), rules.clone());
        }
        if let Some(spiffe_id) = &rules.service.spiffe_id {
            self.next.identities.insert(spiffe_id.clone(), rules.clone());
        }
        self.next.services.insert(SmolStr::from(Arc::clone(&rules.service.key)), rules);
    }

    fn put_issuer(&mut self, issuer: Arc<Issuer>) {
        let name = Arc::clone(&issuer.name);
        let trusted = Arc::new(self.trust(issuer));
        let before = self.next.issuers.insert(name, Arc::clone(&trusted));
        if let Some(before) = &before {
            self.forget_issuer_url(before);
        }
        if before.is_none_or(|before| before.issuer.places != trusted.issuer.places) {
            self.move_services_that_accept(&trusted.issuer);
        }
        self.next.issuer_urls.insert(trusted.issuer.url.clone(), trusted);
    }

    /// Another issuer may have taken the URL over in the same change.
    fn forget_issuer_url(&mut self, trusted: &TrustedIssuer) {
        let url = &trusted.issuer.url;
        if self.next.issuer_urls.get(url).is_some_and(|now| now.issuer.name == trusted.issuer.name) {
            self.next.issuer_urls.remove(url);
        }
    }

    fn trust(&self, issuer: Arc<Issuer>) -> TrustedIssuer {
        let url = match &issuer.keys {
            KeyOrigin::Inline(keys) => {
                return TrustedIssuer { keys: Arc::clone(keys), issuer, confirmed: None };
            }
            // Secrets come from the configuration, not with the policy.
            KeyOrigin::Shared(_) => return TrustedIssuer { keys: Arc::default(), issuer, confirmed: None },
            KeyOrigin::Fetched(url) | KeyOrigin::Discovered(url) => url.as_str(),
        };
        let known =
            |before: &&Arc<TrustedIssuer>| before.issuer.keys.address().is_some_and(|u| u.as_str() == url);
        let before = self.next.issuers.get(&*issuer.name).filter(known);
        let confirmed = self.confirmed.get(&issuer.name);
        match self.fetched.get(&(issuer.name.to_string(), url.to_owned())) {
            Some((keys, stored)) => {
                let confirmed = Arc::clone(confirmed.unwrap_or(stored));
                confirmed.fetch_max(stored.load(Ordering::Relaxed), Ordering::Relaxed);
                TrustedIssuer { keys: Arc::clone(keys), issuer, confirmed: Some(confirmed) }
            }
            None => {
                let keys = before.map(|before| Arc::clone(&before.keys)).unwrap_or_default();
                let confirmed = before.and_then(|before| before.confirmed.clone()).unwrap_or_default();
                TrustedIssuer { keys, issuer, confirmed: Some(confirmed) }
            }
        }
    }

    fn move_services_that_accept(&mut self, issuer: &Issuer) {
        let accepting =
            self.next.services.values().filter(|rules| rules.service.issuers.contains(&issuer.name));
        self.moved.extend(accepting.map(|rules| Arc::clone(&rules.service.key)));
    }

    /// The names by which a service was found until now are free.
    fn forget_names(&mut self, key: &str) {
        let Some(rules) = self.next.services.get(key) else { return };
        let service = Arc::clone(&rules.service);
        for host in &service.hosts {
            self.next.hosts.remove(&**host);
        }
        if let Some(spiffe_id) = &service.spiffe_id {
            self.next.identities.remove(spiffe_id);
        }
    }

    fn put_role(&mut self, role: Arc<Role>) {
        for target in targets(&role) {
            let speakers = self.next.sources.speakers.get_or_default(&target);
            if let Err(place) = speakers.binary_search(&role.key) {
                speakers.insert(place, Arc::clone(&role.key));
            }
        }
        for included in &role.includes {
            self.next.sources.including.get_or_default(included).push(Arc::clone(&role.key));
        }
        self.next.sources.roles.insert(Arc::clone(&role.key), Arc::clone(&role));
        self.touch_targets_of(&role);
    }

    fn remove_role(&mut self, key: &Arc<str>) {
        let Some(role) = self.next.sources.roles.get(&**key).map(Arc::clone) else { return };
        self.touch_targets_of(&role);
        for target in targets(&role) {
            let speakers = self.next.sources.speakers.get_or_default(&target);
            speakers.retain(|speaker| speaker != key);
            if speakers.is_empty() {
                self.next.sources.speakers.remove(&*target);
            }
        }
        for included in &role.includes {
            let including = self.next.sources.including.get_or_default(included);
            including.retain(|other| other != key);
            if including.is_empty() {
                self.next.sources.including.remove(&**included);
            }
        }
        self.next.sources.roles.remove(&**key);
    }

    /// What the role and all that it includes speak of: holders of this role have those permissions.
    fn touch_targets_of(&mut self, role: &Arc<Role>) {
        let mut seen = BTreeSet::from([Arc::clone(&role.key)]);
        let mut waiting = vec![Arc::clone(role)];
        while let Some(role) = waiting.pop() {
            self.touched.extend(targets(&role));
            for included in &role.includes {
                if seen.insert(Arc::clone(included)) {
                    waiting.extend(self.next.sources.roles.get(&**included).map(Arc::clone));
                }
            }
        }
    }

    fn put_binding(&mut self, mut binding: Arc<Binding>) {
        // A million bindings name few roles, namespaces and issuers; each text is kept once.
        if let Some(own) = Arc::get_mut(&mut binding) {
            let next = &self.next;
            share(&mut own.role, |key| next.sources.roles.key(key));
            share(&mut own.namespace, |name| next.subjects.namespace(name));
            if let Some(issuer) = &mut own.who.issuer {
                share(issuer, |name| next.issuers.key(name));
            }
        }
        self.next.subjects.insert(Arc::clone(&binding));
        self.next.sources.bindings.insert(Arc::clone(&binding.key), binding);
    }

    fn remove_binding(&mut self, key: &str) {
        if let Some(binding) = self.next.sources.bindings.remove(key) {
            self.next.subjects.remove(&binding);
        }
    }

    fn put_denial(&mut self, denial: Arc<Denial>) {
        let target = target_of(&denial.namespace, denial.selector.service.as_deref()).into();
        let refusing = self.next.sources.refusing.get_or_default(&target);
        if let Err(place) = refusing.binary_search(&denial.key) {
            refusing.insert(place, Arc::clone(&denial.key));
        }
        self.touched.insert(target);
        self.next.sources.denials.insert(Arc::clone(&denial.key), denial);
    }

    fn remove_denial(&mut self, key: &str) {
        let Some(denial) = self.next.sources.denials.remove(key) else { return };
        let target: Arc<str> = target_of(&denial.namespace, denial.selector.service.as_deref()).into();
        let refusing = self.next.sources.refusing.get_or_default(&target);
        refusing.retain(|other| **other != *key);
        if refusing.is_empty() {
            self.next.sources.refusing.remove(&*target);
        }
        self.touched.insert(target);
    }

    /// What is said of every service of a namespace, in each spelling; one that changes nothing is shared.
    fn offers_anywhere(&self, target: &str) -> [Arc<Offers>; Spelling::COUNT] {
        let usual = Arc::new(self.offers(target, Spelling::default()));
        Spelling::ALL.map(|spelling| {
            let templates = self.templates(target);
            let mut others = templates.filter(|one| one.spelt(spelling) != one.spelt(Spelling::default()));
            match others.next() {
                Some(_) => Arc::new(self.offers(target, spelling)),
                None => Arc::clone(&usual),
            }
        })
    }

    fn templates(&self, target: &str) -> impl Iterator<Item = &Template> {
        let of_permissions =
            self.permissions(target).flat_map(|(_, permission)| &permission.selector.templates);
        of_permissions.chain(self.denials(target).flat_map(|denial| &denial.selector.templates))
    }

    /// The permissions that speak of a target, with their roles.
    fn permissions(&self, target: &str) -> impl Iterator<Item = (&Arc<Role>, &Arc<Permission>)> {
        let speakers = self.next.sources.speakers.get(target).map_or(&[][..], Vec::as_slice);
        let roles = speakers.iter().filter_map(|key| self.next.sources.roles.get(&**key));
        roles.flat_map(move |role| {
            let permissions = role.permissions.iter().map(move |permission| (role, permission));
            permissions.filter(move |(role, permission)| {
                *target_of(&role.namespace, permission.selector.service.as_deref()) == *target
            })
        })
    }

    fn denials(&self, target: &str) -> impl Iterator<Item = &Arc<Denial>> {
        let refusing = self.next.sources.refusing.get(target).map_or(&[][..], Vec::as_slice);
        refusing.iter().filter_map(|key| self.next.sources.denials.get(&**key))
    }

    /// All that is said of a target.
    fn offers(&self, target: &str, spelling: Spelling) -> Offers {
        let mut paths = TemplateTrie::new();
        let (mut giving, mut roles): (Option<&Arc<str>>, Vec<RoleTag>) = (None, Vec::new());
        for (role, permission) in self.permissions(target) {
            // Permissions of one role follow each other.
            if giving != Some(&role.key) {
                (giving, roles) = (Some(&role.key), self.giving(&role.key));
            }
            let offer = Offer::new(Arc::clone(permission), &roles);
            for template in &permission.selector.templates {
                paths.insert(&template.spelt(spelling), offer.clone());
            }
        }
        let mut denials = TemplateTrie::new();
        for denial in self.denials(target) {
            for template in &denial.selector.templates {
                denials.insert(&template.spelt(spelling), Arc::clone(denial));
            }
        }
        Offers { paths, denials }
    }

    /// The role and all that include it, however far up.
    fn giving(&self, role: &Arc<str>) -> Vec<RoleTag> {
        let mut found = BTreeSet::from([role]);
        let mut waiting = vec![role];
        while let Some(key) = waiting.pop() {
            for including in self.next.sources.including.get(&**key).map_or(&[][..], Vec::as_slice) {
                if found.insert(including) {
                    waiting.push(including);
                }
            }
        }
        found.into_iter().map(|key| RoleTag::of(key)).collect()
    }

    /// All places of all issuers that the service accepts. Which issuer said a token is known only after it was found.
    fn token_places(&self, service: &Service) -> Arc<[TokenPlace]> {
        let mut places = Vec::new();
        for name in &service.issuers {
            for place in self.next.issuers.get(&**name).map_or(&[][..], |trusted| &trusted.issuer.places) {
                if !places.contains(place) {
                    places.push(place.clone());
                }
            }
        }
        if places.is_empty() {
            // A token for a service that accepts none is still refused rather than overlooked.
            places.push(TokenPlace::bearer());
        }
        places.into()
    }
}

fn share<'k>(text: &mut Arc<str>, known: impl FnOnce(&str) -> Option<&'k Arc<str>>) {
    if let Some(known) = known(text) {
        *text = Arc::clone(known);
    }
}

/// What the role's own permissions speak of: keys of services, and `namespace/*`.
fn targets(role: &Role) -> BTreeSet<Arc<str>> {
    let of_permissions = role
        .permissions
        .iter()
        .map(|permission| target_of(&role.namespace, permission.selector.service.as_deref()));
    of_permissions.map(Into::into).collect()
}

fn target_of<'a>(namespace: &str, service: Option<&'a str>) -> std::borrow::Cow<'a, str> {
    service.map_or_else(|| format!("{namespace}/*").into(), Into::into)
}

#[cfg(test)]
mod tests;
