//! The endpoints that may be used now, ready to be picked from. Made anew when one comes, goes, falls ill or is
//! left out; a request only reads it.

use std::net::SocketAddr;
use std::sync::Arc;

use super::balance::{self, Way};
use super::endpoint::Endpoint;
use super::hashing::Lookup;
use crate::config::{Balance, ClusterConfig};

/// The endpoints that may be used now.
#[derive(Debug, Default)]
pub(super) struct Selection {
    groups: Vec<Group>,
    /// So few may be used that all are.
    pub(super) panic: bool,
    pub(super) usable: usize,
    pub(super) of: usize,
}

/// The endpoints of one locality.
#[derive(Debug)]
struct Group {
    weight: u32,
    of: usize,
    usable: usize,
    endpoints: Vec<Arc<Endpoint>>,
    lookup: Option<Lookup>,
}

/// An endpoint as a selection is made from it.
#[derive(Debug)]
pub(super) struct Candidate<'m> {
    pub(super) endpoint: &'m Arc<Endpoint>,
    pub(super) locality: Option<&'m str>,
    pub(super) in_use: bool,
}

/// Picks that are thrown away because a retry should go elsewhere.
const PICKS: u32 = 4;

impl Selection {
    pub(super) fn new(candidates: &[Candidate<'_>], config: &ClusterConfig) -> Self {
        let of = candidates.len();
        let usable = candidates.iter().filter(|one| one.in_use).count();
        let panic = (usable as f64) < config.panic_threshold.fraction() * of as f64;
        let group = |weight: u32, members: Vec<&Candidate<'_>>| {
            let endpoints: Vec<Arc<Endpoint>> = members
                .iter()
                .filter(|one| one.in_use || panic)
                .map(|one| Arc::clone(one.endpoint))
                .collect();
            let names = || endpoints.iter().map(|one| one.address.to_string()).collect::<Vec<_>>();
            let lookup = match config.balance {
                Balance::RingHash(_) => Some(Lookup::ring(&names())),
                Balance::Maglev(_) => Some(Lookup::maglev(&names())),
                _ => None,
            };
            Group { weight, of: members.len(), usable: endpoints.len(), endpoints, lookup }
        };
        let groups = if config.localities.is_empty() {
            vec![group(1, candidates.iter().collect())]
        } else {
            let in_it = |name: &str| candidates.iter().filter(|one| one.locality == Some(name)).collect();
            config.localities.iter().map(|locality| group(locality.weight, in_it(&locality.name))).collect()
        };
        Self { groups, panic, usable, of }
    }

    /// An endpoint, not one of `not` as long as there is another. `key` decides where the balance goes by keys.
    pub(super) fn pick(
        &self,
        way: Way,
        turn: impl Fn() -> usize,
        key: Option<u64>,
        not: &[SocketAddr],
    ) -> Option<&Arc<Endpoint>> {
        let mut picked = None;
        for attempt in 0..PICKS {
            let key = key.map(|key| key.wrapping_add(u64::from(attempt).wrapping_mul(0x9e37_79b9_7f4a_7c15)));
            picked = self.pick_any(way, &turn, key);
            if picked.is_none_or(|endpoint| !not.contains(&endpoint.address)) {
                return picked;
            }
        }
        let others = self.groups.iter().flat_map(|group| &group.endpoints);
        others.into_iter().find(|endpoint| !not.contains(&endpoint.address)).or(picked)
    }

    /// The endpoint at a port, whatever is thought of it.
    pub(super) fn at_port(&self, port: Option<u64>) -> Option<&Arc<Endpoint>> {
        let mut endpoints = self.groups.iter().flat_map(|group| &group.endpoints);
        endpoints.find(|endpoint| Some(endpoint.address.port().into()) == port)
    }

    fn pick_any(&self, way: Way, turn: &impl Fn() -> usize, key: Option<u64>) -> Option<&Arc<Endpoint>> {
        let group = match self.groups.as_slice() {
            [only] => only,
            groups => {
                let draw = key.map_or_else(rand::random, |key| key.rotate_left(32));
                let sizes = groups.iter().map(|group| (group.weight, group.of, group.usable));
                &groups[balance::group(sizes, draw)?]
            }
        };
        if let (Some(lookup), Some(key)) = (&group.lookup, key) {
            return group.endpoints.get(lookup.find(key)?);
        }
        let count = group.endpoints.len();
        let draw = if count > 1 && way != Way::InTurn { rand::random() } else { 0 };
        let turn = if way == Way::InTurn { turn() } else { 0 };
        let endpoints = &group.endpoints;
        let mut index = balance::pick(way, count, turn, draw, |index| endpoints[index].cost())?;
        if endpoints[index].warmth() < 1.0 {
            index = balance::warmer(index, count, rand::random(), |index| endpoints[index].warmth());
        }
        endpoints.get(index)
    }
}
