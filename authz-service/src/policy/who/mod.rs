//! Who may do something, and what may somebody do: the policy read from its two ends. Pure.
//!
//! It tells what is granted, under which conditions, and which denials take it away again. Whether one request passes
//! is for `evaluate` to say: claims, headers and the time of day are known only then.

mod people;

use serde::{Deserialize, Serialize};
use tollgate_paths::{Level, Template, normalize};
use utoipa::{IntoParams, ToSchema};

use super::cover::{Requests, requests_cover, requests_meet, requests_of};
use super::object::{Document, PolicySet};
use super::roles::{Roles, bindings};
use super::spec::{
    BindingSpec, ConditionSpec, DenialSpec, GrpcSpec, Mode, PermissionSpec, ScopesSpec, ServiceSpec, WhoSpec,
};
pub use people::Somebody;
use people::{Overlap, may_be, overlap};

/// What somebody would do.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// The method.
    pub method: String,
    /// The path.
    pub path: String,
    /// The host by which the service is called.
    pub host: Option<String>,
    /// `namespace/name`, or a name that is unique; instead of the host.
    pub service: Option<String>,
}

/// Why a question cannot be answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WhoError {
    /// Nothing says which service is meant.
    #[error("say which service is meant: by --host, or by --service NAMESPACE/NAME; there are {0}")]
    NoService(String),
    /// The text is no method of gRPC.
    #[error("`{0}` is no gRPC method: write package.Service/Method")]
    Grpc(String),
    /// The text is no path.
    #[error("`{0}` is no path: {1}")]
    Path(String, String),
}

/// Who may do it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct WhoCan {
    /// `namespace/name`.
    pub service: String,
    /// Which workloads may talk to the service at all; `external` is what enters by an ingress.
    pub callers: Vec<String>,
    /// Whether a missing grant refuses.
    pub mode: Mode,
    /// Who holds a role that allows it, and what else must be so.
    pub grants: Vec<Grant>,
    /// Permissions that would allow it and that nobody holds, as `role.permission`.
    pub unheld: Vec<String>,
}

/// One way to be allowed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Grant {
    /// Who.
    pub who: WhoSpec,
    /// The binding, as `namespace/name`.
    pub binding: String,
    /// The role that it gives.
    pub role: String,
    /// The permission, as `role.permission`.
    pub permission: String,
    /// `namespace/name` of the service, or `namespace/*`.
    pub service: String,
    /// Methods.
    pub methods: Vec<String>,
    /// Path templates.
    pub paths: Vec<String>,
    /// Methods of a gRPC service, instead of methods and paths.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grpc: Option<GrpcSpec>,
    /// Scopes that the token must have.
    pub scopes: ScopesSpec,
    /// What must hold beside, for the binding and for the permission.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub when: Vec<ConditionSpec>,
    /// Denials that take it away, or part of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub denied_by: Vec<DeniedBy>,
    /// From when on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_before: Option<String>,
    /// Until when.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_after: Option<String>,
    /// Why it does not work now, where something stands in its way.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub but: Vec<String>,
}

/// A denial that takes a grant away.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DeniedBy {
    /// The denial, as `namespace/name`.
    pub denial: String,
    /// Whom it denies.
    pub who: WhoSpec,
    /// Whether it takes away all of the grant now; otherwise some requests, some people, or by a condition.
    pub wholly: bool,
    /// What must hold for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<ConditionSpec>,
    /// Why there is such a denial.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
}

impl Target {
    /// A call of a gRPC method, as `package.Service/Method`.
    pub fn grpc(method: &str) -> Result<Self, WhoError> {
        match method.split_once('/') {
            Some((service, name)) if !service.is_empty() && !name.is_empty() && !name.contains('/') => {
                Ok(Self { method: "POST".to_owned(), path: format!("/{method}"), host: None, service: None })
            }
            _ => Err(WhoError::Grpc(method.to_owned())),
        }
    }
}

/// Who may do it, as the policy stands; `now` is in Unix seconds.
pub fn who_can(set: &PolicySet, target: &Target, now: i64) -> Result<WhoCan, WhoError> {
    let service = service_of(set, target)?;
    let wrong = |problem: String| WhoError::Path(target.path.clone(), problem);
    let path = target.path.split_once('?').map_or(target.path.as_str(), |(path, _query)| path);
    let path = normalize(path, Level::DecodeAndMerge).map_err(|error| wrong(error.to_string()))?;
    let roles = Roles::of(set);
    let is_it = |(methods, paths): &Requests<'_>, hosts: &[String], named: &str| {
        (named == "*" || named == service.name)
            && methods.iter().any(|method| method == "*" || *method == target.method)
            && paths.iter().any(|one| Template::parse(one).is_ok_and(|one| one.matches(&path)))
            && host_fits(hosts, target.host.as_deref())
    };
    let speaks_of_it = |permission: &PermissionSpec| {
        let requests = requests_of(&permission.methods, &permission.paths, permission.grpc.as_ref());
        is_it(&requests, &permission.hosts, &permission.service)
    };
    let refusing: Vec<&DenialSpec> = denials(set)
        .filter(|denial| {
            let requests = requests_of(&denial.methods, &denial.paths, denial.grpc.as_ref());
            denial.namespace == service.namespace && is_it(&requests, &denial.hosts, &denial.service)
        })
        .collect();
    let mut grants = Vec::new();
    for binding in bindings(set).filter(|binding| binding.namespace == service.namespace) {
        for (role, permission) in roles.permissions(&binding.namespace, &binding.role) {
            if speaks_of_it(permission) {
                let mut grant = grant(binding, &role.name, permission, &[service], now);
                let hits = |denial: &&&DenialSpec| overlap(&binding.who, None, &denial.who) != Overlap::Never;
                grant.denied_by = (refusing.iter().filter(hits))
                    .filter_map(|denial| {
                        let all = overlap(&binding.who, None, &denial.who) == Overlap::Always;
                        // Without a host, one that is limited to hosts is not certain.
                        denied_by(denial, all && (denial.hosts.is_empty() || target.host.is_some()), now)
                    })
                    .collect();
                grants.push(grant);
            }
        }
    }
    let mut unheld = Vec::new();
    for role in roles.iter().filter(|role| role.namespace == service.namespace) {
        for permission in role.permissions.iter().filter(|permission| speaks_of_it(permission)) {
            let name = format!("{}.{}", role.name, permission.name);
            if !grants.iter().any(|grant| grant.permission == name) {
                unheld.push(name);
            }
        }
    }
    Ok(WhoCan {
        service: format!("{}/{}", service.namespace, service.name),
        callers: service.callers.clone(),
        mode: service.mode,
        grants,
        unheld,
    })
}

fn host_fits(hosts: &[String], host: Option<&str>) -> bool {
    hosts.is_empty() || host.is_none_or(|host| hosts.iter().any(|one| one.eq_ignore_ascii_case(host)))
}

fn denials(set: &PolicySet) -> impl Iterator<Item = &DenialSpec> {
    set.values().filter_map(|document| match document {
        Document::Denial(denial) => Some(denial),
        _ => None,
    })
}

/// A denial as it stands beside a grant; nothing where it is over or only tried.
fn denied_by(denial: &DenialSpec, all: bool, now: i64) -> Option<DeniedBy> {
    let is_over = denial.not_after.is_some_and(|end| end.as_second() <= now);
    let has_begun = denial.not_before.is_none_or(|from| from.as_second() <= now);
    (!is_over && !denial.dry_run).then(|| DeniedBy {
        denial: format!("{}/{}", denial.namespace, denial.name),
        who: denial.who.clone(),
        wholly: all && has_begun && denial.when.is_none(),
        when: denial.when.clone(),
        reason: denial.reason.clone(),
    })
}

fn service_of<'p>(set: &'p PolicySet, target: &Target) -> Result<&'p ServiceSpec, WhoError> {
    let services: Vec<&ServiceSpec> = services(set).collect();
    let is = |service: &&&ServiceSpec| match (&target.service, &target.host) {
        (Some(name), _) => match name.split_once('/') {
            Some((namespace, name)) => service.namespace == namespace && service.name == name,
            None => service.name == *name,
        },
        (None, Some(host)) => service.hosts.iter().any(|one| one.eq_ignore_ascii_case(host)),
        (None, None) => services.len() == 1,
    };
    let mut found = services.iter().filter(is);
    match (found.next(), found.next()) {
        (Some(service), None) => Ok(service),
        _ => {
            let names: Vec<_> =
                services.iter().map(|one| format!("{}/{}", one.namespace, one.name)).collect();
            Err(WhoError::NoService(if names.is_empty() { "none".to_owned() } else { names.join(", ") }))
        }
    }
}

fn services(set: &PolicySet) -> impl Iterator<Item = &ServiceSpec> {
    set.values().filter_map(|document| match document {
        Document::Service(service) => Some(service),
        _ => None,
    })
}

fn grant(
    binding: &BindingSpec,
    role: &str,
    permission: &PermissionSpec,
    services: &[&ServiceSpec],
    now: i64,
) -> Grant {
    Grant {
        who: binding.who.clone(),
        binding: format!("{}/{}", binding.namespace, binding.name),
        role: binding.role.clone(),
        permission: format!("{role}.{}", permission.name),
        service: format!("{}/{}", binding.namespace, permission.service),
        methods: permission.methods.clone(),
        paths: permission.paths.clone(),
        grpc: permission.grpc.clone(),
        when: binding.when.iter().chain(&permission.when).cloned().collect(),
        denied_by: Vec::new(),
        scopes: permission.scopes.clone(),
        not_before: binding.not_before.map(|from| from.to_string()),
        not_after: binding.not_after.map(|end| end.to_string()),
        but: obstacles(binding, permission, services, now),
    }
}

fn obstacles(
    binding: &BindingSpec,
    permission: &PermissionSpec,
    services: &[&ServiceSpec],
    now: i64,
) -> Vec<String> {
    let mut but = Vec::new();
    if binding.dry_run || permission.dry_run {
        but.push("it is only tried (dry run)".to_owned());
    }
    if binding.not_after.is_some_and(|end| end.as_second() <= now) {
        but.push("the binding has expired".to_owned());
    }
    if binding.not_before.is_some_and(|from| from.as_second() > now) {
        but.push("the binding has not begun".to_owned());
    }
    if let Some(issuer) = &binding.who.issuer
        && !services
            .iter()
            .any(|service| service.issuers.contains(issuer) || issuer == crate::facts::ADMIN_ISSUER)
    {
        but.push(format!("the service does not accept tokens of {issuer}"));
    }
    but
}

/// What somebody may do, as the policy stands; `now` is in Unix seconds.
pub fn can(set: &PolicySet, somebody: &Somebody, now: i64) -> Vec<Grant> {
    let roles = Roles::of(set);
    let mut grants = Vec::new();
    for binding in bindings(set).filter(|binding| may_be(&binding.who, somebody)) {
        for (role, permission) in roles.permissions(&binding.namespace, &binding.role) {
            let named = |service: &&ServiceSpec| {
                service.namespace == binding.namespace
                    && (permission.service == "*" || permission.service == service.name)
            };
            let services: Vec<&ServiceSpec> = services(set).filter(named).collect();
            let mut grant = grant(binding, &role.name, permission, &services, now);
            grant.denied_by = (denials(set).filter(|denial| may_be(&denial.who, somebody)))
                .filter_map(|denial| takes_away(denial, (binding, permission), somebody, now))
                .collect();
            grants.push(grant);
        }
    }
    grants
}

/// What a denial takes of a permission that somebody holds.
fn takes_away(
    denial: &DenialSpec,
    (binding, permission): (&BindingSpec, &PermissionSpec),
    somebody: &Somebody,
    now: i64,
) -> Option<DeniedBy> {
    let requests = requests_of(&permission.methods, &permission.paths, permission.grpc.as_ref());
    let denied = requests_of(&denial.methods, &denial.paths, denial.grpc.as_ref());
    let speaks_of_it = denial.namespace == binding.namespace
        && (denial.service == permission.service || denial.service == "*" || permission.service == "*")
        && requests_meet(&denied, &requests);
    let overlap = overlap(&binding.who, Some(somebody), &denial.who);
    if !speaks_of_it || overlap == Overlap::Never {
        return None;
    }
    let all = overlap == Overlap::Always
        && (denial.service == permission.service || denial.service == "*")
        && denial.hosts.is_empty()
        && requests_cover(&denied, &requests);
    denied_by(denial, all, now)
}

#[cfg(test)]
mod tests;
