//! What is done with bytes from outside, and what has to hold whatever they are.
//!
//! Shared by the fuzz targets and by the test that replays their seeds, so that both run the same code.

use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use opentelemetry::Context;
use tokio::runtime::Runtime;
use tollgate_authz::authorize::{Authorizer, KeyAccess};
use tollgate_authz::decisions::{Bounds, Decisions, Room};
use tollgate_authz::metrics::Metrics;
use tollgate_authz::policy::{Snapshot, SnapshotCell, check as policy_check, documents};
use tollgate_authz::store::{Authorship, Store, load};
use tollgate_authz::token::keys::refresh::{KeyRefresh, Schedule};
use tollgate_authz::token::keys::source::HttpKeys;
use tollgate_authz::token::keys::{Freshness, KeySet, SharedSecrets};
use tollgate_authz::token::{Judge, Jws, Occasion};
use tollgate_authz::wire::check_request::CheckRequest;
use tollgate_authz::wire::ext_authz::ExtAuthz;
use tollgate_authz::x509::{PeerCertificate, keys_of_pem};
use tollgate_paths::{Level, SentPath, Template, Upstream, is_normal, normalize};

use tollgate_proto::envoy_types::pb::envoy::service::auth::v3::check_response::HttpResponse;

use tollgate_runtime::Service;
use tollgate_runtime::config::Secret;

/// More ways to read one path are refused.
const MAX_READINGS: usize = 16;

/// Tokens, key sets, keys and certificates: nothing panics, and nothing that has no signature is believed.
pub fn token(data: &[u8]) {
    let _ = KeySet::parse_text(data);
    let Ok(text) = std::str::from_utf8(data) else { return };
    let _ = (keys_of_pem(text), KeySet::parse_pem(text), PeerCertificate::from_check(text));
    let _ = Jws::parse(text).map(|jws| jws.claims().is_ok());
    let (snapshot, secrets) = (Snapshot::default(), SharedSecrets::default());
    let judge = Judge { snapshot: &snapshot, secrets: &secrets, max_stale: 60 };
    let occasion = Occasion { audiences: &[], holder: None, now: 1_800_000_000 };
    assert_ne!(judge.explain(text, None, &occasion).verdict, "ok", "a token of nobody is believed");
}

/// Paths: what is normal stays as it is, and no declaration gives more readings than there may be.
pub fn path(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    for level in [Level::None, Level::Base, Level::MergeSlashes, Level::DecodeAndMerge] {
        if let Ok(normal) = normalize(text, level) {
            assert_eq!(is_normal(text, level), *normal == *text, "{text:?}");
        }
    }
    let _ = Template::parse(text).map(|template| template.matches(text));
    let Ok(sent) = SentPath::parse(text) else { return };
    for bits in 0..32_u8 {
        let says = |bit: u8| bits & (1 << bit) != 0;
        let upstream = Upstream {
            decode: says(0),
            decode_slash: says(1),
            merge: says(2),
            strip_params: says(3),
            fold_case: says(4),
        };
        if let Ok(readings) = sent.readings(upstream) {
            assert!(readings.len() <= MAX_READINGS, "{text:?}");
        }
    }
}

/// Policy as people write it: what is accepted can be written out and read again as the same.
pub fn policy(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(written) = documents::parse(Path::new("fuzz.yaml"), text) else { return };
    let set = documents::policy_set(&written);
    if policy_check::check(&set).is_err() {
        return;
    }
    let yaml = documents::export(set.values());
    let again = documents::parse(Path::new("again.yaml"), &yaml).expect("what was written out can be read");
    assert_eq!(documents::policy_set(&again), set);
}

/// A Check as bytes: there is an answer or a status, and never leave to pass, since the policy grants nothing.
pub fn check(data: &[u8]) {
    let Ok(Some(check)) = CheckRequest::read(data) else { return };
    let (runtime, wire) = closed();
    if let Ok(answer) = runtime.block_on(wire.answer(&check, &Context::new())) {
        assert_ne!(answer.status.expect("a status").code, 0, "a request passed that nobody allowed");
        assert!(!matches!(answer.http_response, Some(HttpResponse::OkResponse(_)) | None));
    }
}

/// A service with one service that nobody may use, and one issuer.
fn closed() -> &'static (Runtime, ExtAuthz) {
    static CLOSED: OnceLock<(Runtime, ExtAuthz)> = OnceLock::new();
    CLOSED.get_or_init(|| {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let wire = runtime.block_on(start());
        (runtime, wire)
    })
}

const POLICY: &str = r#"
kind: Issuer
name: demo
issuer: https://issuer.demo
jwks: {keys: [{kty: OKP, crv: Ed25519, kid: k, x: 11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo}]}
token_places: [{header: authorization}, {header: x-token}, {cookie: session}, {query: access_token}]
strip: true
claim_headers: [{claim: sub, header: x-user}]
---
kind: Service
namespace: a
name: s
hosts: [a.example]
callers: [external]
issuers: [demo]
login: {url: "https://login.example/", return_parameter: rd}
---
kind: Role
namespace: a
name: r
permissions: [{name: p, service: s, methods: ["*"], paths: ["/{**}"], scopes: {all: [x]}}]
---
kind: Binding
namespace: a
name: b
role: r
who: {issuer: demo, subject: u}
"#;

async fn start() -> ExtAuthz {
    let folder = tempfile::TempDir::new().expect("a folder").keep();
    let service = Service::for_test("fuzz");
    let url = Secret::new(format!("sqlite://{}", folder.join("authz.db").display()));
    let store = Store::open(&url, service.clock().clone()).await.expect("a store");
    let written = documents::parse(Path::new("policy"), POLICY).expect("a policy");
    let written = written.into_iter().map(|written| written.document).collect();
    store.apply(written, Authorship::new("fuzz", "set up"), false, false).await.expect("applied");
    let cell = Arc::new(SnapshotCell::new(load::first_snapshot(&store).await.expect("a snapshot").0));
    let (forever, metrics) = (Duration::MAX, Metrics::new(&service.telemetry().meter()));
    let refresh = KeyRefresh::new(
        store,
        Arc::clone(&cell),
        Arc::new(HttpKeys::new(false).expect("a client")),
        Schedule {
            freshness: Freshness { default: forever, floor: forever, ceiling: forever },
            min_interval: forever,
        },
        (service.clock().clone(), service.tasks().clone(), metrics.clone()),
    );
    let room = Room { entries: 1024, bytes: 1 << 20 };
    let decisions = Arc::new(Decisions::new(Bounds { allows: room, refusals: room }));
    let keys = KeyAccess { refresh, max_stale: Duration::from_secs(3600), secrets: SharedSecrets::default() };
    let tracer = service.telemetry().tracer().clone();
    ExtAuthz::new(Authorizer::new(cell, keys, decisions, (service.clock().clone(), tracer, metrics)))
}
