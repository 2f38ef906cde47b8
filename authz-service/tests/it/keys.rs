//! Keys that are fetched: rotation, floods of invented keys, an issuer that is away.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use jsonwebtoken::Algorithm;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::watch;
use tollgate_authz::Config;
use tollgate_runtime::config::Secret;
use tollgate_runtime::net;

use crate::running::{Answer, Ask, ISSUER, Running, claims, demo_documents};
use tollgate_testkit::signer::Signer;

/// An issuer's web server.
struct IssuerServer {
    url: String,
    jwks: Arc<Mutex<Option<Value>>>,
    asked: Arc<AtomicUsize>,
    /// What it says it is, in its discovery document.
    named: Arc<Mutex<String>>,
    /// While this is false, the issuer takes requests and answers none.
    answers: watch::Sender<bool>,
}

impl IssuerServer {
    fn start(running: &Running, first: Option<Value>) -> Self {
        let listener = net::bind(([127, 0, 0, 1], 0).into(), "issuer").unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let (url, named) = (format!("{base}/jwks"), Arc::new(Mutex::new(base.clone())));
        let (jwks, asked) = (Arc::new(Mutex::new(first)), Arc::new(AtomicUsize::new(0)));
        let (answer, count) = (Arc::clone(&jwks), Arc::clone(&asked));
        let (answers, may_answer) = watch::channel(true);
        let router = Router::new().route(
            "/jwks",
            get(move || {
                count.fetch_add(1, Ordering::SeqCst);
                let jwks = answer.lock().clone();
                let mut may_answer = may_answer.clone();
                async move {
                    let _ = may_answer.wait_for(|may| *may).await;
                    let fresh = [("cache-control", "public, max-age=1")];
                    jwks.map(|jwks| (fresh, axum::Json(jwks)))
                        .ok_or(axum::http::StatusCode::INTERNAL_SERVER_ERROR)
                }
            }),
        );
        let (issuer, jwks_uri) = (Arc::clone(&named), url.clone());
        let router = router.route(
            "/.well-known/openid-configuration",
            get(async move || axum::Json(json!({"issuer": *issuer.lock(), "jwks_uri": jwks_uri}))),
        );
        let tasks = running.service.tasks().clone();
        running.service.tasks().spawn("issuer", async move {
            tollgate_runtime::http_server::serve(&tasks, listener, router).await;
        });
        Self { url, jwks, asked, named, answers }
    }
}

async fn with_fetched_keys(
    min_interval: Duration,
    first: impl Fn(&Running) -> Option<Value>,
) -> (Running, IssuerServer) {
    with_config(|config| config.keys.min_interval = min_interval, first).await
}

async fn with_config(
    change: impl FnOnce(&mut Config),
    first: impl Fn(&Running) -> Option<Value>,
) -> (Running, IssuerServer) {
    let folder = TempDir::new().unwrap();
    let url = format!("sqlite://{}", folder.path().join("authz.db").display());
    let running = Running::on(folder, &url, change).await;
    let server = IssuerServer::start(&running, first(&running));
    let mut documents = demo_documents();
    let issuer = json!({"kind": "Issuer", "name": "demo", "issuer": ISSUER, "jwks_url": server.url});
    documents.push(serde_json::from_value(issuer).unwrap());
    running.apply(documents).await;
    (running, server)
}

/// Asks until the answer is 200: a busy machine may fetch for longer than a request waits.
async fn passes(mesh: &Running, ask: &Ask<'_>) -> Answer {
    let asking = async {
        loop {
            let answer = mesh.check(ask).await;
            if answer.status() == 200 {
                return answer;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(10), asking).await.expect("passes in time")
}

/// The answer, which must come long before a fetch gives up (after five seconds).
async fn soon(mesh: &Running, ask: &Ask<'_>) -> (i32, String) {
    let answer = tokio::time::timeout(Duration::from_secs(2), mesh.check(ask)).await.expect("answered soon");
    (answer.status(), answer.reason())
}

#[tokio::test]
async fn an_issuer_that_hangs_holds_nobody_up() {
    let (mesh, server) = with_fetched_keys(Duration::from_millis(1), |mesh| Some(mesh.signer.jwks())).await;
    let reader = mesh.token("reader", "policies:read");
    server.answers.send_replace(false);
    // Without any keys we cannot say what the token is worth.
    let ask = Ask::new("GET", "/policies/1").bearer(&reader);
    assert_eq!(soon(&mesh, &ask).await, (503, "issuer_unavailable".to_owned()));
    assert_eq!(soon(&mesh, &ask).await, (503, "issuer_unavailable".to_owned()));
    assert_eq!(server.asked.load(Ordering::SeqCst), 1, "one fetch at a time");
    // That fetch went on by itself, and its keys serve the next request.
    server.answers.send_replace(true);
    mesh.in_force(2).await;
    assert_eq!(mesh.check(&ask).await.status(), 200);
    assert_eq!(server.asked.load(Ordering::SeqCst), 1);
    // With keys, one that we do not know is the token's fault.
    server.answers.send_replace(false);
    let next = Signer::new(Algorithm::EdDSA, "k2");
    *server.jwks.lock() = Some(json!({"keys": [mesh.signer.jwk(), next.jwk()]}));
    let by_next = next.token(&claims("reader", "policies:read"));
    let by_next = Ask::new("GET", "/policies/1").bearer(&by_next);
    assert_eq!(soon(&mesh, &by_next).await, (401, "token_key_unknown".to_owned()));
    assert_eq!(mesh.check(&ask).await.status(), 200);
    server.answers.send_replace(true);
    mesh.in_force(3).await;
    assert_eq!(mesh.check(&by_next).await.status(), 200);
    assert_eq!(server.asked.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_new_key_is_fetched_when_a_token_names_it() {
    let (mesh, server) = with_fetched_keys(Duration::from_millis(1), |mesh| Some(mesh.signer.jwks())).await;
    let reader = mesh.token("reader", "policies:read");
    let answer = passes(&mesh, &Ask::new("GET", "/policies/1").bearer(&reader)).await;
    assert_eq!((answer.status(), answer.reason().as_str()), (200, "ok"));
    assert_eq!(answer.metadata()["epoch"], 2, "fetched keys move the epoch");
    // The issuer rotates; both keys are good meanwhile.
    let next = Signer::new(Algorithm::EdDSA, "k2");
    *server.jwks.lock() = Some(json!({"keys": [mesh.signer.jwk(), next.jwk()]}));
    let by_next = next.token(&claims("reader", "policies:read"));
    passes(&mesh, &Ask::new("GET", "/policies/1").bearer(&by_next)).await;
    assert_eq!(mesh.check(&Ask::new("GET", "/policies/1").bearer(&reader)).await.status(), 200);
    // They are known after a restart, with the issuer away.
    *server.jwks.lock() = None;
    let folder = mesh.stop().await;
    let url = format!("sqlite://{}", folder.path().join("authz.db").display());
    let again = Running::on(folder, &url, |_| {}).await;
    assert_eq!(again.check(&Ask::new("GET", "/policies/1").bearer(&by_next)).await.status(), 200);
}

#[tokio::test]
async fn invented_keys_cause_one_fetch_and_no_more() {
    let (mesh, server) = with_fetched_keys(Duration::from_secs(3600), |mesh| Some(mesh.signer.jwks())).await;
    let asks: Vec<_> = (0..20)
        .map(|n| {
            let invented = Signer::new(Algorithm::ES256, &format!("invented-{n}"));
            Ask::new("GET", "/policies/1").bearer(&invented.token(&claims("reader", "policies:read")))
        })
        .collect();
    // The first wave may find that the only fetch takes longer than it waits.
    let first = futures_util::future::join_all(asks.iter().map(|ask| mesh.check(ask))).await;
    assert!(first.iter().all(|answer| matches!(answer.status(), 401 | 503)));
    mesh.in_force(2).await;
    let answers = futures_util::future::join_all(asks.iter().map(|ask| mesh.check(ask))).await;
    for answer in answers {
        assert_eq!((answer.status(), answer.reason().as_str()), (401, "token_key_unknown"));
    }
    assert_eq!(server.asked.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn without_keys_the_answer_is_that_we_cannot_say() {
    let (mesh, _server) = with_fetched_keys(Duration::from_millis(1), |_| None).await;
    let answer = mesh.check(&Ask::new("GET", "/policies/1").bearer(&mesh.token("reader", "x"))).await;
    assert_eq!((answer.status(), answer.reason().as_str()), (503, "issuer_unavailable"));
    assert!(answer.header("retry-after").is_some());
    // A bad answer changes nothing, and neither does one that is no key set.
    assert_eq!(mesh.cell.load().epoch, 1);
}

#[tokio::test]
async fn a_new_set_that_is_no_good_leaves_the_old_one_in_use() {
    let (mesh, server) = with_fetched_keys(Duration::from_millis(1), |mesh| Some(mesh.signer.jwks())).await;
    let reader = mesh.token("reader", "policies:read");
    let ask = Ask::new("GET", "/policies/1").bearer(&reader);
    passes(&mesh, &ask).await;
    let signer = mesh.signer.jwk();
    for bad in [
        json!({}),
        json!({"keys": []}),
        json!({"keys": [signer, signer]}),
        json!({"keys": [signer, {"kty": "oct", "k": "AAAA"}]}),
        json!("x"),
    ] {
        *server.jwks.lock() = Some(bad);
        let asked = server.asked.load(Ordering::SeqCst);
        while server.asked.load(Ordering::SeqCst) == asked {
            let kid = format!("k-{}", tollgate_runtime::clock::Clock::system().unix_nanos());
            let invented = Signer::new(Algorithm::ES256, &kid);
            let token = invented.token(&claims("reader", "policies:read"));
            let answer = mesh.check(&Ask::new("GET", "/policies/1").bearer(&token)).await;
            assert_eq!(answer.reason(), "token_key_unknown");
        }
        assert_eq!(mesh.check(&ask).await.status(), 200);
    }
    assert_eq!(mesh.cell.load().epoch, 2);
}

#[tokio::test]
async fn the_issuer_says_how_long_its_keys_are_fresh() {
    let change = |config: &mut Config| {
        config.keys.min_interval = Duration::from_millis(1);
        config.keys.refresh_floor = Duration::from_secs(1);
    };
    let (mesh, server) = with_config(change, |mesh| Some(mesh.signer.jwks())).await;
    let reader = mesh.token("reader", "policies:read");
    passes(&mesh, &Ask::new("GET", "/policies/1").bearer(&reader)).await;
    // Five minutes unless the issuer says otherwise; it says a second, and nobody has to present anything.
    let again = async {
        while server.asked.load(Ordering::SeqCst) < 3 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), again).await.expect("asked again in the background");
}

#[tokio::test]
async fn an_issuer_is_discovered_if_it_says_it_is_itself() {
    let (mesh, server) = with_fetched_keys(Duration::from_millis(1), |mesh| Some(mesh.signer.jwks())).await;
    let base = server.url.trim_end_matches("/jwks").to_owned();
    let issuer = json!({"kind": "Issuer", "name": "demo", "issuer": base, "discovery": true});
    *server.named.lock() = "https://evil".to_owned();
    mesh.apply(vec![serde_json::from_value(issuer).unwrap()]).await;
    let mut claims = claims("reader", "policies:read");
    claims["iss"] = json!(base);
    let reader = mesh.signer.token(&claims);
    let ask = Ask::new("GET", "/policies/1").bearer(&reader);
    let answer = mesh.check(&ask).await;
    assert_eq!((answer.status(), answer.reason().as_str()), (503, "issuer_unavailable"));
    *server.named.lock() = base;
    passes(&mesh, &ask).await;
}

#[tokio::test]
async fn secrets_come_from_the_configuration() {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    let secret = URL_SAFE_NO_PAD.encode([7; 32]);
    let jwks = json!({"keys": [{"kty": "oct", "k": secret}]}).to_string();
    let change = |config: &mut Config| {
        config.keys.shared_secrets.insert("old".to_owned(), Secret::new(jwks));
    };
    let (mesh, _) = with_config(change, |_| None).await;
    let issuer = |name: &str| {
        let issuer = json!({"kind": "Issuer", "name": "demo", "issuer": ISSUER, "shared_secret": name,
            "algorithms": ["HS256"]});
        vec![serde_json::from_value(issuer).unwrap()]
    };
    mesh.apply(issuer("old")).await;
    let key = jsonwebtoken::EncodingKey::from_secret(&[7; 32]);
    let header = jsonwebtoken::Header::new(Algorithm::HS256);
    let token = jsonwebtoken::encode(&header, &claims("reader", "policies:read"), &key).unwrap();
    let ask = Ask::new("GET", "/policies/1").bearer(&token);
    assert_eq!(mesh.check(&ask).await.status(), 200);
    // A secret that this process does not have is our fault and not the token's.
    mesh.apply(issuer("other")).await;
    let answer = mesh.check(&ask).await;
    assert_eq!((answer.status(), answer.reason().as_str()), (503, "issuer_unavailable"));
}
