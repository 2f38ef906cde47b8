//! What holds of evaluation for any policy and any request.
//!
//! A case is one request; `REQUESTS` of them are put to each policy. With the feature `soak` there are a million
//! cases of each property, otherwise a bounded slice.

use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use tollgate_proto::Reason;

use super::reference::{self, Answer};
use super::worlds::{REQUESTS, Request, compiled, request, world};
use crate::policy::footprint::{Footprint, Parts};
use crate::policy::nearest::Failed;
use crate::policy::object::{Document, PolicySet};
use crate::policy::snapshot::Snapshot;
use crate::policy::spec::{BindingSpec, Mode, ScopesSpec, WhoSpec};
use crate::policy::{Decision, Verdict, evaluate};
use crate::token::VerifiedToken;

/// Policies; each with `REQUESTS` cases.
const POLICIES: u32 = if cfg!(feature = "soak") { 1_000_000 / REQUESTS as u32 } else { 128 };

fn decide<'s>(snapshot: &'s Snapshot, request: &'s Request) -> Decision<'s> {
    evaluate(snapshot, &request.facts(snapshot), request.now)
}

fn answer(decision: &Decision<'_>) -> Answer {
    match (decision.verdict, decision.reason, decision.forgiven) {
        (Verdict::Allow, _, None) => Answer::Allow,
        (Verdict::Allow, _, Some(_)) => Answer::Forgiven,
        (_, Reason::TokenRevoked, _) => Answer::TokenRevoked,
        (_, Reason::CertificateRevoked, _) => Answer::CertificateRevoked,
        (_, Reason::RuleDeny, _) => Answer::Denied,
        (_, Reason::CallerDenied, _) => Answer::CallerDenied,
        (_, Reason::AmbiguousRequest, _) => Answer::Ambiguous,
        (..) => Answer::NoGrant,
    }
}

/// All that two requests with equal footprints must agree in.
fn outcome(decision: &Decision<'_>) -> (Verdict, Reason, String, Option<Reason>, Option<Verdict>) {
    (
        decision.verdict,
        decision.reason,
        decision.rule.to_string(),
        decision.forgiven,
        decision.dry_run.map(|tried| tried.verdict),
    )
}

/// `other`, made equal to `one` in all that the footprint names.
fn alike(footprint: &Footprint<'_>, one: &Request, other: &Request) -> Request {
    let mut made = other.clone();
    let read = |part| footprint.contains(part);
    macro_rules! take {
        ($($part:ident => $field:ident),*) => { $(if read(Parts::$part) { made.$field = one.$field; })* };
    }
    take!(METHOD => method, HOST => host, PATH => path, PEER => peer, ENTRY => entry, TIME => now, SOURCE => source,
        CERTIFICATE => serial);
    for name in &footprint.headers {
        match one.headers.get(*name) {
            Some(value) => made.headers.insert((*name).to_owned(), value.clone()),
            None => made.headers.remove(*name),
        };
    }
    if read(Parts::TOKEN) {
        made.token = one.token.as_ref().map(|token| VerifiedToken {
            issuer: token.issuer.clone(),
            expires_at: token.expires_at,
            ..made.token.unwrap_or_else(|| VerifiedToken::of_subject("any", "any"))
        });
    }
    if let (Some(made), Some(one)) = (&mut made.token, &one.token) {
        if read(Parts::SUBJECT) {
            made.subject.clone_from(&one.subject);
        }
        if read(Parts::CLIENT) {
            made.client_id.clone_from(&one.client_id);
        }
        if read(Parts::GROUPS) {
            made.groups.clone_from(&one.groups);
        }
        if read(Parts::SCOPES) {
            made.scopes.clone_from(&one.scopes);
        }
        if read(Parts::ISSUANCE) {
            made.jti.clone_from(&one.jti);
            made.kid.clone_from(&one.kid);
            made.issued_at = one.issued_at;
        }
        let mut claims = made.claims.members().clone();
        for name in &footprint.claims {
            let outer = name.split('.').next().unwrap();
            match one.claims.members().get(outer) {
                Some(value) => claims.insert(outer.to_owned(), value.clone()),
                None => claims.remove(outer),
            };
        }
        made.claims = claims.into();
    }
    made
}

/// The policy with what the nearest miss names put right.
fn mended(set: &PolicySet, decision: &Decision<'_>) -> Option<PolicySet> {
    let miss = decision.nearest_miss.as_ref()?;
    let permission = miss.permission()?;
    let mut set = set.clone();
    for document in set.values_mut() {
        match document {
            Document::Role(role) if role.name == *permission.role_name => {
                let found = role.permissions.iter_mut().find(|one| *one.name == *permission.name)?;
                if miss.failed.contains(Failed::SCOPES) {
                    found.scopes = ScopesSpec::default();
                }
                if miss.failed.contains(Failed::PERMISSION_WHEN) {
                    found.when = None;
                }
                if miss.failed.contains(Failed::HOST) {
                    found.hosts.clear();
                }
                if miss.failed.contains(Failed::METHOD) {
                    // What gRPC is called by is part of it.
                    let grpc = found.grpc.take();
                    found.paths.extend(grpc.iter().map(|grpc| format!("/{}/{{*}}", grpc.service)));
                    found.methods = vec!["*".to_owned()];
                }
            }
            Document::Binding(binding)
                if miss.binding.is_some_and(|own| *own.key == *format!("a/{}", binding.name)) =>
            {
                if miss.failed.contains(Failed::BINDING_WHEN) {
                    binding.when = None;
                }
                if miss.failed.contains(Failed::PERIOD) {
                    (binding.not_before, binding.not_after) = (None, None);
                }
            }
            _ => {}
        }
    }
    if miss.failed.contains(Failed::ROLE) {
        let binding = Document::Binding(BindingSpec {
            namespace: "a".to_owned(),
            name: "mended".to_owned(),
            role: permission.role_name.to_string(),
            who: WhoSpec { anyone: true, ..WhoSpec::default() },
            ..BindingSpec::default()
        });
        set.insert(binding.id(), binding);
    }
    Some(set)
}

fn is_enforced(set: &PolicySet) -> bool {
    !set.values()
        .any(|document| matches!(document, Document::Service(service) if service.mode == Mode::Audit))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: POLICIES, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn evaluation_says_what_a_plain_reading_of_the_policy_says((set, requests) in world()) {
        let snapshot = compiled(&set);
        for request in &requests {
            let decision = decide(&snapshot, request);
            let (expected, tried) = reference::answer(&set, request);
            if decision.reason == Reason::AmbiguousRequest
                && reference::may_have_too_many_readings(&set, request)
            {
                continue;
            }
            prop_assert_eq!(answer(&decision), expected, "{:?}", request);
            let allows = decision.dry_run.map(|tried| tried.verdict == Verdict::Allow);
            prop_assert_eq!(allows, tried, "{:?}", request);
        }
    }

    #[test]
    fn what_the_nearest_miss_lacks_is_all_that_is_lacking((set, requests) in world()) {
        let snapshot = compiled(&set);
        for request in requests.iter().filter(|_| is_enforced(&set)) {
            let decision = decide(&snapshot, request);
            let upstream = snapshot.service("a/s").unwrap().service.upstream;
            let readings = request.facts(&snapshot).path.readings(upstream).map_or(0, |readings| readings.len());
            // A miss is near on one reading; of several, others may lack something else.
            let header_is_one = request.headers.values().all(|value| !value.contains(','));
            let Some(mended) = mended(&set, &decision).filter(|_| readings == 1 && header_is_one) else { continue };
            let after = compiled(&mended);
            let decision_after = decide(&after, request);
            prop_assert_eq!(
                decision_after.verdict,
                Verdict::Allow,
                "{:?} of {:?} gave {:?}",
                request,
                decision.nearest_miss,
                decision_after.reason
            );
        }
    }

    #[test]
    fn requests_with_equal_footprints_get_equal_answers((set, requests) in world(), other in request()) {
        let snapshot = compiled(&set);
        for one in &requests {
            let decision = decide(&snapshot, one);
            let made = alike(&decision.footprint, one, &other);
            prop_assert_eq!(outcome(&decide(&snapshot, &made)), outcome(&decision), "{:?} {:?}", one, made);
        }
    }

    #[test]
    fn an_answer_holds_until_it_expires((set, requests) in world(), ahead in 0.0_f64..1.0) {
        let snapshot = compiled(&set);
        for one in &requests {
            let decision = decide(&snapshot, one);
            let end = decision.expires.unwrap_or(one.now + 3_000_000);
            if end <= one.now {
                // The token has run out, which is noticed where tokens are verified.
                continue;
            }
            let later = one.now + ((end - one.now - 1) as f64 * ahead) as i64;
            let then = Request { now: later, ..one.clone() };
            prop_assert_eq!(outcome(&decide(&snapshot, &then)), outcome(&decision), "{:?} at {}", one, later);
        }
    }
}

/// Otherwise the properties would say little.
#[test]
fn every_kind_of_answer_is_given() {
    let mut waiting = vec![
        Answer::Allow,
        Answer::Forgiven,
        Answer::TokenRevoked,
        Answer::CertificateRevoked,
        Answer::Denied,
        Answer::CallerDenied,
        Answer::NoGrant,
        Answer::Ambiguous,
    ];
    let (mut tried, mut misses) = (false, 0_u8);
    let mut runner = TestRunner::deterministic();
    for _ in 0..2_000 {
        let (set, requests) = world().new_tree(&mut runner).unwrap().current();
        let snapshot = compiled(&set);
        for decision in requests.iter().map(|one| decide(&snapshot, one)) {
            waiting.retain(|waiting| *waiting != answer(&decision));
            tried |= decision.dry_run.is_some();
            misses |= decision.nearest_miss.map_or(0, |miss| 1 << miss.failed.names().count());
        }
        // Once each was seen there is nothing more to learn.
        if waiting.is_empty() && tried && misses & 0b1110 == 0b1110 {
            return;
        }
    }
    panic!("never {waiting:?}, a dry run: {tried}, misses of one, two and three predicates: {misses:b}");
}

/// The property above would notice if evaluation read something that its footprint does not name: leave any one part
/// out, and it fails.
#[test]
fn no_part_of_a_footprint_could_be_left_out() {
    let (mut waiting, mut named): (Vec<Parts>, Vec<&str>) =
        (Parts::all().collect(), vec!["headers", "claims"]);
    let mut runner = TestRunner::deterministic();
    let worlds = (world(), request());
    for _ in 0..20_000 {
        let ((set, requests), other) = worlds.new_tree(&mut runner).unwrap().current();
        let snapshot = compiled(&set);
        for one in &requests {
            let decision = decide(&snapshot, one);
            let same = |footprint: &Footprint<'_>| {
                outcome(&decide(&snapshot, &alike(footprint, one, &other))) == outcome(&decision)
            };
            let whole = &decision.footprint;
            waiting.retain(|part| {
                !whole.contains(*part)
                    || same(&Footprint { parts: whole.parts.without(*part), ..whole.clone() })
            });
            named.retain(|kind| match *kind {
                "headers" => {
                    whole.headers.is_empty()
                        || same(&Footprint { headers: Default::default(), ..whole.clone() })
                }
                _ => {
                    whole.claims.is_empty()
                        || same(&Footprint { claims: Default::default(), ..whole.clone() })
                }
            });
        }
        if waiting.is_empty() && named.is_empty() {
            return;
        }
    }
    panic!("nothing depends on {waiting:?} {named:?}");
}
