//! Evaluation once more, as plainly as it can be said: no index, no snapshot, no book-keeping.
//!
//! It reads what people wrote and goes through all of it for each request. Of the code under test it shares the readings
//! of a path and the matching of one template, which have tests of their own.

use jiff::Timestamp;
use serde_json::Value;
use tollgate_paths::{MAX_READINGS, Template, Upstream};

use super::worlds::{Request, documents_of};
use crate::facts::{Entry, PathReadings};
use crate::policy::object::{Document, PolicySet};
use crate::policy::spec::{
    BindingSpec, ConditionSpec, GrpcSpec, Mode, PermissionSpec, RevocationSpec, RoleSpec, ServiceSpec,
    TimeSpec, WhoSpec,
};

/// What the reference says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    Allow,
    Forgiven,
    TokenRevoked,
    CertificateRevoked,
    Denied,
    CallerDenied,
    NoGrant,
    Ambiguous,
}

impl Answer {
    const fn allows(self) -> bool {
        matches!(self, Self::Allow)
    }
}

/// The answer, and what the dry-run rules would have made of it where that is another verdict.
pub(super) fn answer(set: &PolicySet, request: &Request) -> (Answer, Option<bool>) {
    let enforced = whole(set, request, false);
    let tried = whole(set, request, true);
    let differs = (enforced.allows() != tried.allows()).then(|| tried.allows());
    let service = service_of(set);
    if enforced == Answer::NoGrant && service.mode == Mode::Audit {
        return (Answer::Forgiven, differs);
    }
    (enforced, differs)
}

fn service_of(set: &PolicySet) -> &ServiceSpec {
    let mut services = documents_of(set).filter_map(|document| match document {
        Document::Service(service) => Some(service),
        _ => None,
    });
    services.next().unwrap()
}

fn whole(set: &PolicySet, request: &Request, dry: bool) -> Answer {
    if let Some(revoked) = revoked(set, request) {
        return revoked;
    }
    let upstream = Upstream::from(service_of(set).upstream);
    let Ok(paths) = PathReadings::of_target(request.path).unwrap().readings(upstream) else {
        return Answer::Ambiguous;
    };
    // Which lines of repeated headers are read: all, the first, the last.
    let pick: [fn(&str) -> String; 3] = [
        str::to_owned,
        |value| value.split(',').next().unwrap().trim().to_owned(),
        |value| value.rsplit(',').next().unwrap().trim().to_owned(),
    ];
    let answers: Vec<Vec<Answer>> = pick
        .iter()
        .map(|pick| paths.iter().map(|path| one(set, request, &Seen { path, pick, dry })).collect())
        .collect();
    let differ = answers.iter().flatten().any(|answer| answer.allows() != answers[0][0].allows());
    // Audit mode forgives a missing grant only, so of two refusals the other one counts.
    let unforgiven = answers.iter().flatten().find(|answer| !answer.allows() && **answer != Answer::NoGrant);
    if differ { Answer::Ambiguous } else { *unforgiven.unwrap_or(&answers[0][0]) }
}

/// Whether so many readings are too many depends on whether a header was read, which only evaluation knows.
pub(super) fn may_have_too_many_readings(set: &PolicySet, request: &Request) -> bool {
    let upstream = Upstream::from(service_of(set).upstream);
    let readings = PathReadings::of_target(request.path).unwrap().readings(upstream);
    readings.is_ok_and(|readings| readings.len() * 3 > MAX_READINGS)
}

struct Seen<'a> {
    path: &'a str,
    pick: &'a dyn Fn(&str) -> String,
    dry: bool,
}

fn one(set: &PolicySet, request: &Request, seen: &Seen<'_>) -> Answer {
    let service = service_of(set);
    let counts = |dry_run: bool| seen.dry || !dry_run;
    for document in documents_of(set) {
        let Document::Denial(denial) = document else { continue };
        let speaks = counts(denial.dry_run)
            && requests(
                request,
                seen,
                service,
                (&denial.methods, &denial.paths, denial.grpc.as_ref(), &denial.hosts),
            )
            && is(&denial.who, request)
            && within(request.now, denial.not_before, denial.not_after);
        if speaks && denial.when.as_ref().is_none_or(|when| holds(when, request, seen) != Some(false)) {
            return Answer::Denied;
        }
    }
    let open = service.callers.iter().any(|caller| match caller.as_str() {
        "external" => request.entry == Entry::Outside,
        pattern => request.peer.is_some_and(|peer| workload(pattern, peer)),
    });
    if !open {
        return Answer::CallerDenied;
    }
    for document in documents_of(set) {
        let Document::Binding(binding) = document else { continue };
        if counts(binding.dry_run) && grants(set, request, seen, binding) {
            return Answer::Allow;
        }
    }
    Answer::NoGrant
}

fn grants(set: &PolicySet, request: &Request, seen: &Seen<'_>, binding: &BindingSpec) -> bool {
    is(&binding.who, request)
        && within(request.now, binding.not_before, binding.not_after)
        && binding.when.as_ref().is_none_or(|when| holds(when, request, seen) == Some(true))
        && permissions(set, &binding.role).iter().any(|permission| {
            let scopes = request.token.as_ref().map_or(&[][..], |token| &token.scopes);
            let has = |wanted: &String| scopes.iter().any(|scope| scope == wanted);
            (seen.dry || !permission.dry_run)
                && requests(
                    request,
                    seen,
                    service_of(set),
                    (&permission.methods, &permission.paths, permission.grpc.as_ref(), &permission.hosts),
                )
                && permission.scopes.all.iter().all(has)
                && (permission.scopes.any.is_empty() || permission.scopes.any.iter().any(has))
                && permission.when.as_ref().is_none_or(|when| holds(when, request, seen) == Some(true))
        })
}

fn permissions<'p>(set: &'p PolicySet, role: &str) -> Vec<&'p PermissionSpec> {
    let mut found = Vec::new();
    for document in documents_of(set) {
        let Document::Role(RoleSpec { name, includes, permissions: own, .. }) = document else { continue };
        if name == role {
            found.extend(own);
            includes.iter().for_each(|other| found.extend(permissions(set, other)));
        }
    }
    found
}

fn requests(
    request: &Request,
    seen: &Seen<'_>,
    service: &ServiceSpec,
    (methods, paths, grpc, hosts): (&[String], &[String], Option<&GrpcSpec>, &[String]),
) -> bool {
    let host = request.host.split(':').next().unwrap();
    if !hosts.is_empty() && !hosts.iter().any(|one| one.eq_ignore_ascii_case(host)) {
        return false;
    }
    let spelling = Upstream::from(service.upstream).spelling();
    let matches = |template: &str| Template::parse(template).unwrap().spelt(spelling).matches(seen.path);
    if let Some(grpc) = grpc {
        let mut methods = grpc.methods.iter().map(|method| format!("/{}/{method}", grpc.service));
        return request.method == "POST" && methods.any(|path| matches(&path));
    }
    methods.iter().any(|method| method == "*" || method == request.method)
        && paths.iter().any(|template| matches(template))
}

fn is(who: &WhoSpec, request: &Request) -> bool {
    let token = request.token.as_ref();
    let asks_token = who.authenticated || who.issuer.is_some();
    let named = |wanted: &Option<String>, found: Option<&str>| wanted.is_none() || wanted.as_deref() == found;
    (!asks_token || token.is_some())
        && named(&who.issuer, token.map(|token| &*token.issuer))
        && named(&who.subject, token.map(|token| token.subject.as_str()))
        && named(&who.client, token.and_then(|token| token.client_id.as_deref()))
        && who
            .group
            .as_ref()
            .is_none_or(|group| token.is_some_and(|token| token.groups.iter().any(|one| one == group)))
        && who.workload.as_ref().is_none_or(|wanted| request.peer.is_some_and(|peer| workload(wanted, peer)))
}

fn workload(pattern: &str, peer: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => peer.starts_with(prefix) && peer != prefix,
        None => pattern == peer,
    }
}

fn within(now: i64, from: Option<Timestamp>, until: Option<Timestamp>) -> bool {
    from.is_none_or(|from| from.as_second() <= now) && until.is_none_or(|until| now < until.as_second())
}

fn revoked(set: &PolicySet, request: &Request) -> Option<Answer> {
    let all: Vec<&RevocationSpec> = documents_of(set)
        .filter_map(|document| match document {
            Document::Revocation(spec) if request.now < spec.until.as_second() => Some(spec),
            _ => None,
        })
        .collect();
    let of_token = all.iter().any(|spec| {
        let Some(token) = &request.token else { return false };
        let old =
            spec.issued_before.is_none_or(|before| token.issued_at.is_none_or(|at| at < before.as_second()));
        let same = |wanted: &Option<String>, has: Option<&str>| wanted.is_some() && wanted.as_deref() == has;
        let named = same(&spec.jti, token.jti.as_deref())
            || same(&spec.subject, Some(&token.subject))
            || same(&spec.client, token.client_id.as_deref())
            || same(&spec.key_id, token.kid.as_deref());
        spec.issuer.as_deref() == Some(&*token.issuer) && old && named
    });
    let of_workload = all.iter().any(|spec| {
        let serial = spec
            .certificate_serial
            .as_deref()
            .map(|serial| serial.replace(':', "").to_ascii_lowercase().trim_start_matches('0').to_owned());
        serial.is_some() && serial.as_deref() == request.serial
            || spec.workload.as_deref().zip(request.peer).is_some_and(|(wanted, peer)| workload(wanted, peer))
    });
    match (of_token, of_workload) {
        (true, _) => Some(Answer::TokenRevoked),
        (false, true) => Some(Answer::CertificateRevoked),
        (false, false) => None,
    }
}

/// `None` is an error.
fn holds(when: &ConditionSpec, request: &Request, seen: &Seen<'_>) -> Option<bool> {
    if let Some(parts) = &when.all {
        let truths: Vec<_> = parts.iter().map(|part| holds(part, request, seen)).collect();
        let open = if truths.contains(&None) { None } else { Some(true) };
        return if truths.contains(&Some(false)) { Some(false) } else { open };
    }
    if let Some(parts) = &when.any {
        let truths: Vec<_> = parts.iter().map(|part| holds(part, request, seen)).collect();
        let open = if truths.contains(&None) { None } else { Some(false) };
        return if truths.contains(&Some(true)) { Some(true) } else { open };
    }
    if let Some(inner) = &when.not {
        return holds(inner, request, seen).map(|truth| !truth);
    }
    if let Some(networks) = &when.source_cidr {
        let source = request.source?;
        // The generated ones are 10.0.0.0/8 and ::1.
        return Some(networks.iter().any(|network| match network.as_str() {
            "10.0.0.0/8" => source.to_string().starts_with("10."),
            other => source.to_string() == other,
        }));
    }
    if let Some(time) = &when.time {
        return Some(in_window(time, request.now));
    }
    if let Some(name) = &when.header {
        let Some(sent) = request.headers.get(name) else { return Some(false) };
        if let Some(item) = &when.contains {
            return Some(sent.split(',').any(|one| *item == one.trim()));
        }
        return compare(when, &Value::String((seen.pick)(sent)));
    }
    let claims = request.token.as_ref().map(|token| Value::Object(token.claims.members().clone()));
    let pointer = format!("/{}", when.claim.as_ref().unwrap().replace('.', "/"));
    match claims.as_ref().and_then(|claims| claims.pointer(&pointer)) {
        None => Some(false),
        Some(claim) => compare(when, claim),
    }
}

fn compare(when: &ConditionSpec, value: &Value) -> Option<bool> {
    let same = |wanted: &Value, value: &Value| {
        (std::mem::discriminant(wanted) == std::mem::discriminant(value)).then(|| wanted == value)
    };
    if let Some(wanted) = &when.equals {
        return same(wanted, value);
    }
    if let Some(wanted) = &when.one_of {
        let truths: Vec<_> = wanted.iter().map(|wanted| same(wanted, value)).collect();
        return if truths.contains(&Some(true)) { Some(true) } else { truths[0] };
    }
    if let Some(prefix) = &when.prefix {
        return value.as_str().map(|text| text.starts_with(prefix));
    }
    let wanted = when.contains.as_ref().unwrap();
    let lone = [value.clone()];
    let items = value.as_array().map_or(&lone[..], Vec::as_slice);
    let truths: Vec<_> = items.iter().map(|item| same(wanted, item)).collect();
    let open = if truths.contains(&None) { None } else { Some(false) };
    if truths.contains(&Some(true)) { Some(true) } else { open }
}

fn in_window(time: &TimeSpec, now: i64) -> bool {
    let here = Timestamp::from_second(now).unwrap().in_tz(&time.zone).unwrap();
    let clock = here.strftime("%H:%M").to_string();
    let day_of = |moment: &jiff::Zoned| moment.strftime("%a").to_string().to_lowercase();
    let on = |day: String| time.days.is_empty() || time.days.contains(&day);
    let today = on(day_of(&here));
    let yesterday = on(day_of(&here.yesterday().unwrap()));
    if time.from < time.to {
        today && time.from <= clock && clock < time.to
    } else {
        today && time.from <= clock || yesterday && clock < time.to
    }
}
