//! The rules in force: immutable, swapped whole, read without a lock.

use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};
use rustc_hash::FxHashMap;
use smol_str::SmolStr;
use tokio::sync::watch;
use tollgate_paths::{Spelling, TemplateTrie};

use super::model::{Binding, Denial, Enforcer, Offer, Role, Service};
use super::revocations::Revocations;
use super::shards::Shards;
use super::subjects::Subjects;
use crate::token::{TokenPlace, TrustedIssuer};

/// SHA-256 of a secret.
pub type SecretHash = [u8; 32];

/// One state of the policy, compiled. A copy is cheap: `compile` makes the next one from it, and both share what did
/// not change.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// The change that made it.
    pub epoch: u64,
    /// By `namespace/name`.
    pub(super) services: Shards<SmolStr, ServiceRules>,
    /// By host name, lower case.
    pub(super) hosts: Shards<SmolStr, ServiceRules>,
    /// By SPIFFE id.
    pub(super) identities: Shards<Box<str>, ServiceRules>,
    /// What is said of every service of a namespace, by namespace, and by how its services spell paths.
    pub(super) anywhere: Shards<Arc<str>, [Arc<Offers>; Spelling::COUNT]>,
    /// Who holds a role.
    pub(super) subjects: Subjects,
    /// What was issued once and is good no more.
    pub(super) revocations: Revocations,
    /// By name.
    pub(super) issuers: Shards<Arc<str>, Arc<TrustedIssuer>>,
    /// By the value of `iss`.
    pub(super) issuer_urls: Shards<Arc<str>, Arc<TrustedIssuer>>,
    /// By name.
    pub(super) enforcers: Shards<Arc<str>, Arc<Enforcer>>,
    /// By SPIFFE id.
    pub(super) enforcer_ids: Shards<Arc<str>, Arc<Enforcer>>,
    /// Names of administrators by the hash of their opaque token.
    pub(super) administrators: Arc<FxHashMap<SecretHash, Arc<str>>>,
    /// What the next snapshot is compiled with.
    pub(super) sources: Sources,
}

/// The checked objects behind the rules, and how they hang together.
#[derive(Debug, Clone, Default)]
pub(super) struct Sources {
    /// By `namespace/name`.
    pub(super) roles: Shards<Arc<str>, Arc<Role>>,
    /// By `namespace/name`.
    pub(super) bindings: Shards<Arc<str>, Arc<Binding>>,
    /// Keys of roles that include the role of this key by name.
    pub(super) including: Shards<Arc<str>, Vec<Arc<str>>>,
    /// Keys of roles with permissions on the service of this key, or on all services of `namespace/*`; sorted.
    pub(super) speakers: Shards<Arc<str>, Vec<Arc<str>>>,
    /// By `namespace/name`.
    pub(super) denials: Shards<Arc<str>, Arc<Denial>>,
    /// Keys of denials on the service of this key, or on all services of `namespace/*`; sorted.
    pub(super) refusing: Shards<Arc<str>, Vec<Arc<str>>>,
}

/// One service with all that can be granted on it alone. A copy is cheap: each map by which it is found has its own, since
/// one look more at memory costs more than anything done with what is found.
#[derive(Debug, Clone)]
pub struct ServiceRules {
    /// What is protected.
    pub service: Arc<Service>,
    /// Where to look for a token: the places of all issuers it accepts.
    pub token_places: Arc<[TokenPlace]>,
    pub(super) offers: Arc<Offers>,
}

/// Offers and denials by the paths that they speak of.
#[derive(Debug, Default)]
pub struct Offers {
    pub(super) paths: TemplateTrie<Offer>,
    pub(super) denials: TemplateTrie<Arc<Denial>>,
}

impl Snapshot {
    /// The service of this `namespace/name`.
    pub fn service(&self, key: &str) -> Option<&ServiceRules> {
        self.services.get(key)
    }

    /// The service that owns this host name; a port is not part of the name.
    pub fn service_of_host(&self, host: &str) -> Option<&ServiceRules> {
        let name = without_port(host);
        if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return self.hosts.get(name.to_ascii_lowercase().as_str());
        }
        self.hosts.get(name)
    }

    /// The service whose workloads have this identity.
    pub fn service_of_identity(&self, spiffe_id: &str) -> Option<&ServiceRules> {
        self.identities.get(spiffe_id)
    }

    /// The issuer with this value of `iss`.
    pub fn issuer(&self, iss: &str) -> Option<&Arc<TrustedIssuer>> {
        self.issuer_urls.get(iss)
    }

    /// The issuer of this name in the policy.
    pub fn issuer_named(&self, name: &str) -> Option<&Arc<TrustedIssuer>> {
        self.issuers.get(name)
    }

    /// All issuers.
    pub fn issuers(&self) -> impl Iterator<Item = &Arc<TrustedIssuer>> {
        self.issuers.values()
    }

    /// The enforcer of this name.
    pub fn enforcer(&self, name: &str) -> Option<&Arc<Enforcer>> {
        self.enforcers.get(name)
    }

    /// The enforcer that asks as this workload.
    pub fn enforcer_with(&self, spiffe_id: &str) -> Option<&Arc<Enforcer>> {
        self.enforcer_ids.get(spiffe_id)
    }

    /// Whether a caller of ours is revoked, by its id or by its certificate.
    pub fn revokes_caller(&self, spiffe_id: &str, serial: &str, now: i64) -> bool {
        self.revocations.of_caller(spiffe_id, serial, now)
    }

    /// Whose token has this hash.
    pub fn administrator(&self, hash: &SecretHash) -> Option<&Arc<str>> {
        self.administrators.get(hash)
    }

    /// Who holds a role.
    pub fn subjects(&self) -> &Subjects {
        &self.subjects
    }

    /// What is said of every service of `namespace`, for one that spells paths so.
    pub fn anywhere(&self, namespace: &str, spelling: Spelling) -> Option<&Offers> {
        self.anywhere.get(namespace).map(|offers| &*offers[spelling.index()])
    }

    /// All that speaks of a service: of it alone, and of every one of its namespace.
    pub(super) fn rules_of<'s>(&'s self, rules: &'s ServiceRules) -> impl Iterator<Item = &'s Offers> {
        let spelling = rules.service.upstream.spelling();
        std::iter::once(&*rules.offers).chain(self.anywhere(&rules.service.namespace, spelling))
    }

    /// How many bindings there are.
    pub fn binding_count(&self) -> usize {
        self.sources.bindings.len()
    }

    /// How many services there are.
    pub fn service_count(&self) -> usize {
        self.services.len()
    }
}

/// The name in a `host` header.
pub(super) fn without_port(host: &str) -> &str {
    // An IPv6 literal keeps its brackets: `[::1]:8080` is the host `[::1]`.
    match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') && port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

/// Holds the snapshot in force and tells who waits for a new one.
#[derive(Debug)]
pub struct SnapshotCell {
    current: ArcSwap<Snapshot>,
    applied: watch::Sender<u64>,
}

impl SnapshotCell {
    /// Starts with `first`.
    pub fn new(first: Snapshot) -> Self {
        let (applied, _) = watch::channel(first.epoch);
        Self { current: ArcSwap::from_pointee(first), applied }
    }

    /// The snapshot in force, for the length of one request.
    pub fn load(&self) -> Guard<Arc<Snapshot>> {
        self.current.load()
    }

    /// The snapshot in force, to keep.
    pub fn load_full(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    /// Puts a snapshot in force.
    pub fn swap(&self, next: Snapshot) {
        let epoch = next.epoch;
        self.current.store(Arc::new(next));
        self.applied.send_replace(epoch);
    }

    /// Tells the epoch in force, now and whenever it changes.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.applied.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_no_part_of_a_host() {
        for (host, name) in [
            ("a.example", "a.example"),
            ("a.example:8080", "a.example"),
            ("[::1]:8080", "[::1]"),
            ("[::1]", "[::1]"),
            ("a:", "a"),
            ("", ""),
        ] {
            assert_eq!(without_port(host), name, "{host}");
        }
    }
}
