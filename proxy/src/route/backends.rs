//! Which of a route's clusters a request goes to: overrides first, then by weight. Pure.

use tollgate_runtime::config::Invalid;

use super::descriptor::Facts;
use super::key::Key;
use super::matcher::{ClaimIs, Header, Peer};
use crate::config::{self, RouteConfig};

/// Clusters by weight.
#[derive(Debug)]
pub struct Backends {
    /// Cluster names with the sum of weights up to and including each.
    up_to: Vec<(u32, String)>,
    sticky: Option<Key>,
    overrides: Vec<Override>,
    /// The route's name: who is first to get one canary is not first for all.
    salt: String,
}

/// Whom the weights do not concern.
#[derive(Debug)]
struct Override {
    cluster: String,
    headers: Vec<Header>,
    claims: Vec<ClaimIs>,
    peer: Option<Peer>,
}

impl Backends {
    pub(super) fn compile(route: &RouteConfig, key: &str) -> Result<Self, Invalid> {
        let mut sum = 0_u32;
        let up_to = route
            .backends
            .iter()
            .filter(|backend| backend.weight > 0)
            .map(|backend| {
                sum = sum.saturating_add(backend.weight);
                (sum, backend.cluster.clone())
            })
            .collect();
        let sticky = route.sticky.as_ref().map(|sticky| Key::compile(sticky, &format!("{key}.sticky")));
        let overrides = route
            .overrides
            .iter()
            .enumerate()
            .map(|(index, one)| Override::compile(one, &format!("{key}.overrides[{index}]")))
            .collect::<Result<_, _>>()?;
        Ok(Self { up_to, sticky: sticky.transpose()?, overrides, salt: route.name.clone() })
    }

    /// The cluster for a request. `draw` is random, and asked for only where chance decides.
    pub fn choose(&self, facts: &Facts<'_>, draw: impl FnOnce() -> u64) -> Option<&str> {
        if let Some(found) = self.overrides.iter().find(|one| one.concerns(facts)) {
            return Some(&found.cluster);
        }
        if let [(_, only)] = self.up_to.as_slice() {
            return Some(only);
        }
        let sticky = self.sticky.as_ref().and_then(|key| key.number(facts, &self.salt));
        self.pick(sticky.unwrap_or_else(draw))
    }

    /// The cluster that the number `draw` falls on: evenly spread numbers fall on each by its weight, and a change
    /// of weights moves no more of them than it must.
    pub(super) fn pick(&self, draw: u64) -> Option<&str> {
        let (total, _) = self.up_to.last()?;
        let point = (u128::from(draw) * u128::from(*total)) >> 64;
        let index = self.up_to.partition_point(|(up_to, _)| u128::from(*up_to) <= point);
        self.up_to.get(index).map(|(_, cluster)| cluster.as_str())
    }
}

impl Override {
    fn compile(config: &config::Override, key: &str) -> Result<Self, Invalid> {
        Ok(Self {
            cluster: config.cluster.clone(),
            headers: Header::compile(&config.headers, key)?,
            claims: ClaimIs::compile(&config.claims, key)?,
            peer: Peer::compile(config.peer.as_ref(), key)?,
        })
    }

    fn concerns(&self, facts: &Facts<'_>) -> bool {
        self.headers.iter().all(|header| header.is_in(facts.headers))
            && self.claims.iter().all(|claim| claim.holds(facts))
            && self.peer.as_ref().is_none_or(|peer| peer.is(facts.peer))
    }
}
