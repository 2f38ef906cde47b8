//! The service without its ports.

use std::sync::Arc;
use std::time::Duration;

use jsonwebtoken::Algorithm;
use opentelemetry::Context;
use prost::Message as _;
use serde_json::{Value, json};
use tollgate_authz::authorize::{Authorizer, KeyAccess};
use tollgate_authz::decisions::{Bounds, Decisions, Room};
use tollgate_authz::metrics::Metrics;
use tollgate_authz::policy::compile::{Parts, compile};
use tollgate_authz::policy::object::{Document, policy_set};
use tollgate_authz::policy::{Snapshot, SnapshotCell, check};
use tollgate_authz::store::Store;
use tollgate_authz::token::keys::refresh::{KeyRefresh, Schedule};
use tollgate_authz::token::keys::source::HttpKeys;
use tollgate_authz::token::keys::{Freshness, SharedSecrets};
use tollgate_authz::wire::check_request::CheckRequest;
use tollgate_authz::wire::ext_authz::ExtAuthz;
use tollgate_runtime::Service;
use tollgate_runtime::config::Secret;
use tollgate_testkit::signer::Signer;

/// Whom policy trusts.
pub(crate) const ISSUER: &str = "https://issuer.demo";
const SERVICES: usize = 100;

/// Answers Checks from a policy in memory.
pub(crate) struct Wired {
    runtime: tokio::runtime::Runtime,
    wire: ExtAuthz,
    signer: Signer,
    _folder: tempfile::TempDir,
}

impl Wired {
    pub(crate) fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let folder = tempfile::TempDir::new().expect("a folder");
        let signer = Signer::new(Algorithm::RS256, "k");
        let cell = Arc::new(SnapshotCell::new(policy(&signer, SERVICES)));
        let service = Service::for_test("bench");
        let url = Secret::new(format!("sqlite://{}", folder.path().join("bench.db").display()));
        let store = runtime.block_on(Store::open(&url, service.clock().clone())).expect("a store");
        let metrics = Metrics::new(&service.telemetry().meter());
        let forever = Duration::MAX;
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
        let room = Room { entries: 16_384, bytes: 16 << 20 };
        let decisions = Arc::new(Decisions::new(Bounds { allows: room, refusals: room }));
        let max_stale = Duration::from_secs(3600);
        let keys = KeyAccess { refresh, max_stale, secrets: SharedSecrets::default() };
        let authorizer = Authorizer::new(cell, keys, decisions, (service.clock().clone(), tracer, metrics));
        Self { runtime, wire: ExtAuthz::new(authorizer), signer, _folder: folder }
    }

    /// Signs.
    pub(crate) fn token(&self, claims: &Value) -> String {
        self.signer.token(claims)
    }

    /// From the bytes of a Check to the bytes of its answer.
    pub(crate) fn answer(&self, message: &[u8]) -> Vec<u8> {
        let check = CheckRequest::read(message).expect("a message").expect("attributes");
        let answer = self.runtime.block_on(self.wire.answer(&check, &Context::new()));
        answer.expect("an answer").encode_to_vec()
    }
}

/// So many services, each with a role and somebody who holds it; the first is the one of `check_of_a_browser`.
pub(crate) fn policy(signer: &Signer, size: usize) -> Snapshot {
    let mut all = vec![json!({"kind": "Issuer", "name": "demo", "issuer": ISSUER, "jwks": signer.jwks()})];
    for n in 0..size {
        all.push(
            json!({"kind": "Service", "namespace": "insurance", "name": name(n), "callers": ["external"],
            "issuers": ["demo"], "audiences": ["insurance"]}),
        );
        all.push(json!({"kind": "Role", "namespace": "insurance", "name": format!("r{n}"), "permissions": [
            {"name": "read", "service": name(n), "methods": ["GET"],
             "paths": ["/policies", "/policies/{id}"], "scopes": {"all": ["policies:read"]}}]}));
        all.push(
            json!({"kind": "Binding", "namespace": "insurance", "name": format!("b{n}"), "role": format!("r{n}"),
            "who": {"issuer": "demo", "subject": if n == 0 { "reader".to_owned() } else { format!("u{n}") }}}),
        );
    }
    let documents = all.into_iter().map(|one| serde_json::from_value::<Document>(one).expect("a document"));
    let model = check::check(&policy_set(documents).expect("names are unique")).expect("a policy");
    compile(model, Parts::default(), &Snapshot::default())
}

/// Of somebody who may read the first.
pub(crate) fn claims() -> Value {
    json!({"iss": ISSUER, "sub": "reader", "aud": "insurance", "scope": "policies:read", "iat": 0, "exp": 9_999_999_999_u64})
}

fn name(number: usize) -> String {
    if number == 0 { "policies".to_owned() } else { format!("s{number}") }
}
