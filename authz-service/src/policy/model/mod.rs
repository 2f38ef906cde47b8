//! The policy as typed values. Whoever holds a [`Model`] need not doubt it: `check` makes it, once.

mod holders;
mod methods;
mod roles;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tollgate_paths::Upstream;

use super::spec::{LoginSpec, Mode, Point};
use crate::token::Issuer;

pub use holders::{Binding, Denial, Period, Revocation, Revoked, Who, WorkloadPattern};
pub use methods::Methods;
pub use roles::{Offer, Permission, Role, RoleTag, Selector};

/// A checked policy.
#[derive(Debug, Default)]
pub struct Model {
    /// By name.
    pub issuers: BTreeMap<Arc<str>, Arc<Issuer>>,
    /// By name.
    pub enforcers: BTreeMap<Arc<str>, Arc<Enforcer>>,
    /// By `namespace/name`.
    pub services: BTreeMap<Arc<str>, Arc<Service>>,
    /// By `namespace/name`.
    pub roles: BTreeMap<Arc<str>, Arc<Role>>,
    /// By `namespace/name`.
    pub bindings: BTreeMap<Arc<str>, Arc<Binding>>,
    /// By `namespace/name`.
    pub denials: BTreeMap<Arc<str>, Arc<Denial>>,
    /// By name.
    pub revocations: BTreeMap<Arc<str>, Arc<Revocation>>,
}

/// What is protected.
#[derive(Debug, PartialEq)]
pub struct Service {
    /// `namespace/name`.
    pub key: Arc<str>,
    /// Where it lives.
    pub namespace: Arc<str>,
    /// Host names, in lower case.
    pub hosts: Box<[Box<str>]>,
    /// The identity of its workloads.
    pub spiffe_id: Option<Box<str>>,
    /// Who may talk to it.
    pub callers: Callers,
    /// Names of the issuers it accepts.
    pub issuers: Box<[Arc<str>]>,
    /// Audiences it accepts; any when empty.
    pub audiences: Box<[Box<str>]>,
    /// Whether a missing grant refuses.
    pub mode: Mode,
    /// What its upstream may do to a path.
    pub upstream: Upstream,
    /// Where a browser without a token is sent.
    pub login: Option<Login>,
}

/// Where people log in.
#[derive(Debug, PartialEq)]
pub struct Login {
    /// The page, ready to have a parameter added.
    pub url: Box<str>,
    /// The query parameter that says where to come back to.
    pub return_parameter: Option<Box<str>>,
}

impl Login {
    /// Checks what was written.
    pub fn from_spec(spec: &LoginSpec) -> Result<Self, String> {
        let url = url::Url::parse(&spec.url).map_err(|error| format!("`{}` is no URL: {error}", spec.url))?;
        if !matches!(url.scheme(), "https" | "http") || !url.username().is_empty() || url.password().is_some()
        {
            return Err("a page at an http or https URL, without a user in it".to_owned());
        }
        if url.fragment().is_some() {
            return Err("nothing can be added behind a fragment".to_owned());
        }
        let plain =
            |name: &str| !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if let Some(name) = spec.return_parameter.as_deref().filter(|name| !plain(name)) {
            return Err(format!("`{name}` is no plain name of a query parameter"));
        }
        Ok(Self {
            url: url.as_str().into(),
            return_parameter: spec.return_parameter.as_deref().map(Into::into),
        })
    }
}

/// The caller gate: which workloads may talk to a service.
#[derive(Debug, Default, PartialEq)]
pub struct Callers {
    /// Whatever entered by an ingress.
    pub external: bool,
    /// Workloads.
    pub workloads: Box<[WorkloadPattern]>,
}

/// Who may ask, and about what.
#[derive(Debug, PartialEq)]
pub struct Enforcer {
    /// Its name.
    pub name: Arc<str>,
    /// The workload that it is.
    pub spiffe_id: Option<Arc<str>>,
    /// Where it stands.
    pub point: Point,
    /// The services it may ask about; all of them when `None`.
    pub services: Option<BTreeSet<Box<str>>>,
    /// The workloads it may speak for; all of them when empty.
    pub sources: Box<[WorkloadPattern]>,
}
