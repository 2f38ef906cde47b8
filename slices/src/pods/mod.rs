//! EndpointSlices in, pods out. Pure.
//!
//! A Service has several slices: of some of its pods each, and of one address family each. What is found is their union, each
//! address once. As `kube-proxy` does it: the pods that are ready; where none is, those that end and still serve
//! ([KEP-1669](https://github.com/kubernetes/enhancements/tree/master/keps/sig-network/1669-proxy-terminating-endpoints)).
//! Hints (`hints.forZones`) are not looked at: which zone gets how much is the balancer's to say.

use std::collections::{BTreeMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};

/// Pods that are used of one Service.
pub const MAX_PODS: usize = 1024;
/// Slices that are looked at of one Service.
pub const MAX_SLICES: usize = 256;
/// Endpoints that are looked at of one slice: Kubernetes allows no more.
const MAX_ENDPOINTS_OF_SLICE: usize = 1000;
/// Ports that a remark names.
const MAX_PORTS_NAMED: usize = 8;

/// Which port of the pods.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Port {
    /// The one that the Service calls so; empty, its only one without a name.
    Name(String),
    /// The one with this number at the pods, whatever the Service's is.
    Number(u16),
}

/// A family of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// IPv4
    V4,
    /// IPv6
    V6,
}

/// Where a pod is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    /// Its address, with the port that was asked for.
    pub address: SocketAddr,
    /// The zone of its node (`topology.kubernetes.io/zone`).
    pub zone: Option<Arc<str>>,
}

/// What is there of a Service.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// Its pods, in the order of its slices, which is the same for whoever asks.
    pub pods: Vec<Pod>,
    /// What somebody should know who wonders why they are these.
    pub remark: Option<String>,
}

/// The slices of one Service, as far as they were heard of.
#[derive(Debug)]
pub struct Table {
    service: String,
    port: Port,
    family: Option<Family>,
    slices: BTreeMap<String, Held>,
    /// Names of slices that there was no room for.
    refused: HashSet<String>,
}

/// What is kept of a slice.
#[derive(Debug, Default)]
struct Held {
    pods: Vec<(Pod, State)>,
    remark: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Ready,
    /// Terminating, and serving still.
    Ending,
    Away,
}

impl Table {
    /// Of a Service that is called `service` in remarks.
    pub fn new(service: &str, port: Port, family: Option<Family>) -> Self {
        let (slices, refused) = (BTreeMap::new(), HashSet::new());
        Self { service: service.to_owned(), port, family, slices, refused }
    }

    /// A slice is new, or another than before.
    pub fn set(&mut self, slice: &EndpointSlice) {
        let name = slice.metadata.name.as_deref().unwrap_or_default();
        if !self.slices.contains_key(name) && self.slices.len() >= MAX_SLICES {
            // Their number has a bound too; beyond it nothing is lost but the count.
            if self.refused.len() < MAX_SLICES {
                self.refused.insert(name.to_owned());
            }
            return;
        }
        let held = self.held(name, slice);
        self.slices.insert(name.to_owned(), held);
    }

    /// A slice is gone.
    pub fn remove(&mut self, slice: &EndpointSlice) {
        let name = slice.metadata.name.as_deref().unwrap_or_default();
        self.slices.remove(name);
        self.refused.remove(name);
    }

    fn held(&self, name: &str, slice: &EndpointSlice) -> Held {
        let parse: fn(&str) -> Option<IpAddr> = match (slice.address_type.as_str(), self.family) {
            ("IPv4", None | Some(Family::V4)) => |text| text.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
            ("IPv6", None | Some(Family::V6)) => |text| text.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
            ("IPv4" | "IPv6", Some(_)) => return Held::default(),
            (other, _) => {
                return Held::nothing(format!(
                    "slice `{name}` has addresses of type {other:?}, which lead nowhere here"
                ));
            }
        };
        // A Service without pods has a slice without ports.
        if slice.endpoints.is_empty() {
            return Held::default();
        }
        let ports = slice.ports.as_deref().unwrap_or_default();
        let Some(port) = self.port.among(ports) else {
            let wanted = &self.port;
            return Held::nothing(format!(
                "slice `{name}` has no TCP port {wanted}; it has {}",
                listed(ports)
            ));
        };
        let mut held = Held::default();
        let mut zones: HashSet<Arc<str>> = HashSet::new();
        for endpoint in slice.endpoints.iter().take(MAX_ENDPOINTS_OF_SLICE) {
            // More than one address has no meaning, says the API.
            let text = endpoint.addresses.first().map(String::as_str).unwrap_or_default();
            let Some(ip) = parse(text) else {
                held.remark = Some(format!("slice `{name}` has {text:?} for an address"));
                continue;
            };
            let zone = endpoint.zone.as_deref().map(|zone| match zones.get(zone) {
                Some(known) => Arc::clone(known),
                None => {
                    let zone: Arc<str> = zone.into();
                    zones.insert(Arc::clone(&zone));
                    zone
                }
            });
            held.pods.push((Pod { address: SocketAddr::new(ip, port), zone }, State::of(endpoint)));
        }
        held
    }

    /// What there is now.
    pub fn found(&self) -> Found {
        let service = &self.service;
        let (mut pods, mut remarks) = (self.in_state(State::Ready), Vec::new());
        if pods.is_empty() {
            pods = self.in_state(State::Ending);
            let known: usize = self.slices.values().map(|held| held.pods.len()).sum();
            if !pods.is_empty() {
                remarks
                    .push(format!("no pod of `{service}` is ready; those that end and still serve are used"));
            } else if self.slices.is_empty() {
                remarks.push(format!("there is no EndpointSlice of a Service `{service}`"));
            } else if known > 0 {
                remarks.push(format!("none of the {known} pods of `{service}` is ready"));
            } else {
                remarks.push(format!("`{service}` has no pods"));
            }
        }
        if pods.len() > MAX_PODS {
            remarks.push(format!("`{service}` has {} pods, of which {MAX_PODS} are used", pods.len()));
            pods.truncate(MAX_PODS);
        }
        if !self.refused.is_empty() {
            remarks.push(format!("`{service}` has more than {MAX_SLICES} slices, of which so many are used"));
        }
        let mut of_slices = self.slices.values().filter_map(|held| held.remark.as_ref());
        if let Some(first) = of_slices.next() {
            let more = of_slices.count();
            let more = if more > 0 { format!(" (and {more} slices more like it)") } else { String::new() };
            remarks.push(format!("{first}{more}"));
        }
        Found { pods, remark: (!remarks.is_empty()).then(|| remarks.join("; ")) }
    }

    /// The pods that are in this state in any slice: one that moves from slice to slice may be in two of them.
    fn in_state(&self, state: State) -> Vec<Pod> {
        let all = self.slices.values().flat_map(|held| &held.pods);
        let mut seen = HashSet::new();
        let in_it = all.filter(|(pod, its)| *its == state && seen.insert(pod.address));
        in_it.map(|(pod, _)| pod.clone()).collect()
    }
}

impl Held {
    fn nothing(remark: String) -> Self {
        Self { pods: Vec::new(), remark: Some(remark) }
    }
}

impl State {
    /// What is not said counts as the API says it should.
    fn of(endpoint: &Endpoint) -> Self {
        let silent = EndpointConditions::default();
        let said = endpoint.conditions.as_ref().unwrap_or(&silent);
        match (said.ready.unwrap_or(true), said.serving.unwrap_or(true), said.terminating.unwrap_or(false)) {
            (true, _, _) => Self::Ready,
            (false, true, true) => Self::Ending,
            (false, ..) => Self::Away,
        }
    }
}

impl Port {
    /// Its number at the pods of a slice with these ports. One without a number stands for all numbers.
    fn among(&self, ports: &[EndpointPort]) -> Option<u16> {
        let mut tcp = ports.iter().filter(|port| port.protocol.as_deref().unwrap_or("TCP") == "TCP");
        match self {
            Self::Name(name) => {
                let its = tcp.find(|port| port.name.as_deref().unwrap_or_default() == name)?;
                u16::try_from(its.port?).ok()
            }
            Self::Number(number) => {
                let fits = |port: &EndpointPort| port.port.is_none_or(|one| one == i32::from(*number));
                tcp.any(fits).then_some(*number)
            }
        }
    }
}

impl std::fmt::Display for Port {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Name(name) => write!(f, "`{name}`"),
            Self::Number(number) => write!(f, "{number}"),
        }
    }
}

fn listed(ports: &[EndpointPort]) -> String {
    let one = |port: &EndpointPort| {
        let number = port.port.map_or_else(|| "any".to_owned(), |number| number.to_string());
        let protocol = port.protocol.as_deref().unwrap_or("TCP");
        match port.name.as_deref() {
            None | Some("") => format!("{number}/{protocol}"),
            Some(name) => format!("`{name}` ({number}/{protocol})"),
        }
    };
    if ports.is_empty() {
        return "none".to_owned();
    }
    ports.iter().take(MAX_PORTS_NAMED).map(one).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests;
