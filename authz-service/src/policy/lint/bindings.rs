//! Bindings: whom they speak of, and whether that can ever be somebody.

use super::{Linter, Severity, who_key};
use crate::policy::model::WorkloadPattern;
use crate::policy::object::ObjectId;
use crate::policy::spec::{BindingSpec, PermissionSpec, ServiceSpec};

/// Methods that change nothing (RFC 9110 §9.2.1).
const SAFE: [&str; 4] = ["GET", "HEAD", "OPTIONS", "TRACE"];

pub(super) fn binding(linter: &mut Linter<'_>, id: &ObjectId, spec: &BindingSpec) {
    if let Some(end) = spec.not_after.filter(|end| end.as_second() <= linter.now) {
        linter.find(
            (Severity::Warning, "binding_expired"),
            (id, "not_after"),
            format!("granted nothing any more since {end}"),
            "remove it, or give it a new end",
        );
    }
    let permissions: Vec<&PermissionSpec> = linter
        .policy
        .roles
        .permissions(&spec.namespace, &spec.role)
        .into_iter()
        .map(|(_, one)| one)
        .collect();
    let mut services: Vec<&ServiceSpec> =
        permissions.iter().flat_map(|one| linter.policy.services(&spec.namespace, &one.service)).collect();
    services.dedup_by(|a, b| a.name == b.name);
    issuer(linter, id, spec, &services);
    workload(linter, id, spec, &services);
    let changing = |one: &&&PermissionSpec| {
        one.scopes.all.is_empty()
            && one.scopes.any.is_empty()
            && one.methods.iter().any(|method| !SAFE.contains(&method.as_str()))
    };
    if spec.who.anyone
        && let Some(permission) = permissions.iter().find(changing)
    {
        linter.find(
            (Severity::Warning, "anyone_may_change"),
            (id, "who.anyone"),
            format!(
                "everybody, without a token, may {} by `{}`",
                permission.methods.join(", "),
                permission.name
            ),
            "write `authenticated: true`, or name who may",
        );
    }
    duplicate(linter, id, spec);
}

fn issuer(linter: &mut Linter<'_>, id: &ObjectId, spec: &BindingSpec, services: &[&ServiceSpec]) {
    let Some(issuer) = &spec.who.issuer else { return };
    if linter.policy.knows_issuers() && !linter.policy.has_issuer(issuer) {
        linter.find(
            (Severity::Error, "issuer_unknown"),
            (id, "who.issuer"),
            format!("there is no issuer `{issuer}`, so this grants nothing"),
            "correct the name, or add the issuer",
        );
        return;
    }
    let accepted = |service: &&ServiceSpec| service.issuers.contains(issuer);
    if issuer != crate::facts::ADMIN_ISSUER && !services.is_empty() && !services.iter().any(accepted) {
        linter.find(
            (Severity::Error, "issuer_not_accepted"),
            (id, "who.issuer"),
            format!(
                "no service that `{}` speaks of accepts tokens of `{issuer}`, so this grants nothing",
                spec.role
            ),
            "name the issuer under `issuers` of the service",
        );
    }
}

fn workload(linter: &mut Linter<'_>, id: &ObjectId, spec: &BindingSpec, services: &[&ServiceSpec]) {
    let Some(workload) = &spec.who.workload else { return };
    let let_in = |service: &&ServiceSpec| {
        service.callers.iter().any(|caller| {
            caller == workload
                || WorkloadPattern::parse(caller)
                    .is_ok_and(|pattern| pattern.matches(workload.trim_end_matches('*')))
                || WorkloadPattern::parse(workload).is_ok_and(|pattern| pattern.matches(caller))
        })
    };
    if !services.is_empty() && !services.iter().any(let_in) {
        linter.find(
            (Severity::Error, "workload_is_no_caller"),
            (id, "who.workload"),
            format!("no service that `{}` speaks of lets `{workload}` in, so this grants nothing", spec.role),
            "name the workload under `callers` of the service",
        );
    }
}

fn duplicate(linter: &mut Linter<'_>, id: &ObjectId, spec: &BindingSpec) {
    let endless = |binding: &BindingSpec| binding.not_before.is_none() && binding.not_after.is_none();
    let gives_more = |other: &&&BindingSpec| {
        other.name != spec.name
            && other.when.is_none()
            && !other.dry_run
            && endless(other)
            && (other.role != spec.role || other.name < spec.name || !endless(spec))
            && linter
                .policy
                .roles
                .closure(&spec.namespace, &other.role)
                .iter()
                .any(|role| role.name == spec.role)
    };
    let alike = linter.policy.alike.get(&(&*spec.namespace, who_key(spec)));
    let other = alike.into_iter().flatten().find(gives_more);
    if let Some(problem) =
        other.map(|other| format!("changes nothing: `{}` gives the same to the same", other.name))
    {
        linter.find((Severity::Warning, "binding_shadowed"), (id, "role"), problem, "remove it");
    }
}
