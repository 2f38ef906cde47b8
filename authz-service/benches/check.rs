//! What one decision costs, and what one Check costs around it.
//!
//! `cargo bench -p tollgate-authz`. Thousands of services and bindings beside the one that is asked about must not
//! show: the cost is meant to be flat.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, criterion_group, criterion_main};
use jsonwebtoken::Algorithm;
use opentelemetry::Context;
use prost::Message as _;
use serde_json::{Value, json};
use tollgate_authz::authorize::{Authorizer, KeyAccess};
use tollgate_authz::decisions::{Bounds, Decisions, Room};
use tollgate_authz::facts::{Credential, Entry, Facts, NoHeaders, PathReadings};
use tollgate_authz::metrics::Metrics;
use tollgate_authz::policy::compile::{Parts, compile};
use tollgate_authz::policy::object::{Document, policy_set};
use tollgate_authz::policy::{Snapshot, SnapshotCell, check, evaluate};
use tollgate_authz::store::Store;
use tollgate_authz::token::Unverified;
use tollgate_authz::token::keys::refresh::{KeyRefresh, Schedule};
use tollgate_authz::token::keys::source::HttpKeys;
use tollgate_authz::token::keys::{Freshness, SharedSecrets};
use tollgate_authz::wire::check_request;
use tollgate_authz::wire::ext_authz::ExtAuthz;
use tollgate_proto::envoy_types::pb::envoy::service::auth::v3::{AttributeContext, CheckRequest};
use tollgate_runtime::Service;
use tollgate_runtime::config::Secret;

use tollgate_testkit::signer::Signer;

const ISSUER: &str = "https://issuer.demo";

fn policy(signer: &Signer, size: usize) -> Snapshot {
    let mut all = vec![json!({"kind": "Issuer", "name": "demo", "issuer": ISSUER, "jwks": signer.jwks()})];
    for n in 0..size {
        all.push(
            json!({"kind": "Service", "namespace": "ns", "name": format!("s{n}"), "callers": ["external"],
            "issuers": ["demo"], "audiences": ["insurance"]}),
        );
        all.push(json!({"kind": "Role", "namespace": "ns", "name": format!("r{n}"), "permissions": [
            {"name": "read", "service": format!("s{n}"), "methods": ["GET"],
             "paths": ["/policies", "/policies/{id}"], "scopes": {"all": ["policies:read"]}}]}));
        all.push(
            json!({"kind": "Binding", "namespace": "ns", "name": format!("b{n}"), "role": format!("r{n}"),
            "who": {"issuer": "demo", "subject": format!("u{n}")}}),
        );
    }
    let documents = all.into_iter().map(|one| serde_json::from_value::<Document>(one).expect("a document"));
    let model = check::check(&policy_set(documents).expect("names are unique")).expect("a policy");
    compile(model, Parts::default(), &Snapshot::default())
}

fn claims() -> Value {
    json!({"iss": ISSUER, "sub": "u0", "aud": "insurance", "scope": "policies:read", "iat": 0, "exp": 9_999_999_999_u64})
}

fn evaluation(c: &mut Criterion) {
    let signer = Signer::new(Algorithm::EdDSA, "k");
    for size in [1, 1_000] {
        let snapshot = policy(&signer, size);
        let trusted = snapshot.issuer(ISSUER).expect("the issuer");
        let token = Unverified::parse(&signer.token(&claims()))
            .and_then(|token| token.verify(&trusted.issuer, &trusted.keys, 1))
            .expect("a good token");
        let ask = |path| Facts {
            guard: tollgate_authz::facts::Guard::Deny,
            service: snapshot.service("ns/s0").map(|rules| &**rules),
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

fn check_handling(c: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let folder = tempfile::TempDir::new().expect("a folder");
    for algorithm in [Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA] {
        let signer = Signer::new(algorithm, "k");
        let cell = Arc::new(SnapshotCell::new(policy(&signer, 100)));
        let service = Service::for_test("bench");
        let url = Secret::new(format!("sqlite://{}", folder.path().join("bench.db").display()));
        let store = runtime.block_on(Store::open(&url, service.clock().clone())).expect("a store");
        let metrics = Metrics::new(&service.telemetry().meter());
        let forever = std::time::Duration::MAX;
        let refresh = KeyRefresh::new(
            store,
            Arc::clone(&cell),
            Arc::new(HttpKeys::new(true).expect("a client")),
            Schedule {
                freshness: Freshness { default: forever, floor: forever, ceiling: forever },
                min_interval: forever,
            },
            (service.clock().clone(), service.tasks().clone(), metrics.clone()),
        );
        let tracer = service.telemetry().tracer().clone();
        let max_stale = std::time::Duration::from_secs(3600);
        let room = Room { entries: 16_384, bytes: 16 << 20 };
        let decisions = Arc::new(Decisions::new(Bounds { allows: room, refusals: room }));
        let keys = KeyAccess { refresh, max_stale, secrets: SharedSecrets::default() };
        let authorizer = Authorizer::new(cell, keys, decisions, (service.clock().clone(), tracer, metrics));
        let wire = ExtAuthz::new(authorizer);
        let mut attributes = AttributeContext::default();
        attributes.context_extensions.insert("tollgate.service".to_owned(), "ns/s0".to_owned());
        let http = attributes.request.get_or_insert_default().http.get_or_insert_default();
        (http.method, http.path) = ("GET".to_owned(), "/policies/1".to_owned());
        http.headers.insert("authorization".to_owned(), format!("Bearer {}", signer.token(&claims())));
        let message = CheckRequest { attributes: Some(attributes) }.encode_to_vec();
        let nowhere = Context::new();
        c.bench_function(&format!("check, {algorithm:?}"), |b| {
            b.iter(|| {
                let check = check_request::CheckRequest::read(black_box(&message)).expect("a message");
                runtime.block_on(wire.answer(&check.expect("attributes"), &nowhere))
            });
        });
    }
}

criterion_group!(benches, evaluation, check_handling);
criterion_main!(benches);
