//! Who may do something, and what may somebody do: the policy read from its two ends. Pure.
//!
//! It tells what is granted and under which conditions. Whether one request passes is for `evaluate` to say: claims,
//! headers and the time of day are known only then.

use serde::{Deserialize, Serialize};
use tollgate_paths::{Level, Template, normalize};
use utoipa::{IntoParams, ToSchema};

use super::object::{Document, PolicySet};
use super::roles::{Roles, bindings};
use super::spec::{BindingSpec, Mode, PermissionSpec, ScopesSpec, ServiceSpec, WhoSpec};

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
    /// Scopes that the token must have.
    pub scopes: ScopesSpec,
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

/// Who may do it, as the policy stands; `now` is in Unix seconds.
pub fn who_can(set: &PolicySet, target: &Target, now: i64) -> Result<WhoCan, WhoError> {
    let service = service_of(set, target)?;
    let wrong = |problem: String| WhoError::Path(target.path.clone(), problem);
    let path = target.path.split_once('?').map_or(target.path.as_str(), |(path, _query)| path);
    let path = normalize(path, Level::DecodeAndMerge).map_err(|error| wrong(error.to_string()))?;
    let roles = Roles::of(set);
    let speaks_of_it = |permission: &PermissionSpec| {
        (permission.service == "*" || permission.service == service.name)
            && permission.methods.iter().any(|method| method == "*" || *method == target.method)
            && permission.paths.iter().any(|one| Template::parse(one).is_ok_and(|one| one.matches(&path)))
            && host_fits(permission, target.host.as_deref())
    };
    let mut grants = Vec::new();
    for binding in bindings(set).filter(|binding| binding.namespace == service.namespace) {
        for (role, permission) in roles.permissions(&binding.namespace, &binding.role) {
            if speaks_of_it(permission) {
                grants.push(grant(binding, &role.name, permission, &[service], now));
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

fn host_fits(permission: &PermissionSpec, host: Option<&str>) -> bool {
    permission.hosts.is_empty()
        || host.is_none_or(|host| permission.hosts.iter().any(|one| one.eq_ignore_ascii_case(host)))
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
        scopes: permission.scopes.clone(),
        not_before: binding.not_before.map(|from| from.to_string()),
        not_after: binding.not_after.map(|end| end.to_string()),
        but: obstacles(binding, services, now),
    }
}

fn obstacles(binding: &BindingSpec, services: &[&ServiceSpec], now: i64) -> Vec<String> {
    let mut but = Vec::new();
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

/// Somebody.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Somebody {
    /// The issuer's name in the policy; any when absent.
    pub issuer: Option<String>,
    /// The token's subject.
    pub subject: Option<String>,
    /// The token's groups.
    pub groups: Vec<String>,
    /// The token's client.
    pub client: Option<String>,
    /// The calling workload's SPIFFE id.
    pub workload: Option<String>,
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
            grants.push(grant(binding, &role.name, permission, &services, now));
        }
    }
    grants
}

/// Whether somebody may be one of those. What was not said of them is not held against them, as far as something was.
fn may_be(who: &WhoSpec, somebody: &Somebody) -> bool {
    use super::model::WorkloadPattern;

    let has_token = somebody.subject.is_some() || somebody.client.is_some() || !somebody.groups.is_empty();
    let issuer = match (&who.issuer, &somebody.issuer) {
        (Some(wanted), Some(said)) => wanted == said,
        _ => true,
    };
    let same = |wanted: &Option<String>, said: &Option<String>| wanted.is_none() || wanted == said;
    let workload = who.workload.as_deref().is_none_or(|wanted| {
        let pattern = WorkloadPattern::parse(wanted);
        somebody.workload.as_deref().is_some_and(|id| pattern.is_ok_and(|pattern| pattern.matches(id)))
    });
    issuer
        && workload
        && same(&who.subject, &somebody.subject)
        && same(&who.client, &somebody.client)
        && who.group.as_ref().is_none_or(|group| somebody.groups.contains(group))
        && (has_token || !who.authenticated && who.issuer.is_none())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::policy::object::policy_set;

    const NOW: i64 = 1_800_000_000;

    fn shop() -> PolicySet {
        let document = |value: Value| serde_json::from_value::<Document>(value).unwrap();
        policy_set(
            [
                json!({"kind": "Service", "namespace": "a", "name": "s", "hosts": ["s.a"], "callers": ["external"],
                    "issuers": ["demo"]}),
                json!({"kind": "Service", "namespace": "a", "name": "t", "hosts": ["t.a"]}),
                json!({"kind": "Role", "namespace": "a", "name": "reader", "permissions": [
                    {"name": "read", "service": "s", "methods": ["GET"], "paths": ["/o/{id}"], "scopes": {"all": ["r"]}}]}),
                json!({"kind": "Role", "namespace": "a", "name": "writer", "includes": ["reader"], "permissions": [
                    {"name": "write", "service": "s", "methods": ["POST"], "paths": ["/o"]}]}),
                json!({"kind": "Role", "namespace": "a", "name": "nobody", "permissions": [
                    {"name": "all", "service": "*", "methods": ["*"], "paths": ["/{**}"]}]}),
                json!({"kind": "Binding", "namespace": "a", "name": "u", "role": "writer",
                    "who": {"issuer": "demo", "subject": "u"}}),
                json!({"kind": "Binding", "namespace": "a", "name": "g", "role": "reader",
                    "who": {"issuer": "other", "group": "g"}, "not_after": "2020-01-01T00:00:00Z"}),
                json!({"kind": "Binding", "namespace": "a", "name": "w", "role": "reader",
                    "who": {"workload": "spiffe://d/ns/a/*"}}),
            ]
            .map(document),
        )
        .unwrap()
    }

    fn target(method: &str, path: &str) -> Target {
        Target { method: method.into(), path: path.into(), host: None, service: Some("a/s".into()) }
    }

    #[test]
    fn who_can_names_every_way_and_what_stands_in_it() {
        let found = who_can(&shop(), &target("GET", "/o/1?x=2"), NOW).unwrap();
        let ways: Vec<_> =
            found.grants.iter().map(|grant| (&*grant.binding, &*grant.permission, grant.but.len())).collect();
        assert_eq!(ways, [("a/g", "reader.read", 2), ("a/u", "reader.read", 0), ("a/w", "reader.read", 0)]);
        assert_eq!(
            (found.callers, found.unheld),
            (vec!["external".to_owned()], vec!["nobody.all".to_owned()])
        );
        let found = who_can(&shop(), &target("POST", "/o"), NOW).unwrap();
        assert_eq!(found.grants.len(), 1);
        assert!(who_can(&shop(), &target("DELETE", "/o"), NOW).unwrap().grants.is_empty());
    }

    #[test]
    fn a_service_is_found_by_host_or_name_or_the_error_says_which_there_are() {
        let by = |host: Option<&str>, service: Option<&str>| {
            let target =
                Target { host: host.map(Into::into), service: service.map(Into::into), ..target("GET", "/") };
            who_can(&shop(), &target, NOW).map(|found| found.service)
        };
        assert_eq!(by(Some("S.a"), None).unwrap(), "a/s");
        assert_eq!(by(None, Some("t")).unwrap(), "a/t");
        assert!(by(None, None).unwrap_err().to_string().contains("a/s, a/t"));
        assert!(by(None, Some("b/s")).is_err());
    }

    #[test]
    fn can_lists_what_somebody_holds() {
        let count = |somebody: Somebody| can(&shop(), &somebody, NOW).len();
        let somebody = Somebody { subject: Some("u".into()), ..Somebody::default() };
        assert_eq!(count(somebody.clone()), 2);
        assert_eq!(count(Somebody { issuer: Some("other".into()), ..somebody.clone() }), 0);
        assert_eq!(count(Somebody { groups: vec!["g".into()], ..somebody }), 3);
        assert_eq!(
            count(Somebody { workload: Some("spiffe://d/ns/a/sa/x".into()), ..Somebody::default() }),
            1
        );
        assert_eq!(count(Somebody::default()), 0);
    }
}
