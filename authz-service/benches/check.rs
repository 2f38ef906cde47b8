//! What one decision costs, and what one Check costs around it.
//!
//! `cargo bench -p tollgate-authz`. Thousands of services and bindings beside the one that is asked about must not
//! show: the cost is meant to be flat.

mod wired;

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use jsonwebtoken::Algorithm;
use prost::Message as _;
use tollgate_authz::facts::{Credential, Entry, Facts, Guard, NoHeaders, PathReadings};
use tollgate_authz::policy::evaluate;
use tollgate_authz::token::Jws;
use tollgate_testkit::checks::check_of_a_browser;
use tollgate_testkit::signer::Signer;

use wired::{ISSUER, Wired, claims, policy};

fn evaluation(c: &mut Criterion) {
    let signer = Signer::new(Algorithm::EdDSA, "k");
    for size in [1, 1_000] {
        let snapshot = policy(&signer, size);
        let trusted = snapshot.issuer(ISSUER).expect("the issuer");
        let token = signer.token(&claims());
        let token = Jws::parse(&token)
            .and_then(|jws| jws.claims()?.verify(&trusted.issuer, &trusted.keys, 1))
            .expect("a good token");
        let ask = |path| Facts {
            guard: Guard::Deny,
            service: snapshot.service("insurance/policies"),
            entry: Entry::Outside,
            peer: None,
            method: "GET",
            host: "h",
            path: PathReadings::of_target(path).expect("a path"),
            credential: Credential::Verified(&token),
            headers: &NoHeaders,
            source: None,
            certificate_serial: None,
        };
        let (allow, deny) = (ask("/policies/1"), ask("/claims/1"));
        c.bench_function(&format!("evaluate allow, {size} services"), |b| {
            b.iter(|| evaluate(&snapshot, black_box(&allow), 1).verdict);
        });
        c.bench_function(&format!("evaluate deny, {size} services"), |b| {
            b.iter(|| evaluate(&snapshot, black_box(&deny), 1).verdict);
        });
    }
}

/// What a token costs the first time: its JSON, its claims and one signature.
fn verification(c: &mut Criterion) {
    for algorithm in [Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA] {
        let signer = Signer::new(algorithm, "k");
        let snapshot = policy(&signer, 1);
        let trusted = snapshot.issuer(ISSUER).expect("the issuer");
        let token = signer.token(&claims());
        c.bench_function(&format!("verify a token, {algorithm:?}"), |b| {
            b.iter(|| {
                let jws = Jws::parse(black_box(&token)).expect("a token");
                jws.claims().and_then(|claims| claims.verify(&trusted.issuer, &trusted.keys, 1)).is_ok()
            });
        });
    }
}

fn check_handling(c: &mut Criterion) {
    let wired = Wired::new();
    let message = check_of_a_browser(&wired.token(&claims())).encode_to_vec();
    c.bench_function("check, a token seen before", |b| b.iter(|| wired.answer(black_box(&message))));
}

criterion_group!(benches, evaluation, verification, check_handling);
criterion_main!(benches);
