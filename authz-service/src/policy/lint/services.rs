//! Services and issuers: who can reach them, and whether anything lets anybody through.

use super::{Linter, Severity};
use crate::policy::check::admin_service;
use crate::policy::object::ObjectId;
use crate::policy::spec::{IssuerSpec, Mode, ServiceSpec};
use crate::token::Issuer;
use crate::token::keys::ending::SOON;

pub(super) fn issuer(linter: &mut Linter<'_>, id: &ObjectId, spec: &IssuerSpec) {
    if !linter.policy.accepted.contains(&*spec.name) {
        linter.find(
            (Severity::Note, "issuer_unused"),
            (id, "name"),
            format!("no service accepts tokens of `{}`", spec.name),
            "name it under `issuers` of the services that shall accept it, or remove it",
        );
    }
    // One that cannot be used is for `check` to refuse.
    let end = Issuer::from_spec(spec).ok().and_then(|issuer| issuer.keys_end_before(linter.now + SOON));
    if let Some(end) = end {
        let when = jiff::Timestamp::from_second(end).unwrap_or(jiff::Timestamp::MAX);
        let (severity, code, verb) = if end < linter.now {
            (Severity::Error, "issuer_key_ended", "ended")
        } else {
            (Severity::Warning, "issuer_key_ends", "ends")
        };
        linter.find(
            (severity, code),
            (id, "pem"),
            format!("a certificate in it {verb} at {when}; what its key signs is refused from then on"),
            "put the issuer's new certificate beside it, and take this one out after its end",
        );
    }
}

pub(super) fn service(linter: &mut Linter<'_>, id: &ObjectId, spec: &ServiceSpec) {
    for (index, issuer) in spec.issuers.iter().enumerate() {
        if linter.policy.knows_issuers() && !linter.policy.has_issuer(issuer) {
            linter.find(
                (Severity::Error, "issuer_unknown"),
                (id, format!("issuers[{index}]")),
                format!("there is no issuer `{issuer}`, so none of its tokens is accepted"),
                "correct the name, or add the issuer",
            );
        }
    }
    if spec.callers.is_empty() {
        linter.find(
            (Severity::Warning, "service_without_callers"),
            (id, "callers"),
            "nobody may talk to this service, whatever is granted",
            "name the workloads that may, or `external` for what enters by an ingress",
        );
    }
    if spec.mode == Mode::Audit {
        linter.find(
            (Severity::Note, "audit_mode"),
            (id, "mode"),
            "a missing grant refuses nothing here, it is only recorded",
            "set `mode: enforce` once the records show no grant that is missing",
        );
    }
    let granted = |name: &str| linter.policy.granted.contains(&(&*spec.namespace, name));
    if *id != admin_service() && !granted("*") && !granted(&spec.name) {
        linter.find(
            (Severity::Warning, "service_without_grants"),
            (id, "name"),
            "no role has a permission for this service, so every request is refused",
            "write a role for it, or remove the service",
        );
    }
}
