//! Which of a route's clusters a request goes to: overrides first, then by weight. Pure.

use tollgate_rollout::Share;
use tollgate_runtime::config::Invalid;

use super::descriptor::Facts;
use super::key::Key;
use super::matcher::{ClaimIs, Header, Peer};
use crate::config::{self, RouteConfig};
use crate::rollout::Arm;

/// Clusters by weight.
#[derive(Debug)]
pub struct Backends {
    /// Cluster names with the sum of weights up to and including each.
    up_to: Vec<(u32, String)>,
    /// The cluster whose share a rollout moves; the others share the rest.
    canary: Option<String>,
    sticky: Option<Key>,
    overrides: Vec<Override>,
    /// The route's name: who is first to get one canary is not first for all.
    salt: String,
}

/// Where a request goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chosen<'b> {
    /// The cluster.
    pub cluster: &'b str,
    /// What it counts as in the route's rollout: only what was sent somewhere by its share is compared.
    pub arm: Option<Arm>,
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
        let canary = route.rollout.as_ref().map(|rollout| rollout.canary.clone());
        let up_to = route
            .backends
            .iter()
            .filter(|backend| backend.weight > 0 && canary.as_ref() != Some(&backend.cluster))
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
        Ok(Self { up_to, canary, sticky: sticky.transpose()?, overrides, salt: route.name.clone() })
    }

    /// Whether a rollout moves a share of the requests.
    pub fn has_canary(&self) -> bool {
        self.canary.is_some()
    }

    /// The cluster for a request. `share` is the canary's, where there is one; `draw` is random, and asked for only where
    /// chance decides.
    pub fn choose(&self, facts: &Facts<'_>, share: Share, draw: impl FnOnce() -> u64) -> Option<Chosen<'_>> {
        if let Some(found) = self.overrides.iter().find(|one| one.concerns(facts)) {
            return Some(Chosen { cluster: &found.cluster, arm: None });
        }
        let number = || {
            let sticky = self.sticky.as_ref().and_then(|key| key.number(facts, &self.salt));
            sticky.unwrap_or_else(draw)
        };
        let Some(canary) = &self.canary else {
            let cluster = match self.up_to.as_slice() {
                [(_, only)] => only,
                _ => self.pick(number())?,
            };
            return Some(Chosen { cluster, arm: None });
        };
        let number = number();
        // Stirred, or a growing share would take its requests from the first of the others alone. Who is with the canary
        // stays there while its share grows.
        if share.includes(stirred(number)) {
            return Some(Chosen { cluster: canary, arm: Some(Arm::Canary) });
        }
        Some(Chosen { cluster: self.pick(number)?, arm: Some(Arm::Baseline) })
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

/// Another number, as evenly spread, that tells nothing of the first: the last steps of SplitMix64.
fn stirred(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
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
