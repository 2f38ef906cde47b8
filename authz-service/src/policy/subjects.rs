//! Which bindings may speak of a caller, found by hash.
//!
//! Each binding is filed once, under the most telling thing it asks for, so the cost of a look-up
//! follows the caller (how many groups its token has), not the number of bindings.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::model::{Binding, Who, WorkloadPattern};
use crate::token::VerifiedToken;

type Bindings = Vec<Arc<Binding>>;
type ByName = FxHashMap<Box<str>, Bindings>;

/// The bindings of one namespace, by whom they speak of.
#[derive(Debug, Default)]
pub struct Subjects {
    issuers: FxHashMap<Arc<str>, IssuerSubjects>,
    workloads: ByName,
    below: ByName,
    authenticated: Bindings,
    anyone: Bindings,
}

#[derive(Debug, Default)]
struct IssuerSubjects {
    subjects: ByName,
    clients: ByName,
    groups: ByName,
    whole: Bindings,
}

impl Subjects {
    /// Files a binding.
    pub fn insert(&mut self, binding: Arc<Binding>) {
        self.list_for(&binding.who).push(binding);
    }

    fn list_for(&mut self, who: &Who) -> &mut Bindings {
        if let Some(issuer) = &who.issuer {
            let issuer = self.issuers.entry(Arc::clone(issuer)).or_default();
            return if let Some(subject) = &who.subject {
                issuer.subjects.entry(subject.clone()).or_default()
            } else if let Some(client) = &who.client {
                issuer.clients.entry(client.clone()).or_default()
            } else if let Some(group) = &who.group {
                issuer.groups.entry(group.clone()).or_default()
            } else {
                &mut issuer.whole
            };
        }
        match &who.workload {
            Some(WorkloadPattern::Exact(id)) => self.workloads.entry(id.clone()).or_default(),
            Some(WorkloadPattern::Below(prefix)) => self.below.entry(prefix.clone()).or_default(),
            None if who.authenticated => &mut self.authenticated,
            None => &mut self.anyone,
        }
    }

    /// Every binding that can hold for this caller, and few that do not.
    pub fn candidates<'a>(
        &'a self,
        token: Option<&'a VerifiedToken>,
        peer: Option<&'a str>,
    ) -> impl Iterator<Item = &'a Arc<Binding>> {
        let issuer = token.and_then(|token| self.issuers.get(&*token.issuer).map(|issuer| (token, issuer)));
        let by_issuer = issuer.into_iter().flat_map(|(token, issuer)| {
            let client = token.client_id.as_deref().and_then(|client| issuer.clients.get(client));
            let groups = token.groups.iter().filter_map(|group| issuer.groups.get(group.as_str()));
            (issuer.subjects.get(token.subject.as_str()).into_iter())
                .chain(client)
                .chain(groups)
                .chain([&issuer.whole])
                .flatten()
        });
        let exact = peer.and_then(|peer| self.workloads.get(peer));
        let below = peer
            .filter(|_| !self.below.is_empty())
            .into_iter()
            .flat_map(|peer| peer.match_indices('/').filter_map(|(at, _)| self.below.get(&peer[..=at])));
        let authenticated = token.map(|_| &self.authenticated);
        let by_peer = exact.into_iter().chain(below).chain(authenticated).chain([&self.anyone]).flatten();
        by_issuer.chain(by_peer)
    }
}

impl Binding {
    /// Whether all that the binding asks of the caller holds.
    pub fn holds_for(&self, token: Option<&VerifiedToken>, peer: Option<&str>) -> bool {
        let who = &self.who;
        if who.workload.as_ref().is_some_and(|wanted| !peer.is_some_and(|peer| wanted.matches(peer))) {
            return false;
        }
        if !who.authenticated {
            return true;
        }
        let Some(token) = token else { return false };
        let says = |wanted: &Option<Box<str>>, said: &mut dyn FnMut(&str) -> bool| {
            wanted.as_deref().is_none_or(said)
        };
        who.issuer.as_ref().is_none_or(|issuer| *issuer == token.issuer)
            && says(&who.subject, &mut |subject| token.subject == subject)
            && says(&who.client, &mut |client| token.client_id.as_deref() == Some(client))
            && says(&who.group, &mut |group| token.groups.iter().any(|has| has == group))
    }

    /// Whether the binding grants at `now`, in Unix seconds.
    pub fn grants_at(&self, now: i64) -> bool {
        self.not_before.is_none_or(|from| from <= now) && self.not_after.is_none_or(|end| now < end)
    }
}
