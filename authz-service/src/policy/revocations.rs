//! Which revocations speak of a caller, found by hash.

use std::sync::Arc;

use tollgate_proto::Reason;

use super::model::{Period, Revocation, Revoked, WorkloadPattern};
use super::reader::Reader;
use super::shards::Shards;

type ByName = Shards<Box<str>, Vec<Arc<Revocation>>>;

/// All revocations, by what they are about.
#[derive(Debug, Clone, Default)]
pub struct Revocations {
    all: Shards<Arc<str>, Arc<Revocation>>,
    issuers: Shards<Arc<str>, OfIssuer>,
    workloads: ByName,
    below: ByName,
    certificates: ByName,
}

#[derive(Debug, Clone, Default)]
struct OfIssuer {
    tokens: ByName,
    subjects: ByName,
    clients: ByName,
    keys: ByName,
}

impl Revocations {
    /// Files a revocation over the one of its name.
    pub fn insert(&mut self, revocation: Arc<Revocation>) {
        self.remove(&revocation.name);
        let (map, name) = self.place_of(&revocation.what);
        let filed = map.get_or_default(&name.into());
        // In the order of their names, so that every replica names the same one.
        let place = filed.partition_point(|other| other.name < revocation.name);
        filed.insert(place, Arc::clone(&revocation));
        self.all.insert(Arc::clone(&revocation.name), revocation);
    }

    /// Takes a revocation out.
    pub fn remove(&mut self, name: &str) {
        let Some(revocation) = self.all.remove(name) else { return };
        let (map, name) = self.place_of(&revocation.what);
        let Some(filed) = map.get_mut(name) else { return };
        filed.retain(|other| other.name != revocation.name);
        if filed.is_empty() {
            map.remove(name);
        }
    }

    fn place_of<'a>(&'a mut self, what: &'a Revoked) -> (&'a mut ByName, &'a str) {
        match what {
            Revoked::Token { issuer, id } => (&mut self.issuers.get_or_default(issuer).tokens, id),
            Revoked::Subject { issuer, subject } => {
                (&mut self.issuers.get_or_default(issuer).subjects, subject)
            }
            Revoked::Client { issuer, client } => (&mut self.issuers.get_or_default(issuer).clients, client),
            Revoked::Key { issuer, key } => (&mut self.issuers.get_or_default(issuer).keys, key),
            Revoked::Workload(WorkloadPattern::Exact(id)) => (&mut self.workloads, id),
            Revoked::Workload(WorkloadPattern::Below(prefix)) => (&mut self.below, prefix),
            Revoked::Certificate(serial) => (&mut self.certificates, serial),
        }
    }

    /// Whether one is in force that speaks of a caller of ours.
    pub(super) fn of_caller(&self, id: &str, serial: &str, now: i64) -> bool {
        let prefixes = id.match_indices('/').filter_map(|(at, _)| self.below.get(&id[..=at]));
        let named = self.workloads.get(id).into_iter().chain(self.certificates.get(serial));
        named.chain(prefixes).flatten().any(|revocation| now < revocation.until)
    }

    /// The first that is in force and speaks of the token, the workload or its certificate.
    pub(super) fn find<'s>(&'s self, reader: &mut Reader<'_, 's>) -> Option<&'s Revocation> {
        if !self.issuers.is_empty()
            && let Some(found) = self.of_token(reader)
        {
            return Some(found);
        }
        if !self.certificates.is_empty()
            && let Some(found) = reader.certificate_serial().and_then(|serial| self.certificates.get(serial))
            && let Some(found) = in_force(found, reader)
        {
            return Some(found);
        }
        if self.workloads.is_empty() && self.below.is_empty() {
            return None;
        }
        let peer = reader.peer()?;
        if let Some(found) = self.workloads.get(peer)
            && let Some(found) = in_force(found, reader)
        {
            return Some(found);
        }
        if self.below.is_empty() {
            return None;
        }
        let mut prefixes = peer.match_indices('/').filter_map(|(at, _)| self.below.get(&peer[..=at]));
        prefixes.find_map(|found| in_force(found, reader))
    }

    fn of_token<'s>(&'s self, reader: &mut Reader<'_, 's>) -> Option<&'s Revocation> {
        let of_issuer = self.issuers.get(reader.issuer()?)?;
        let token = reader.issuance()?;
        for (map, name) in [
            (&of_issuer.tokens, token.jti.as_deref()),
            (&of_issuer.subjects, Some(token.subject.as_str())),
            (&of_issuer.clients, token.client_id.as_deref()),
            (&of_issuer.keys, token.kid.as_deref()),
        ] {
            let Some(found) = name.and_then(|name| map.get(name)) else { continue };
            let old_enough = found.iter().filter(|revocation| {
                // A token that hides its age counts as old.
                revocation.issued_before.is_none_or(|end| token.issued_at.is_none_or(|at| at < end))
            });
            if let Some(found) = first_in_force(old_enough, reader) {
                return Some(found);
            }
        }
        None
    }
}

fn in_force<'s>(found: &'s [Arc<Revocation>], reader: &mut Reader<'_, 's>) -> Option<&'s Revocation> {
    first_in_force(found.iter(), reader)
}

fn first_in_force<'s>(
    found: impl Iterator<Item = &'s Arc<Revocation>>,
    reader: &mut Reader<'_, 's>,
) -> Option<&'s Revocation> {
    let mut found = found.map(|revocation| &**revocation);
    found.find(|revocation| reader.within(Period { from: i64::MIN, until: revocation.until }))
}

impl Revocation {
    /// What a refusal by it is called.
    pub(super) const fn reason(&self) -> Reason {
        match self.what {
            Revoked::Workload(_) | Revoked::Certificate(_) => Reason::CertificateRevoked,
            Revoked::Token { .. }
            | Revoked::Subject { .. }
            | Revoked::Client { .. }
            | Revoked::Key { .. } => Reason::TokenRevoked,
        }
    }
}
