//! Which certificates the dashboard knows of, and by whose word.

use std::time::Duration;

use serde_json::{Value, json};
use tollgate_dashboard::Config;
use tollgate_proto::attributes::TOLLGATE_EXPORTER_IDENTITY;
use tollgate_runtime::Service;
use tollgate_runtime::clock::Clock;
use tollgate_runtime::process::ProcessConfig;
use tollgate_runtime::telemetry::TelemetryConfig;
use tollgate_testkit::authority::{Signed, workload};

use crate::harness::{DEADLINE, now_ns, start};
use crate::tls::{DASHBOARD, REPORTER, Secure, files};

const CART: &str = "spiffe://test.example/ns/shop/sa/cart";
const MADE_UP: &str = "spiffe://test.example/ns/shop/sa/made-up";

/// Somebody signed in to a dashboard over TLS.
struct Operator<'a> {
    secure: &'a Secure,
    cookie: String,
}

impl<'a> Operator<'a> {
    async fn sign_in(secure: &'a Secure) -> Self {
        let login = secure.client(None).post(format!("https://{}/api/v1/auth/login", secure.addresses.web));
        let answer = login.json(&json!({"token": secure.token})).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        let cookie = answer.headers()["set-cookie"].to_str().unwrap().split(';').next().unwrap().to_owned();
        Self { secure, cookie }
    }

    async fn certificates(&self) -> Vec<Value> {
        let url = format!("https://{}/api/v1/certificates", self.secure.addresses.web);
        let answer = self.secure.client(None).get(url).header("cookie", &self.cookie).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        let body: Value = answer.json().await.unwrap();
        assert_eq!(body["left_out"], 0);
        body["certificates"].as_array().unwrap().clone()
    }

    /// The certificate of a workload, once the list has one that is as it should be.
    async fn wait(&self, id: &str, right: impl Fn(&Value) -> bool) -> Value {
        let look = async {
            loop {
                let all = self.certificates().await;
                if let Some(found) = all.iter().find(|one| one["spiffe_id"] == id && right(one)) {
                    return found.clone();
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(DEADLINE, look).await.unwrap_or_else(|_| panic!("no such certificate of {id}"))
    }
}

/// A certificate of this id that ends so many seconds from now.
fn lasting(secure: &Secure, id: &str, seconds: u64) -> Signed {
    let mut params = workload(id);
    params.not_after = (tollgate_testkit::authority::now() + Duration::from_secs(seconds)).into();
    secure.root.sign(params)
}

/// Reports over OTLP/HTTP that somebody's certificate ends at a time.
async fn say(secure: &Secure, by: &Signed, whose: &str, service: &str, not_after: u64) {
    let text = |key: &str, value: &str| json!({"key": key, "value": {"stringValue": value}});
    let point = json!({
        "timeUnixNano": now_ns().to_string(),
        "asInt": not_after.to_string(),
        "attributes": [
            text("tollgate.certificate.id", whose),
            text("tollgate.certificate.issuer", "nobody"),
            text(TOLLGATE_EXPORTER_IDENTITY, whose),
        ],
    });
    let metric = json!({"name": "tollgate.certificate.expiry", "gauge": {"dataPoints": [point]}});
    let resource = json!({"attributes": [
        text("service.name", service),
        text("service.instance.id", &std::process::id().to_string()),
        text(TOLLGATE_EXPORTER_IDENTITY, whose),
    ]});
    let body = json!({"resourceMetrics": [{"resource": resource, "scopeMetrics": [{"metrics": [metric]}]}]});
    let url = format!("https://{}/v1/metrics", secure.addresses.otlp_http);
    let answer = secure.client(Some(by)).post(url).json(&body).send().await.unwrap();
    assert_eq!(answer.status(), 200, "{}", answer.text().await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_from_files_are_known_with_their_rotation_and_nobody_speaks_for_another() {
    let secure = Secure::start(|_: &mut Config| {}).await;
    let operator = Operator::sign_in(&secure).await;
    // Our own needs no report.
    let own = operator.wait(DASHBOARD, |_| true).await;
    assert_eq!(
        (&own["issuer"], &own["source"], &own["verified"]),
        (&json!("CN=root"), &json!("files"), &json!(true))
    );

    let folder = tempfile::tempdir().unwrap();
    let identity = files(&secure.root, &lasting(&secure, CART, 1800), folder.path());
    let telemetry = TelemetryConfig {
        endpoint: Some(format!("https://{}", secure.addresses.otlp_grpc)),
        metrics_interval: Duration::from_millis(100),
        ..TelemetryConfig::default()
    };
    let (clock, hand) = Clock::manual(now_ns());
    let cart = Service::start_at("cart", &ProcessConfig::default(), &telemetry, clock).unwrap();
    let identity = identity.follow(&cart).await.unwrap();
    let ends = |identity: &tollgate_identity::Identity| identity.material().credential.leaf.not_after * 1000;
    let first = operator.wait(CART, |_| true).await;
    assert_eq!(first["expires_ms"], ends(&identity));
    assert_eq!(
        (&first["service"], &first["issuer"], &first["source"]),
        (&json!("cart"), &json!("CN=root"), &json!("files"))
    );
    assert_eq!(
        (&first["reported_by"], &first["verified"], &first["ended"]),
        (&json!(CART), &json!(true), &json!(false))
    );

    // A rotation, some seconds after the start.
    let mut rotations = identity.rotations();
    let before = identity.since();
    hand.advance(Duration::from_secs(5));
    files(&secure.root, &lasting(&secure, CART, 3000), folder.path());
    rotations.changed().await.unwrap();
    assert_eq!(identity.since(), before + 5);
    let before = first["expires_ms"].as_i64().unwrap();
    let second = operator.wait(CART, |one| one["expires_ms"].as_i64().unwrap() > before).await;
    assert_eq!(second["expires_ms"], ends(&identity));
    let rotated = operator.wait(CART, |one| one["rotated_ms"].as_i64() > first["rotated_ms"].as_i64()).await;
    assert_eq!(rotated["rotated_ms"], identity.since() * 1000);

    // Another workload's word does not replace its own, and is not taken for its own.
    let reporter = secure.root.workload(REPORTER);
    say(&secure, &reporter, CART, "cart", 1).await;
    say(&secure, &reporter, MADE_UP, "made-up", 1).await;
    let made_up = operator.wait(MADE_UP, |_| true).await;
    assert_eq!((&made_up["reported_by"], &made_up["verified"]), (&json!(REPORTER), &json!(false)));
    assert_eq!((&made_up["ended"], &made_up["rotated_ms"]), (&json!(true), &Value::Null));
    let kept = operator.wait(CART, |_| true).await;
    assert_eq!((&kept["expires_ms"], &kept["verified"]), (&second["expires_ms"], &json!(true)));
    let ids: Vec<_> = operator.certificates().await.iter().map(|one| one["spiffe_id"].clone()).collect();
    assert_eq!(ids, [MADE_UP, CART, DASHBOARD].map(Value::from), "what ends first comes first");
    cart.stop().await;
}

#[tokio::test]
async fn nobody_is_told_without_a_session_and_a_system_without_identity_has_none() {
    let dashboard = start().await;
    let bare = dashboard.http.get(dashboard.url("/api/v1/certificates")).send().await.unwrap();
    assert_eq!(bare.status(), 401);
    assert_eq!(dashboard.json("/certificates").await, json!({"certificates": [], "left_out": 0}));
    assert_eq!(dashboard.get("/certificates?from=5&to=5").send().await.unwrap().status(), 400);
    dashboard.service.stop().await;
}
