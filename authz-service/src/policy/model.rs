//! The policy as typed values. Whoever holds a [`Model`] need not doubt it: `check` makes it, once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tollgate_paths::Template;

use super::spec::{LoginSpec, Mode, Point};
use crate::token::Issuer;

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
    /// Whether its upstream may cut `;parameters` off a path.
    pub strip_params: bool,
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

/// A SPIFFE id, or all ids below a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WorkloadPattern {
    /// Exactly this one.
    Exact(Box<str>),
    /// Every id that starts with this text, which ends in a slash.
    Below(Box<str>),
}

impl WorkloadPattern {
    /// Reads `spiffe://domain/path` or `spiffe://domain/path/*`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("`{text}` is no SPIFFE id; write spiffe://domain/path or spiffe://domain/path/*");
        let rest = text.strip_prefix("spiffe://").ok_or_else(wrong)?;
        let (domain, path) = rest.split_once('/').ok_or_else(wrong)?;
        if domain.is_empty() || path.is_empty() || text.contains(char::is_whitespace) {
            return Err(wrong());
        }
        match text.strip_suffix('*') {
            Some(prefix) if prefix.ends_with('/') && !prefix.contains('*') => Ok(Self::Below(prefix.into())),
            None if !text.contains('*') => Ok(Self::Exact(text.into())),
            _ => Err(wrong()),
        }
    }

    /// Whether `id` is one of these.
    pub fn matches(&self, id: &str) -> bool {
        match self {
            Self::Exact(exact) => **exact == *id,
            Self::Below(prefix) => id.len() > prefix.len() && id.starts_with(&**prefix),
        }
    }
}

/// Who may ask, and about what.
#[derive(Debug, PartialEq)]
pub struct Enforcer {
    /// Its name.
    pub name: Arc<str>,
    /// Where it stands.
    pub point: Point,
    /// The services it may ask about; all of them when `None`.
    pub services: Option<BTreeSet<Box<str>>>,
    /// The workloads it may speak for; all of them when empty.
    pub sources: Box<[WorkloadPattern]>,
}

/// Named permissions.
#[derive(Debug)]
pub struct Role {
    /// `namespace/name`.
    pub key: Arc<str>,
    /// Where it lives.
    pub namespace: Arc<str>,
    /// Keys of the roles that it includes by name.
    pub includes: Box<[Arc<str>]>,
    /// Its own permissions.
    pub permissions: Box<[Arc<Permission>]>,
}

/// One thing that a role allows.
#[derive(Debug, PartialEq)]
pub struct Permission {
    /// `namespace/name` of its role.
    pub role: Arc<str>,
    /// Its role's name alone.
    pub role_name: Arc<str>,
    /// Its name.
    pub name: Box<str>,
    /// `namespace/name` of a service, or `None` for all of the namespace.
    pub service: Option<Box<str>>,
    /// Methods; any when empty.
    pub methods: Box<[Box<str>]>,
    /// Path templates.
    pub templates: Box<[Template]>,
    /// Hosts, in lower case; any when empty.
    pub hosts: Box<[Box<str>]>,
    /// Scopes all of which the token must have.
    pub scopes_all: Box<[Box<str>]>,
    /// Scopes one of which the token must have, unless empty.
    pub scopes_any: Box<[Box<str>]>,
}

impl Permission {
    /// Whether the permission speaks of `method`.
    pub fn allows_method(&self, method: &str) -> bool {
        self.methods.is_empty() || self.methods.iter().any(|allowed| **allowed == *method)
    }

    /// Whether the permission speaks of `host`.
    pub fn allows_host(&self, host: &str) -> bool {
        self.hosts.is_empty() || self.hosts.iter().any(|allowed| allowed.eq_ignore_ascii_case(host))
    }

    /// Whether a token with `scopes` has what is asked for.
    pub fn scopes_hold(&self, scopes: &[String]) -> bool {
        let has = |wanted: &str| scopes.iter().any(|scope| scope == wanted);
        self.scopes_all.iter().all(|scope| has(scope))
            && (self.scopes_any.is_empty() || self.scopes_any.iter().any(|scope| has(scope)))
    }
}

/// A permission on a service, and the roles that give it. Bindings name a role alone: what a role includes is
/// worked out on this side, so that a change to a role touches no binding.
#[derive(Debug, Clone, PartialEq)]
pub struct Offer {
    /// What is allowed.
    pub permission: Arc<Permission>,
    /// Keys of its own role and of all roles that include that one, however far up; sorted.
    pub roles: Arc<[Arc<str>]>,
}

impl Offer {
    /// Whether holders of the role with this key have the permission.
    pub fn is_given_by(&self, role: &str) -> bool {
        self.roles.binary_search_by(|key| (**key).cmp(role)).is_ok()
    }
}

/// Who holds a role.
#[derive(Debug, PartialEq)]
pub struct Binding {
    /// `namespace/name`.
    pub key: Arc<str>,
    /// Where it lives.
    pub namespace: Arc<str>,
    /// Key of the role.
    pub role: Arc<str>,
    /// Who.
    pub who: Who,
    /// Unix seconds from which on it grants.
    pub not_before: Option<i64>,
    /// Unix seconds from which on it grants no more.
    pub not_after: Option<i64>,
}

/// A conjunction; what is `None` is not asked.
#[derive(Debug, Default, PartialEq)]
pub struct Who {
    /// The issuer's name.
    pub issuer: Option<Arc<str>>,
    /// The token's subject.
    pub subject: Option<Box<str>>,
    /// One of the token's groups.
    pub group: Option<Box<str>>,
    /// The token's client.
    pub client: Option<Box<str>>,
    /// The peer.
    pub workload: Option<WorkloadPattern>,
    /// Any accepted token.
    pub authenticated: bool,
}
