//! What takes away: denials that can be walked around, and ends that have passed.
//!
//! A denial names what is forbidden, so whatever it forgets is allowed. By path it forgets easily: what lies below, a
//! slash at the end, `HEAD` beside `GET`, and every spelling that the upstream reads as the same while its service
//! says that it does not.

use super::{Linter, Severity};
use crate::policy::cover::path_covers;
use crate::policy::object::{Document, ObjectId};
use crate::policy::spec::{DenialSpec, PermissionSpec, UpstreamSpec};

pub(super) fn other(linter: &mut Linter<'_>, id: &ObjectId, document: &Document) {
    match document {
        Document::Denial(spec) => denial(linter, id, spec),
        Document::Revocation(spec) if spec.until.as_second() <= linter.now => linter.find(
            (Severity::Note, "revocation_ended"),
            (id, "until"),
            format!("revokes nothing any more since {}", spec.until),
            "remove it",
        ),
        _ => {}
    }
}

fn denial(linter: &mut Linter<'_>, id: &ObjectId, spec: &DenialSpec) {
    if let Some(end) = spec.not_after.filter(|end| end.as_second() <= linter.now) {
        linter.find(
            (Severity::Warning, "denial_expired"),
            (id, "not_after"),
            format!("denied nothing any more since {end}"),
            "remove it, or give it a new end",
        );
        return;
    }
    if let Some(issuer) = &spec.who.issuer
        && linter.policy.knows_issuers()
        && !linter.policy.has_issuer(issuer)
    {
        linter.find(
            (Severity::Error, "issuer_unknown"),
            (id, "who.issuer"),
            format!("there is no issuer `{issuer}`, so this denies nothing"),
            "correct the name, or add the issuer",
        );
    }
    let granted = granted(linter, spec);
    for (index, path) in spec.paths.iter().enumerate() {
        for open in beside(path) {
            let is_denied = spec.paths.iter().any(|other| path_covers(other, &open));
            let is_granted = granted.iter().flat_map(|one| &one.paths).any(|grant| path_covers(grant, &open));
            if !is_denied && is_granted {
                linter.find(
                    (Severity::Warning, "denial_bypass_path"),
                    (id, format!("paths[{index}]")),
                    format!("`{path}` is denied, but `{open}` is granted and few upstreams tell them apart"),
                    format!("add `{open}`, or grant what may pass instead of denying what may not"),
                );
            }
        }
    }
    methods(linter, id, spec, &granted);
    readings(linter, id, spec);
}

/// What a grant may allow although the denial was meant to cover it.
fn beside(path: &str) -> Vec<String> {
    if path.ends_with("/{**}") {
        return Vec::new();
    }
    let bare = path.trim_end_matches('/');
    let mut found = vec![format!("{bare}/{{**}}")];
    if path.ends_with('/') && !bare.is_empty() {
        found.push(bare.to_owned());
    }
    found
}

fn granted<'p>(linter: &Linter<'p>, spec: &DenialSpec) -> Vec<&'p PermissionSpec> {
    let roles = linter.policy.roles.iter().filter(|role| role.namespace == spec.namespace);
    let same =
        |one: &&PermissionSpec| one.service == spec.service || one.service == "*" || spec.service == "*";
    roles.flat_map(|role| &role.permissions).filter(same).collect()
}

/// Methods that answer alike.
fn methods(linter: &mut Linter<'_>, id: &ObjectId, spec: &DenialSpec, granted: &[&PermissionSpec]) {
    let has = |methods: &[String], method: &str| methods.iter().any(|one| one == method || one == "*");
    let denies_get = has(&spec.methods, "GET") && !has(&spec.methods, "HEAD");
    if denies_get && granted.iter().any(|one| has(&one.methods, "HEAD")) {
        linter.find(
            (Severity::Warning, "denial_bypass_method"),
            (id, "methods"),
            "GET is denied, but HEAD is granted and tells nearly as much",
            "add HEAD",
        );
    }
}

/// A service that says its upstream takes paths as they are is believed; if it is wrong, denials by path leak first.
fn readings(linter: &mut Linter<'_>, id: &ObjectId, spec: &DenialSpec) {
    let by_path = spec.paths.iter().any(|path| path != "/{**}");
    let narrowed = |upstream: UpstreamSpec| {
        let default = UpstreamSpec::default();
        [
            ("decode", upstream.decode, default.decode),
            ("decode_slash", upstream.decode_slash, default.decode_slash),
            ("merge", upstream.merge, default.merge),
            ("strip_params", upstream.strip_params, default.strip_params),
        ]
        .into_iter()
        .filter(|(_, said, usual)| *usual && !said)
        .map(|(name, _, _)| name)
        .collect::<Vec<_>>()
    };
    let services = linter.policy.services(&spec.namespace, &spec.service);
    let found = services.filter(|_| by_path).find(|service| !narrowed(service.upstream).is_empty());
    if let Some((name, readings)) = found.map(|service| (service.name.clone(), narrowed(service.upstream))) {
        linter.find(
            (Severity::Warning, "denial_bypass_reading"),
            (id, "paths"),
            format!(
                "`{name}` says that its upstream does not {}; if it does, another spelling passes",
                readings.join(", ")
            ),
            "make sure of it, or leave `upstream` out so that every spelling is looked at",
        );
    }
}
