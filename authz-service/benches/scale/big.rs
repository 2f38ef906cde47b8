//! A policy of any size: many copies of one small world, so that a question costs what it costs in the small one,
//! unless size itself costs something.
//!
//! A world is a service with ten permissions in five roles and a hundred bindings. A hundred worlds share a namespace,
//! in which each of a thousand subjects holds ten roles, spread over the services.

use serde_json::json;
use tollgate_authz::policy::object::Document;
use tollgate_authz::policy::spec::{BindingSpec, WhoSpec};

pub(crate) const ISSUER: &str = "https://issuer.demo";
pub(crate) const ROLES: u32 = 5;
pub(crate) const BINDINGS: u32 = 100;
const SERVICES_IN_NAMESPACE: u32 = 100;
/// How many roles a subject holds.
pub(crate) const HELD: u32 = 10;

/// How much there is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size {
    pub(crate) services: u32,
    pub(crate) bindings_of_service: u32,
}

impl Size {
    /// One service, and one subject with ten bindings.
    pub(crate) const SMALL: Self = Self { services: 1, bindings_of_service: HELD };
    /// A million bindings, a hundred thousand permissions, ten thousand services.
    pub(crate) const LARGE: Self = Self { services: 10_000, bindings_of_service: BINDINGS };

    pub(crate) fn bindings(self) -> u32 {
        self.services * self.bindings_of_service
    }

    fn services_in_namespace(self) -> u32 {
        self.services.min(SERVICES_IN_NAMESPACE)
    }
}

/// Where a binding points: a subject, a service and a role on it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Held {
    pub(crate) namespace: u32,
    pub(crate) service: u32,
    pub(crate) role: u32,
    pub(crate) subject: u32,
}

/// The binding of this number. Ten in a row are one subject's, on services that lie apart.
pub(crate) fn held(size: Size, number: u32) -> Held {
    let of_namespace = size.services_in_namespace() * size.bindings_of_service;
    let (namespace, within) = (number / of_namespace, number % of_namespace);
    let (subject, nth) = (within / HELD, within % HELD);
    let service = (subject * 7 + nth * 11) % size.services_in_namespace();
    Held { namespace, service, role: (subject + nth) % ROLES, subject }
}

pub(crate) fn subject(held: Held) -> String {
    format!("subject-{}-{}", held.namespace, held.subject)
}

pub(crate) fn service(held: Held) -> String {
    format!("ns{}/service-{}", held.namespace, held.service)
}

/// The path that the role of this number may read.
pub(crate) fn path(role: u32) -> String {
    format!("/role-{role}/things/42")
}

/// Everything but the bindings.
pub(crate) fn base(size: Size, jwks: &serde_json::Value) -> impl Iterator<Item = Document> {
    let issuer = json!({"kind": "Issuer", "name": "demo", "issuer": ISSUER, "jwks": jwks});
    let worlds = (0..size.services).flat_map(move |number| {
        let (namespace, n) =
            (format!("ns{}", number / SERVICES_IN_NAMESPACE), number % SERVICES_IN_NAMESPACE);
        let service = json!({"kind": "Service", "namespace": namespace, "name": format!("service-{n}"),
            "hosts": [format!("service-{n}.{namespace}.example")], "callers": ["external"], "issuers": ["demo"],
            "audiences": ["insurance"]});
        let roles = (0..ROLES).map(move |role| {
            json!({"kind": "Role", "namespace": namespace, "name": format!("service-{n}-role-{role}"), "permissions": [
                {"name": "read", "service": format!("service-{n}"), "methods": ["GET"],
                    "paths": [format!("/role-{role}/things"), format!("/role-{role}/things/{{id}}")],
                    "scopes": {"all": ["things:read"]}},
                {"name": "write", "service": format!("service-{n}"), "methods": ["POST", "PUT"],
                    "paths": [format!("/role-{role}/things/{{id}}")], "scopes": {"all": ["things:write"]}}]})
        });
        [service].into_iter().chain(roles)
    });
    [issuer].into_iter().chain(worlds).map(|one| serde_json::from_value(one).expect("a document"))
}

/// The binding of this number.
pub(crate) fn binding(size: Size, number: u32) -> Document {
    let held = held(size, number);
    Document::Binding(BindingSpec {
        namespace: format!("ns{}", held.namespace),
        name: format!("binding-{number}"),
        role: format!("service-{}-role-{}", held.service, held.role),
        who: WhoSpec { issuer: Some("demo".to_owned()), subject: Some(subject(held)), ..WhoSpec::default() },
        not_before: None,
        not_after: None,
        when: None,
        dry_run: false,
    })
}
