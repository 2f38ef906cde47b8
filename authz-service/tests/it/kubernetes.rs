//! Enrolment by a Kubernetes service-account token, against a server that answers TokenReviews as a cluster's API does.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Json, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tempfile::TempDir;
use tollgate_authz::ca::{CaConfig, CertificateAuthority, KubernetesConfig};
use tollgate_identity::FreshKey;
use tollgate_identity::config::IdentityConfig;
use tollgate_identity::source::{AuthorityConfig, Source as _, SourceFault};
use tollgate_identity::tls::{Clients, Door, DoorTls, ServerCertificate};
use tollgate_runtime::clock::Clock;
use tollgate_runtime::{Service, http_server};
use tollgate_testkit::authority::Authority;
use tollgate_testkit::ports::free_address;

use crate::running::Running;

const CART: &str = "spiffe://test.example/ns/shop/sa/cart";
const OURS: &str = "our own token";
const REVIEWS: &str = "/apis/authentication.k8s.io/v1/tokenreviews";

/// A cluster's API: the token that is asked about names the answer.
struct Cluster {
    folder: TempDir,
    api: String,
    audiences: Arc<Mutex<Vec<Value>>>,
    _service: Service,
}

impl Cluster {
    fn start() -> Self {
        let (folder, root) = (TempDir::new().unwrap(), Authority::new("cluster"));
        let service = Service::for_test("cluster");
        let signed = root.server(&[[127, 0, 0, 1].into()]);
        let write = |name: &str, text: &str| {
            let file = folder.path().join(name);
            std::fs::write(&file, text).unwrap();
            file
        };
        let certificate = ServerCertificate {
            names: vec!["127.0.0.1".to_owned()],
            certificate: write("api.crt", &signed.certificate_pem),
            key: write("api.key", &signed.key_pem),
        };
        write("ca.crt", &root.root_pem());
        write("ours", &format!("{OURS}\n"));
        write("theirs", "somebody else's token\n");
        write("other-ca.crt", &Authority::new("cluster").root_pem());
        let tls = DoorTls { certificates: vec![certificate], ..DoorTls::default() };
        let any = ([127, 0, 0, 1], 0).into();
        let door = Door::bind(any, ("cluster", "tls"), Some(&tls), Clients::None).unwrap();
        let api = format!("https://{}", door.local_addr().unwrap());
        let incoming = door.incoming(None, &service).unwrap();
        let audiences: Arc<Mutex<Vec<Value>>> = Arc::default();
        let router = axum::Router::new().route(REVIEWS, post(review)).with_state(Arc::clone(&audiences));
        let tasks = service.tasks().clone();
        service
            .tasks()
            .spawn("api", async move { http_server::serve_incoming(&tasks, incoming, router).await });
        Self { folder, api, audiences, _service: service }
    }

    fn config(&self) -> KubernetesConfig {
        KubernetesConfig {
            api: self.api.clone(),
            ca_file: self.folder.path().join("ca.crt"),
            token_file: self.folder.path().join("ours"),
            ..KubernetesConfig::default()
        }
    }
}

async fn review(
    State(audiences): State<Arc<Mutex<Vec<Value>>>>,
    headers: HeaderMap,
    Json(asked): Json<Value>,
) -> Response {
    if headers["authorization"] != format!("Bearer {OURS}") {
        return StatusCode::FORBIDDEN.into_response();
    }
    assert_eq!(
        (&asked["kind"], &asked["apiVersion"]),
        (&json!("TokenReview"), &json!("authentication.k8s.io/v1"))
    );
    audiences.lock().push(asked["spec"]["audiences"].clone());
    match asked["spec"]["token"].as_str().unwrap() {
        "slow" => std::future::pending().await,
        "huge" => {
            Body::from(format!("{{\"status\": {{\"error\": \"{}\"}}}}", "x".repeat(1 << 20))).into_response()
        }
        "endless" => {
            let chunks = futures_util::stream::repeat_with(|| Ok::<_, std::io::Error>(vec![b' '; 4096]));
            Body::from_stream(chunks).into_response()
        }
        "garbage" => "<html>".into_response(),
        "moved" => axum::response::Redirect::temporary("https://evil.example/").into_response(),
        recorded => {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/tokenreview");
            let answer = std::fs::read_to_string(folder.join(format!("{recorded}.json"))).unwrap();
            (StatusCode::CREATED, [("content-type", "application/json")], answer).into_response()
        }
    }
}

async fn with_cluster(kubernetes: KubernetesConfig) -> (Running, CertificateAuthority) {
    let folder = TempDir::new().unwrap();
    let url = format!("sqlite://{}", folder.path().join("authz.db").display());
    let mut ca = CaConfig::new("test.example".parse().unwrap(), folder.path().join("wrapping.key"));
    ca.listen = ([127, 0, 0, 1], 0).into();
    ca.kubernetes = Some(kubernetes);
    let config = ca.clone();
    let running = Running::on(folder, &url, |all| all.ca = Some(ca)).await;
    let ca = CertificateAuthority::open(config, running.store.clone(), Clock::system()).await.unwrap();
    (running, ca)
}

async fn enrol(ca: &CertificateAuthority, token: &str) -> Result<String, String> {
    let csr = FreshKey::generate(None).unwrap().csr_der;
    let certified = ca.enrol_by_kubernetes(&csr, token).await;
    certified.map(|certified| certified.leaf.id.to_string()).map_err(|error| error.to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_the_cluster_knows_makes_its_service_account_a_workload() {
    let cluster = Cluster::start();
    let (running, ca) = with_cluster(cluster.config()).await;
    assert_eq!(enrol(&ca, "cart\n").await, Ok(CART.to_owned()));
    assert_eq!(*cluster.audiences.lock(), [json!(["tollgate-ca"])]);
    let rows = running.store.certificates(0, 100).await.unwrap();
    let proofs: Vec<_> =
        rows.iter().filter(|row| row.spiffe_id == CART).map(|row| row.proof.as_str()).collect();
    assert_eq!(proofs, ["kubernetes"]);

    // A request for another id than the token's is refused.
    let other = "spiffe://test.example/ns/shop/sa/payments".parse().unwrap();
    let csr = FreshKey::generate(Some(&other)).unwrap().csr_der;
    assert!(ca.enrol_by_kubernetes(&csr, "cart").await.is_err());
    // A revoked workload gets nothing.
    let revocation =
        json!({"kind": "Revocation", "name": "stolen", "workload": CART, "until": "2999-01-01T00:00:00Z"});
    running.apply(vec![serde_json::from_value(revocation).unwrap()]).await;
    assert!(enrol(&ca, "cart").await.unwrap_err().contains("revoked"));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_other_answer_is_a_refusal_that_says_why() {
    let cluster = Cluster::start();
    let (_running, ca) = with_cluster(cluster.config()).await;
    for (token, why) in [
        ("wrong-audience", "not authenticated: [invalid bearer token, token audiences"),
        ("no-audience", "is for another audience ()"),
        ("other-audience", "is for another audience (https://kubernetes.default.svc.cluster.local)"),
        ("expired", "service account token has expired"),
        ("node", "`system:node:worker-1`, which is no service account"),
        ("malformed", "`system:serviceaccount:shop`, which is no service account"),
        ("system", "name it in ca.kubernetes.system_accounts"),
        ("", "is empty or longer"),
        (&"x".repeat(20_000), "is empty or longer"),
        ("garbage", "cannot be asked: its answer is no TokenReview"),
        ("huge", "cannot be asked: its answer is longer than 65536 bytes"),
        ("endless", "cannot be asked: its answer is longer than 65536 bytes"),
        ("moved", "cannot be asked: it answered 307"),
        ("slow", "cannot be asked: no answer within 5 s"),
    ] {
        let refused = enrol(&ca, token).await.unwrap_err();
        assert!(refused.contains(why), "{token}: {refused}");
        assert!(!refused.contains(OURS), "{refused}");
    }
    assert_eq!(enrol(&ca, "cart").await, Ok(CART.to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_that_is_away_or_not_the_clusters_own_is_believed_nothing() {
    let cluster = Cluster::start();
    let closed = free_address();
    let file = |name: &str| cluster.folder.path().join(name);
    for (what, config, why) in [
        ("away", KubernetesConfig { api: format!("https://{closed}"), ..cluster.config() }, "refused"),
        ("stranger", KubernetesConfig { ca_file: file("other-ca.crt"), ..cluster.config() }, "certificate"),
        ("no roots", KubernetesConfig { ca_file: file("none"), ..cluster.config() }, "none: No such file"),
        ("no token", KubernetesConfig { token_file: file("none"), ..cluster.config() }, "none: No such file"),
        ("no right", KubernetesConfig { token_file: file("theirs"), ..cluster.config() }, "answered 403"),
    ] {
        let (_running, ca) = with_cluster(config).await;
        let refused = enrol(&ca, "cart").await.unwrap_err();
        assert!(refused.starts_with("the Kubernetes API cannot be asked: "), "{what}: {refused}");
        assert!(refused.contains(why), "{what}: {refused}");
    }
    let folder = TempDir::new().unwrap();
    let (_, by_tokens) = {
        let url = format!("sqlite://{}", folder.path().join("authz.db").display());
        let running = Running::on(TempDir::new().unwrap(), &url, |_| {}).await;
        let config = CaConfig::new("test.example".parse().unwrap(), folder.path().join("wrapping.key"));
        let ca = CertificateAuthority::open(config, running.store.clone(), Clock::system()).await.unwrap();
        (running, ca)
    };
    assert!(enrol(&by_tokens, "cart").await.unwrap_err().contains("not taken here"));
}

fn source(running: &Running, folder: &Path) -> (AuthorityConfig, PathBuf) {
    let token = folder.join("token");
    let config = AuthorityConfig {
        address: running.addresses.enrolment.unwrap().to_string(),
        join_token_file: None,
        service_account_token_file: Some(token.clone()),
        bundle: Some(folder.join("bundle.pem")),
        spiffe_id: None,
        authority_id: None,
    };
    (config, token)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workload_reads_its_token_anew_and_knows_the_authority_by_its_roots() {
    let cluster = Cluster::start();
    let (running, ca) = with_cluster(cluster.config()).await;
    let folder = TempDir::new().unwrap();
    let roots: String = ca.bundle().iter().map(tollgate_identity::pem::certificate).collect();
    std::fs::write(folder.path().join("bundle.pem"), roots).unwrap();
    let (config, token) = source(&running, folder.path());
    IdentityConfig::Authority(config.clone()).check("identity").unwrap();

    let mut asking = tollgate_identity::source::Authority::new(config.clone(), Clock::system());
    assert!(
        matches!(asking.next().await, Err(SourceFault::Unavailable(why)) if why.contains("cannot be read"))
    );
    std::fs::write(&token, "expired").unwrap();
    let refused = asking.next().await.unwrap_err();
    assert!(matches!(&refused, SourceFault::Refused(why) if why.contains("has expired")), "{refused}");
    std::fs::write(&token, "cart").unwrap();
    let material = asking.next().await.unwrap();
    assert_eq!(material.credential.leaf.id.as_str(), CART);
    assert_eq!(material.bundles.roots(&"test.example".parse().unwrap()), ca.bundle());

    // Who is not signed for by these roots, or is another workload than was asked for, sees no token.
    let asked = cluster.audiences.lock().len();
    let another = AuthorityConfig {
        authority_id: Some("spiffe://test.example/ns/tollgate-system/sa/other".parse().unwrap()),
        ..config.clone()
    };
    std::fs::write(folder.path().join("stranger.pem"), Authority::new("root").root_pem()).unwrap();
    let stranger = AuthorityConfig { bundle: Some(folder.path().join("stranger.pem")), ..config.clone() };
    for config in [another, stranger] {
        let mut asking = tollgate_identity::source::Authority::new(config, Clock::system());
        assert!(matches!(asking.next().await, Err(SourceFault::Unavailable(_))));
    }
    assert_eq!(cluster.audiences.lock().len(), asked);

    // One proof, and for this one the roots.
    let both = AuthorityConfig { join_token_file: Some(token.clone()), ..config.clone() };
    let rootless = AuthorityConfig { bundle: None, ..config.clone() };
    let none = AuthorityConfig { service_account_token_file: None, bundle: None, ..config };
    for (config, key) in [(both, "join_token_file"), (rootless, "bundle"), (none, "join_token_file")] {
        let wrong = IdentityConfig::Authority(config).check("identity").unwrap_err();
        assert_eq!(wrong.key, format!("identity.authority.{key}"));
    }
}
