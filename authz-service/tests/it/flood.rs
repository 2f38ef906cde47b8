//! Ten thousand tokens that name keys which do not exist, and one user who is in his right.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, join_all};
use jsonwebtoken::Algorithm;
use opentelemetry::Context;
use serde_json::json;
use tempfile::TempDir;
use tollgate_authz::authorize::{Authorizer, KeyAccess, Presented, Question};
use tollgate_authz::decisions::{Bounds, Decisions, Room};
use tollgate_authz::facts::{Entry, Guard, NoHeaders};
use tollgate_authz::metrics::Metrics;
use tollgate_authz::policy::SnapshotCell;
use tollgate_authz::store::{Authorship, Store, follow, load};
use tollgate_authz::token::keys::refresh::{KeyRefresh, Schedule};
use tollgate_authz::token::keys::source::{Document, FetchError, KeySource};
use tollgate_authz::token::keys::{Freshness, SharedSecrets};
use tollgate_proto::Reason;
use tollgate_runtime::Service;
use tollgate_runtime::config::Secret;

use crate::running::{ISSUER, claims, demo_documents};
use tollgate_testkit::signer::Signer;

const INVENTED: usize = 10_000;
const AT_ONCE: usize = 100;
const INTERVAL: Duration = Duration::from_millis(100);

/// An issuer that counts how often it is asked.
struct Counting {
    jwks: String,
    asked: Arc<AtomicUsize>,
}

impl KeySource for Counting {
    fn fetch(&self, _: url::Url) -> BoxFuture<'static, Result<Document, FetchError>> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let body = self.jwks.clone().into_bytes();
        Box::pin(async move { Ok(Document { body, ..Document::default() }) })
    }
}

struct Flooded {
    authorizer: Authorizer,
    refresh: KeyRefresh,
    asked: Arc<AtomicUsize>,
    signer: Signer,
    service: Service,
    store: Store,
    _folder: TempDir,
}

impl Flooded {
    async fn start() -> Self {
        let (folder, service) = (TempDir::new().unwrap(), Service::for_test("authz"));
        let url = format!("sqlite://{}", folder.path().join("authz.db").display());
        let store = Store::open(&Secret::new(url), service.clock().clone()).await.unwrap();
        let signer = Signer::new(Algorithm::ES256, "k1");
        let mut documents = demo_documents();
        let issuer = json!({"kind": "Issuer", "name": "demo", "issuer": ISSUER, "jwks_url": "https://i"});
        documents.push(serde_json::from_value(issuer).unwrap());
        store.apply(documents, Authorship::new("test", "set up"), false, false).await.unwrap();
        let cell = Arc::new(SnapshotCell::new(load::first_snapshot(&store).await.unwrap().0));
        let metrics = Metrics::new(&service.telemetry().meter());
        let follow =
            follow::follow(store.clone(), Arc::clone(&cell), metrics.clone(), service.tasks().stopping());
        service.tasks().spawn("follow", follow);
        let asked = Arc::new(AtomicUsize::new(0));
        let source = Counting { jwks: signer.jwks().to_string(), asked: Arc::clone(&asked) };
        let hour = Duration::from_secs(3600);
        let refresh = KeyRefresh::new(
            store.clone(),
            Arc::clone(&cell),
            Arc::new(source),
            Schedule {
                freshness: Freshness { default: hour, floor: hour, ceiling: hour },
                min_interval: INTERVAL,
            },
            (service.clock().clone(), service.tasks().clone(), metrics.clone()),
        );
        let room = Room { entries: 1024, bytes: 1 << 20 };
        let decisions = Arc::new(Decisions::new(Bounds { allows: room, refusals: room }));
        let keys = KeyAccess { refresh: refresh.clone(), max_stale: hour, secrets: SharedSecrets::default() };
        let tracer = service.telemetry().tracer().clone();
        let authorizer = Authorizer::new(cell, keys, decisions, (service.clock().clone(), tracer, metrics));
        Self { authorizer, refresh, asked, signer, service, store, _folder: folder }
    }

    async fn identify(&self, token: &str) -> Presented {
        let value = format!("Bearer {token}");
        let question = Question {
            guard: Guard::Deny,
            service: Some("insurance/policies"),
            destination: None,
            entry: Entry::Outside,
            peer: None,
            certificate: None,
            holder: None,
            method: "GET",
            host: "",
            target: "/policies/1",
            request_id: None,
            headers: &NoHeaders,
            source: None,
        };
        let mut snapshot = self.authorizer.cell().load_full();
        let header = |name: &str| (name == "authorization").then_some(value.as_str());
        self.authorizer.identify(&mut snapshot, &question, header, &Context::new()).await
    }

    /// A token whose form is good and whose key nobody has.
    fn invented(kid: usize) -> String {
        let header = json!({"alg": "ES256", "kid": format!("invented-{kid}")}).to_string();
        let claims = claims("reader", "policies:read").to_string();
        [header, claims, "x".repeat(64)].map(|part| URL_SAFE_NO_PAD.encode(part)).join(".")
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_of_unknown_keys_asks_the_issuer_once_an_interval_and_holds_up_nobody_else() {
    let flooded = Flooded::start().await;
    let good = flooded.signer.token(&claims("reader", "policies:read"));
    // The first token waits for the first fetch.
    let trusted = Arc::clone(flooded.authorizer.cell().load_full().issuer(ISSUER).unwrap());
    flooded.refresh.refetch(&trusted, None).await;
    assert!(matches!(flooded.identify(&good).await, Presented::Verified(_)));
    let began = Instant::now();
    for first in (0..INVENTED).step_by(AT_ONCE) {
        let tokens: Vec<_> = (first..first + AT_ONCE).map(Flooded::invented).collect();
        let storm = join_all(tokens.iter().map(|token| flooded.identify(token)));
        let (refused, in_his_right) = tokio::join!(storm, async {
            // Ready when first looked at: who has a known key waits for nothing, whatever the others do.
            flooded.identify(&good).now_or_never()
        });
        assert!(matches!(in_his_right, Some(Presented::Verified(_))));
        for presented in refused {
            let Presented::Refused(refusal) = presented else { panic!("{presented:?}") };
            assert_eq!(refusal.reason, Reason::TokenKeyUnknown);
        }
    }
    let intervals = began.elapsed().as_millis() / INTERVAL.as_millis();
    let asked = u128::try_from(flooded.asked.load(Ordering::SeqCst)).unwrap();
    assert!(asked <= 1 + 1 + intervals, "{asked} fetches in {intervals} intervals");
    flooded.service.stop().await;
    flooded.store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_issuer_is_not_asked_again_for_a_key_that_it_does_not_have() {
    let flooded = Flooded::start().await;
    let ask = async |kid| flooded.identify(&Flooded::invented(kid)).await;
    let asked = || flooded.asked.load(Ordering::SeqCst);
    // Until the fetch for the first one has happened, and has been noted.
    while asked() == 0 {
        ask(1).await;
    }
    let trusted = Arc::clone(flooded.authorizer.cell().load_full().issuer(ISSUER).unwrap());
    flooded.refresh.refetch(&trusted, Some("invented-1")).await;
    let (before, began) = (asked(), Instant::now());
    while began.elapsed() < 3 * INTERVAL {
        ask(1).await;
    }
    assert_eq!(asked(), before, "the answer is remembered");
    ask(2).await;
    assert_eq!(asked(), before + 1, "another key is another question");
    flooded.service.stop().await;
    flooded.store.close().await;
}
