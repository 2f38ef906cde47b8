//! The way out: what is registered may be reached, all else is refused by its name, and nothing of ours goes along.

use tollgate_testkit::fake_collector::wait_for;

use crate::harness::{Call, Mesh, Setup};

const ROUTES: &str = r#"
routes:
  - name: partner
    hostnames: [partner.test, "*.bureau.test"]
    matches: [{path: {type: PathPrefix, value: /v1}}]
    authz: off
    backends: [{cluster: app}]
    request_header_modifier: {set: [{name: authorization, value: "Bearer ours"}]}
  - name: trusting
    hostnames: [friend.test]
    matches: [{}]
    authz: off
    credentials: keep
    backends: [{cluster: app}]
"#;

async fn egress() -> Mesh {
    Setup { listener: "role: egress", routes: Some(ROUTES), ..Setup::default() }.start().await
}

#[tokio::test]
async fn an_unknown_destination_is_refused_by_its_name() {
    let mesh = egress().await;
    for host in ["evil.test", "partner.test.evil.test", "bureau.test", "10.0.0.1", "localhost"] {
        let answer = mesh.get("/v1/x").header("host", host).send().await;
        assert_eq!(
            (answer.status.as_u16(), answer.reason().as_str()),
            (403, "egress_unregistered"),
            "{host}"
        );
    }
    assert!(mesh.app.seen().is_empty());
    // A name that is known, and a path that is not, is another thing.
    let answer = mesh.get("/v2").header("host", "partner.test").send().await;
    assert_eq!(answer.status, 404);
    let counted = || {
        let metrics = mesh.service.telemetry().render_metrics().unwrap();
        metrics.contains("destination=\"evil.test\"").then_some(())
    };
    assert!(wait_for(counted).await.is_some());
}

#[tokio::test]
async fn what_a_client_proves_itself_with_stays_inside() {
    let mesh = egress().await;
    for host in ["partner.test", "eu.bureau.test", "friend.test"] {
        let answer = mesh
            .get("/v1/report")
            .header("host", host)
            .bearer("reader")
            .header("cookie", "session=s")
            .header("x-forwarded-for", "10.0.0.7")
            .send()
            .await;
        assert_eq!(answer.status, 200, "{host}");
    }
    let seen = mesh.app.seen();
    for one in &seen[..2] {
        assert_eq!(one.headers["authorization"], "Bearer ours");
        for name in ["cookie", "x-forwarded-for", "x-forwarded-host"] {
            assert!(!one.headers.contains_key(name), "{name}");
        }
    }
    assert_eq!(seen[1].headers["host"], "eu.bureau.test");
    assert_eq!(seen[2].headers["authorization"], "Bearer reader");
}

#[tokio::test]
async fn an_outbound_sidecar_knows_the_registry_too() {
    let mesh = Setup { listener: "role: outbound", routes: Some(ROUTES), ..Setup::default() }.start().await;
    let refused = mesh.get("/v1/x").header("host", "elsewhere.test").send().await;
    assert_eq!(refused.reason(), "egress_unregistered");
    let passed = mesh.get("/v1/x").header("host", "friend.test").bearer("reader").send().await;
    assert_eq!(passed.status, 200);
    assert_eq!(mesh.app.seen()[0].headers["authorization"], "Bearer reader");
}

#[tokio::test]
async fn each_destination_has_its_own_limit_and_its_own_pages() {
    let routes = r#"
routes:
  - name: few
    hostnames: [few.test]
    matches: [{}]
    authz: off
    backends: [{cluster: app}]
    local_limits: [{requests: 2, per: 1h}]
    cors: {allow_origins: ["https://app.example"], expose_headers: [retry-after]}
  - name: many
    hostnames: [many.test]
    matches: [{}]
    authz: off
    backends: [{cluster: app}]
"#;
    let mesh = Setup { listener: "role: egress", routes: Some(routes), ..Setup::default() }.start().await;
    let page = ("origin", "https://app.example");
    let of = |host: &str| mesh.get("/").header("host", host).header(page.0, page.1);
    let preflight = |host: &str| {
        let call = Call::new(mesh.address, "OPTIONS", "/").header("host", host).header(page.0, page.1);
        call.header("access-control-request-method", "GET").send()
    };
    // Preflights do not count: the requests that they announce do.
    for _ in 0..3 {
        let asked = preflight("few.test").await;
        assert_eq!((asked.status.as_u16(), asked.header("access-control-allow-origin")), (204, Some(page.1)));
    }
    for status in [200, 200, 429] {
        let answer = of("few.test").send().await;
        assert_eq!(answer.status, status);
        assert_eq!(
            answer.header("access-control-allow-origin"),
            Some(page.1),
            "a page may read why: {status}"
        );
        assert_eq!(answer.header("access-control-expose-headers"), Some("retry-after"), "{status}");
    }
    for _ in 0..5 {
        let answer = of("many.test").send().await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("access-control-allow-origin"), None);
    }
    let stranger = preflight("stranger.test").await;
    assert_eq!((stranger.status.as_u16(), stranger.reason().as_str()), (403, "egress_unregistered"));
    assert_eq!(mesh.app.seen().len(), 2 + 5, "a preflight goes nowhere");
}
