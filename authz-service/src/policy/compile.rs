//! From a checked model to a snapshot that answers by hash and trie.
//!
//! What did not change since the previous snapshot is shared with it, so that a change to one
//! service does not cost the memory of all the others while old and new are both alive.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use rustc_hash::FxHashMap;
use tollgate_paths::TemplateTrie;

use super::model::{Model, Offer, Role, Service};
use super::snapshot::{SecretHash, ServiceRules, Snapshot};
use super::subjects::Subjects;
use crate::token::keys::KeySet;
use crate::token::{Issuer, KeyOrigin, TokenPlace, TrustedIssuer};

/// What a snapshot is made of beside the checked policy.
#[derive(Debug, Default)]
pub struct Parts {
    /// The change that the snapshot is of.
    pub epoch: u64,
    /// Names of administrators by the hash of their opaque token.
    pub administrators: FxHashMap<SecretHash, Arc<str>>,
    /// Fetched key sets and when they were last confirmed, by issuer and address.
    pub fetched: FxHashMap<(String, String), (Arc<KeySet>, Arc<AtomicI64>)>,
}

/// Compiles `model`.
pub fn compile(model: &Model, mut parts: Parts, previous: &Snapshot) -> Snapshot {
    let mut snapshot = Snapshot { epoch: parts.epoch, ..Snapshot::default() };
    snapshot.administrators = std::mem::take(&mut parts.administrators);
    snapshot.enforcers = model.enforcers.iter().map(|(name, e)| (Arc::clone(name), Arc::clone(e))).collect();
    for issuer in model.issuers.values() {
        let trusted = trust(issuer, &parts, previous.issuers.get(&issuer.url));
        snapshot.issuers.insert(issuer.url.clone(), Arc::new(trusted));
    }
    let offers = by_namespace(model);
    for (key, service) in &model.services {
        let of_namespace = offers.get(&service.namespace).map_or(&[][..], Vec::as_slice);
        let rules = share_or_build(model, service, of_namespace, previous.services.get(key));
        for host in &service.hosts {
            snapshot.hosts.insert(host.clone(), Arc::clone(&rules));
        }
        if let Some(spiffe_id) = &service.spiffe_id {
            snapshot.identities.insert(spiffe_id.clone(), Arc::clone(&rules));
        }
        snapshot.services.insert(Arc::clone(key), rules);
    }
    let mut subjects: FxHashMap<Arc<str>, Subjects> = FxHashMap::default();
    for binding in model.bindings.values() {
        subjects.entry(Arc::clone(&binding.namespace)).or_default().insert(Arc::clone(binding));
    }
    snapshot.subjects = subjects.into_iter().map(|(namespace, s)| (namespace, Arc::new(s))).collect();
    snapshot
}

fn trust(issuer: &Arc<Issuer>, parts: &Parts, previous: Option<&Arc<TrustedIssuer>>) -> TrustedIssuer {
    let issuer = Arc::clone(issuer);
    let url = match &issuer.keys {
        KeyOrigin::Inline(keys) => return TrustedIssuer { keys: Arc::clone(keys), issuer, confirmed: None },
        KeyOrigin::Fetched(url) => url.as_str(),
    };
    match parts.fetched.get(&(issuer.name.to_string(), url.to_owned())) {
        Some((keys, stored)) => {
            // The moment lives on from snapshot to snapshot; the database learns of it less often.
            let confirmed = previous.and_then(|previous| previous.confirmed.clone());
            let confirmed = confirmed.unwrap_or_else(|| Arc::clone(stored));
            confirmed.fetch_max(stored.load(Ordering::Relaxed), Ordering::Relaxed);
            TrustedIssuer { keys: Arc::clone(keys), issuer, confirmed: Some(confirmed) }
        }
        None => TrustedIssuer { keys: Arc::default(), issuer, confirmed: Some(Arc::default()) },
    }
}

fn by_namespace(model: &Model) -> BTreeMap<Arc<str>, Vec<Arc<Offer>>> {
    let mut including: BTreeMap<&str, Vec<&Role>> = BTreeMap::new();
    for role in model.roles.values() {
        for included in &role.includes {
            including.entry(included).or_default().push(role);
        }
    }
    let mut found: BTreeMap<Arc<str>, Vec<Arc<Offer>>> = BTreeMap::new();
    for role in model.roles.values() {
        let roles = giving(role, &including);
        let offers = role.permissions.iter().map(|permission| {
            Arc::new(Offer { permission: Arc::clone(permission), roles: Arc::clone(&roles) })
        });
        found.entry(Arc::clone(&role.namespace)).or_default().extend(offers);
    }
    found
}

/// The role and all that include it, however far up.
fn giving(role: &Role, including: &BTreeMap<&str, Vec<&Role>>) -> Arc<[Arc<str>]> {
    let mut found = BTreeSet::from([&role.key]);
    let mut waiting = vec![&*role.key];
    while let Some(key) = waiting.pop() {
        for role in including.get(key).map_or(&[][..], Vec::as_slice) {
            if found.insert(&role.key) {
                waiting.push(&role.key);
            }
        }
    }
    found.into_iter().map(Arc::clone).collect()
}

fn share_or_build(
    model: &Model,
    service: &Arc<Service>,
    of_namespace: &[Arc<Offer>],
    previous: Option<&Arc<ServiceRules>>,
) -> Arc<ServiceRules> {
    let offers: Vec<_> = (of_namespace.iter())
        .filter(|offer| offer.permission.service.as_deref().is_none_or(|key| *key == *service.key))
        .map(Arc::clone)
        .collect();
    let token_places = token_places(model, service);
    if let Some(previous) = previous
        && previous.service == *service
        && previous.offers == offers
        && previous.token_places == token_places
    {
        return Arc::clone(previous);
    }
    let mut paths = TemplateTrie::new();
    for offer in &offers {
        for template in &offer.permission.templates {
            paths.insert(template, Arc::clone(offer));
        }
    }
    Arc::new(ServiceRules { service: Arc::clone(service), token_places, offers, paths })
}

/// All places of all issuers that the service accepts. Which issuer said a token is known only after it was found.
fn token_places(model: &Model, service: &Service) -> Box<[TokenPlace]> {
    let mut places = Vec::new();
    for name in &service.issuers {
        for place in model.issuers.get(name).map_or(&[][..], |issuer| &issuer.places) {
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
