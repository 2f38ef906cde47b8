//! Everything that Envoy can ask, and everything that we answer it.

use std::path::PathBuf;

use serde_json::{Value, json};
use tollgate_authz::policy::object::Document;
use tollgate_proto::envoy_types::pb::envoy::config::core::v3::{HeaderMap, HeaderValue};
use tollgate_proto::envoy_types::pb::envoy::service::auth::v3::CheckRequest;
use tonic::Code;

use crate::running::{Answer, Ask, ISSUER, Running, claims};

fn document(json: Value) -> Document {
    serde_json::from_value(json).unwrap()
}

/// The demo with more said about its issuer and its service.
async fn mesh(issuer: Value, service: Value) -> Running {
    let mesh = Running::demo().await;
    let mut about = json!({"kind": "Issuer", "name": "demo", "issuer": ISSUER, "jwks": mesh.signer.jwks()});
    let mut what = json!({"kind": "Service", "namespace": "insurance", "name": "policies",
        "hosts": ["policies.insurance"], "callers": ["external"], "issuers": ["demo"], "audiences": ["insurance"]});
    for (object, more) in [(&mut about, issuer), (&mut what, service)] {
        object.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    }
    mesh.apply(vec![document(about), document(what)]).await;
    mesh
}

fn set(answer: &Answer) -> Vec<(&str, &str)> {
    let headers = answer.changes().headers.iter().filter_map(|option| option.header.as_ref());
    headers.map(|header| (header.key.as_str(), header.value.as_str())).collect()
}

#[tokio::test]
async fn claims_stand_in_headers_that_no_client_can_say() {
    let issuer = json!({"claim_headers": [{"claim": "sub", "header": "X-User"}, {"claim": "org.tier", "header": "x-tier"}],
        "metadata_claims": ["org.tier", "groups", "nothing"]});
    let mesh = mesh(issuer, json!({})).await;
    let mut said = claims("reader", "policies:read");
    said["org"] = json!({"tier": "gold"});
    let ask = Ask::new("GET", "/policies/1")
        .bearer(&mesh.signer.token(&said))
        .header("x-user", "root")
        .header("x_tier", "platinum")
        .header("x-tollgate-anything", "1")
        .header("x-users", "stays");
    let answer = mesh.check(&ask).await;
    assert_eq!(set(&answer), [("x-user", "reader"), ("x-tier", "gold")]);
    let mut removed = answer.changes().headers_to_remove.clone();
    removed.sort();
    assert_eq!(removed, ["x-tollgate-anything", "x_tier"]);
    assert_eq!(answer.metadata()["claims"], json!({"org.tier": "gold", "groups": ["staff"]}));
    // A token that does not say it leaves nothing there.
    let ask = Ask::new("GET", "/policies/1")
        .bearer(&mesh.token("reader", "policies:read"))
        .header("x-tier", "gold");
    let answer = mesh.check(&ask).await;
    assert_eq!(set(&answer), [("x-user", "reader")]);
    assert_eq!(answer.changes().headers_to_remove, ["x-tier"]);
}

#[tokio::test]
async fn claims_stand_in_parameters_that_no_client_can_say() {
    let issuer = json!({"claim_parameters": [{"claim": "sub", "parameter": "user"}, {"claim": "tier", "parameter": "tier"}]});
    let mesh = mesh(issuer, json!({})).await;
    let mut said = claims("reader", "policies:read");
    said["tier"] = json!("g&d");
    let check = async |target: &str, token: &str| {
        let changes = mesh.check(&Ask::new("GET", target).bearer(token)).await.changes().clone();
        let set =
            changes.query_parameters_to_set.into_iter().map(|said| format!("{}={}", said.key, said.value));
        (set.collect::<Vec<_>>(), changes.query_parameters_to_remove)
    };
    let both = vec!["user=reader".to_owned(), "tier=g%26d".to_owned()];
    let token = mesh.signer.token(&said);
    assert_eq!(check("/policies/1?a=1", &token).await, (both.clone(), vec![]));
    let removed = vec!["%74ier".to_owned(), "b".to_owned()];
    let target = "/policies/1?tier=x&user=root&%74ier=x&b=1;tier=x";
    assert_eq!(check(target, &token).await, (both, removed));
    // A token that does not say it leaves nothing there.
    let token = mesh.token("reader", "policies:read");
    let removed = vec!["tier".to_owned()];
    assert_eq!(
        check("/policies/1?tier=gold&tiers=1", &token).await,
        (vec!["user=reader".to_owned()], removed)
    );
}

#[tokio::test]
async fn a_token_is_taken_out_of_where_it_stood() {
    let issuer = json!({"strip": true, "token_places": [{"header": "authorization"}, {"header": "x-jwt"},
        {"cookie": "session"}, {"query": "access_token"}]});
    let mesh = mesh(issuer, json!({})).await;
    let token = mesh.token("reader", "policies:read");
    let check = async |ask: Ask<'_>| {
        let answer = mesh.check(&ask).await;
        let changes = answer.changes().clone();
        let set: Vec<_> = set(&answer).into_iter().map(|(name, value)| format!("{name}={value}")).collect();
        (set, changes.headers_to_remove, changes.query_parameters_to_remove)
    };
    let get = || Ask::new("GET", "/policies/1");
    let removed = |name: &str| (vec![], vec![name.to_owned()], vec![]);
    assert_eq!(check(get().bearer(&token)).await, removed("authorization"));
    assert_eq!(check(get().header("x-jwt", &token)).await, removed("x-jwt"));
    assert_eq!(check(get().header("cookie", &format!("session={token}"))).await, removed("cookie"));
    assert_eq!(
        check(get().header("cookie", &format!("a=1; session={token};b=2"))).await,
        (vec!["cookie=a=1; b=2".to_owned()], vec![], vec![])
    );
    let with_query = format!("/policies/1?x=1&access_token={token}");
    let answer = check(Ask::new("GET", &with_query)).await;
    assert_eq!(answer, (vec![], vec![], vec!["access_token".to_owned()]));
    // Basic credentials are the upstream's business.
    let other = get().header("authorization", "Basic abc").header("x-jwt", &token);
    assert_eq!(check(other).await, removed("x-jwt"));
}

#[tokio::test]
async fn a_person_with_a_browser_is_sent_to_log_in() {
    let login = json!({"login": {"url": "https://login.example/start?app=p", "return_parameter": "rd"}});
    let mesh = mesh(json!({"token_places": [{"cookie": "session"}, {"query": "t"}]}), login).await;
    let page = "text/html,application/xhtml+xml,*/*;q=0.8";
    let browser = |path| {
        let mut ask = Ask::new("GET", path).header("accept", page);
        ask.host = "policies.insurance:8443";
        ask
    };
    let answer = mesh.check(&browser("/policies/1?x=1")).await;
    assert_eq!((answer.status(), answer.reason().as_str()), (302, "token_absent"));
    let back = "https%3A%2F%2Fpolicies%2Einsurance%3A8443%2Fpolicies%2F1%3Fx%3D1";
    let there = format!("https://login.example/start?app=p&rd={back}");
    assert_eq!(answer.header("location"), Some(&*there));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert_eq!(answer.header("www-authenticate"), None);
    // A session that is over, without the old token in the address.
    let mut over = claims("reader", "policies:read");
    over["exp"] = json!(1);
    let expired = mesh.signer.token(&over);
    let path = format!("/policies/1?t={expired}");
    let answer = mesh.check(&browser(&path)).await;
    assert_eq!((answer.status(), answer.reason().as_str()), (302, "token_expired"));
    assert!(answer.header("location").unwrap().ends_with("%2Fpolicies%2F1"));
    // A host that is not the service's is not returned to.
    let mut elsewhere = browser("/policies/1");
    elsewhere.host = "evil.example";
    let answer = mesh.check(&elsewhere).await;
    assert_eq!(answer.header("location"), Some("https://login.example/start?app=p&rd=%2Fpolicies%2F1"));
    // Programs, broken tokens and people who may not are told so.
    assert_eq!(mesh.check(&Ask::new("GET", "/policies/1").header("accept", "*/*")).await.status(), 401);
    assert_eq!(mesh.check(&browser("/policies/1?t=broken")).await.status(), 401);
    assert_eq!(mesh.check(&browser("/policies/1").header("sec-fetch-mode", "cors")).await.status(), 401);
    let outsider = format!("/policies/1?t={}", mesh.token("outsider", "policies:read"));
    assert_eq!(mesh.check(&browser(&outsider)).await.status(), 403);
}

#[tokio::test]
async fn what_we_cannot_say_is_an_error_and_no_refusal() {
    let mesh = Running::demo().await;
    let issuer =
        json!({"kind": "Issuer", "name": "demo", "issuer": ISSUER, "jwks_url": "http://127.0.0.1:1/"});
    mesh.apply(vec![document(issuer)]).await;
    let answer =
        mesh.check(&Ask::new("GET", "/policies/1").bearer(&mesh.token("reader", "policies:read"))).await;
    assert!(answer.is_error());
    assert_eq!((answer.status(), answer.reason().as_str()), (503, "issuer_unavailable"));
    assert_eq!(answer.0.status.as_ref().unwrap().code, Code::Unavailable as i32);
    assert!(answer.header("retry-after").is_some());
    assert_eq!(answer.metadata()["token"]["check"], "keys_at_hand");
}

#[tokio::test]
async fn a_grpc_caller_gets_a_status_and_a_message() {
    let mesh = Running::demo().await;
    let grpc = |ask: Ask<'static>| ask.header("content-type", "application/grpc+proto");
    let outsider = mesh.token("outsider", "policies:read");
    for (ask, http, code, message) in [
        (Ask::new("POST", "/policies/1"), 401, Code::Unauthenticated, "unauthenticated (r-1)"),
        (Ask::new("POST", "/policies").bearer(&outsider), 403, Code::PermissionDenied, "access_denied (r-1)"),
        (Ask::new("POST", "/%zz"), 400, Code::InvalidArgument, "invalid_request (r-1)"),
    ] {
        let answer = mesh.check(&grpc(ask)).await;
        assert_eq!((answer.status(), answer.text()), (http, message));
        assert_eq!(answer.header("grpc-status"), Some(&*(code as i32).to_string()));
        assert_eq!(answer.header("content-type"), None, "it stays application/grpc");
    }
}

#[tokio::test]
async fn odd_methods_and_targets_are_refused_and_never_pass_by_accident() {
    let mesh = Running::demo().await;
    // Whoever may do everything everywhere.
    mesh.apply(vec![
        document(json!({"kind": "Role", "namespace": "insurance", "name": "all",
            "permissions": [{"name": "all", "service": "*", "methods": ["*"], "paths": ["/{**}"]}]})),
        document(json!({"kind": "Binding", "namespace": "insurance", "name": "all", "role": "all",
            "who": {"anyone": true}})),
    ])
    .await;
    assert_eq!(mesh.check(&Ask::new("GET", "/policies/1")).await.status(), 200);
    for (method, path) in [
        ("CONNECT", ""),
        ("CONNECT", "example.com:443"),
        ("OPTIONS", "*"),
        ("GET", "*"),
        ("GET", ""),
        ("GET", "?x"),
        ("GET", "http://evil/policies/1"),
        ("GET", "policies/1"),
        ("", ""),
    ] {
        let answer = mesh.check(&Ask::new(method, path)).await;
        assert_eq!(
            (answer.status(), answer.reason().as_str()),
            (400, "request_malformed"),
            "{method} {path}"
        );
    }
}

#[tokio::test]
async fn headers_may_come_raw_and_a_body_is_not_looked_at() {
    let mesh = Running::demo().await;
    let token = mesh.token("reader", "policies:read");
    let mut message = Ask::new("GET", "/policies/1").message();
    let http = message.attributes.as_mut().unwrap().request.as_mut().unwrap().http.as_mut().unwrap();
    let raw = |key: &str, value: &[u8]| HeaderValue {
        key: key.to_owned(),
        raw_value: value.to_vec(),
        ..HeaderValue::default()
    };
    http.headers.clear();
    http.header_map = Some(HeaderMap {
        headers: vec![
            raw("authorization", format!("Bearer {token}").as_bytes()),
            raw("x-odd", b"\xff\xfe"),
            raw("x-tollgate-subject", b"root"),
        ],
    });
    http.body = "x".repeat(1024);
    http.raw_body = vec![0xff; 1024];
    let answer = mesh.check_message(message.clone()).await.unwrap();
    assert_eq!((answer.status(), answer.reason().as_str()), (200, "ok"));
    assert_eq!(answer.changes().headers_to_remove, ["x-tollgate-subject"]);
    // The same header in two lines is two tokens.
    let http = message.attributes.as_mut().unwrap().request.as_mut().unwrap().http.as_mut().unwrap();
    let map = http.header_map.as_mut().unwrap();
    map.headers.push(raw("authorization", format!("Bearer {token}").as_bytes()));
    assert_eq!(mesh.check_message(message).await.unwrap().reason(), "token_ambiguous");
}

#[tokio::test]
async fn a_bound_token_is_held_to_the_certificate_that_the_proxy_saw() {
    let mesh = Running::demo().await;
    let pem = include_str!("../data/peer.pem");
    let encoded = pem.replace('+', "%2B").replace('\n', "%0A").replace(' ', "%20").replace('=', "%3D");
    let check = async |thumbprint: &str, certificate: &str| {
        let mut said = claims("reader", "policies:read");
        said["cnf"] = json!({"x5t#S256": thumbprint});
        let mut message = Ask::new("GET", "/policies/1").bearer(&mesh.signer.token(&said)).message();
        let attributes = message.attributes.as_mut().unwrap();
        attributes.source.as_mut().unwrap().certificate = certificate.to_owned();
        mesh.check_message(message).await.map(|answer| (answer.status(), answer.reason()))
    };
    let bound = (401, "token_binding".to_owned());
    assert_eq!(check(THUMBPRINT, &encoded).await.unwrap(), (200, "ok".to_owned()));
    assert_eq!(check(THUMBPRINT, "").await.unwrap(), bound);
    assert_eq!(check("AAAA", &encoded).await.unwrap(), bound);
    // What is no certificate is the asker's mistake.
    assert_eq!(check(THUMBPRINT, "abc").await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn a_revoked_certificate_is_refused_until_that_is_lifted() {
    let mesh = Running::demo().await;
    let administrator = mesh.administrator("root").await;
    let pem = include_str!("../data/peer.pem");
    let encoded = pem.replace('+', "%2B").replace('\n', "%0A").replace(' ', "%20").replace('=', "%3D");
    let reader = mesh.token("reader", "policies:read");
    let check = async |certificate: &str| {
        let mut message = Ask::new("GET", "/policies/1").bearer(&reader).message();
        message.attributes.as_mut().unwrap().source.as_mut().unwrap().certificate = certificate.to_owned();
        let answer = mesh.check_message(message).await.unwrap();
        (answer.status(), answer.reason())
    };
    let passes = (200, "ok".to_owned());
    assert_eq!(check(&encoded).await, passes);
    // Written as OpenSSL shows it.
    let revocation = json!({"kind": "Revocation", "name": "laptop", "certificate_serial": "00:F1:E2:D3",
        "until": "2027-01-01T00:00:00Z"});
    mesh.apply(vec![document(revocation)]).await;
    assert_eq!(check(&encoded).await, (403, "certificate_revoked".to_owned()));
    assert_eq!(check("").await, passes, "it is this certificate that was revoked, and nobody else");
    let lifted =
        mesh.http.delete(mesh.url("/v1/revocations/laptop?wait=applied")).bearer_auth(&administrator);
    assert!(lifted.send().await.unwrap().status().is_success());
    assert_eq!(check(&encoded).await, passes);
}

const THUMBPRINT: &str = "LOJniVi2pYAhbm3dewggwQvcL4xNs7tJf5AVWQ2fwZc";

#[tokio::test]
async fn what_is_no_question_is_the_askers_mistake() {
    let mesh = Running::demo().await;
    let code = async |message: CheckRequest| mesh.check_message(message).await.unwrap_err().code();
    assert_eq!(code(CheckRequest::default()).await, Code::InvalidArgument);
    // Without a request it is about a connection, which nobody has granted.
    let mut message = Ask::new("GET", "/policies").message();
    message.attributes.as_mut().unwrap().request.as_mut().unwrap().http = None;
    assert_eq!(mesh.check_message(message.clone()).await.unwrap().reason(), "default_deny");
    message.attributes.as_mut().unwrap().request = None;
    assert_eq!(mesh.check_message(message).await.unwrap().reason(), "default_deny");
}

#[tokio::test]
async fn an_enforcer_asks_about_its_own_services_and_sources_only() {
    let mesh = Running::demo().await;
    mesh.administrator("root").await;
    let enforcer = json!({"kind": "Enforcer", "name": "local", "point": "ingress",
        "services": ["insurance/policies"], "sources": ["spiffe://tollgate.demo/ns/insurance/*"]});
    mesh.apply(vec![document(enforcer)]).await;
    let mut ask = Ask::new("GET", "/policies/1");
    assert_eq!(mesh.check(&ask).await.status(), 401);
    ask.source = "spiffe://tollgate.demo/ns/insurance/sa/payments";
    assert_eq!(mesh.check(&ask).await.status(), 401);
    ask.source = "spiffe://evil/ns/insurance/sa/payments";
    assert_eq!(mesh.try_check(&ask).await.unwrap_err().code(), Code::PermissionDenied);
    ask.source = "";
    ask.extensions[0] = ("tollgate.service", "tollgate-system/admin");
    assert_eq!(mesh.try_check(&ask).await.unwrap_err().code(), Code::PermissionDenied);
}

/// Messages that a real Envoy 1.40 has sent, as JSON.
#[tokio::test]
async fn recorded_questions_are_understood() {
    let beside = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/vectors/envoy-1.40");
    #[expect(clippy::disallowed_methods, reason = "a test may be told where its vectors are")]
    let folder = std::env::var_os("TOLLGATE_ENVOY_VECTORS").map_or(beside, PathBuf::from);
    let Ok(text) = std::fs::read_to_string(folder.join("envoy140_check.json")) else {
        println!("SKIPPED: no envoy140_check.json in {}; set TOLLGATE_ENVOY_VECTORS", folder.display());
        return;
    };
    let mesh = Running::demo().await;
    let recorded: Vec<Value> = serde_json::from_str(&text).unwrap();
    assert!(!recorded.is_empty());
    for each in recorded {
        let recorded = &each["message"]["attributes"];
        let http = &recorded["request"]["http"];
        let mut message = Ask::new("", "").message();
        let attributes = message.attributes.as_mut().unwrap();
        attributes.context_extensions =
            serde_json::from_value(recorded["context_extensions"].clone()).unwrap_or_default();
        let sent = attributes.request.as_mut().unwrap().http.as_mut().unwrap();
        let text = |name: &str| http[name].as_str().unwrap_or_default().to_owned();
        (sent.method, sent.path, sent.host) = (text("method"), text("path"), text("host"));
        (sent.scheme, sent.body, sent.id) = (text("scheme"), text("body"), text("id"));
        sent.headers = serde_json::from_value(http["headers"].clone()).unwrap();
        let answer = mesh.check_message(message).await.unwrap();
        // Nobody has a policy for these: without a token that is a 401, with a broken one as well.
        let reason = if text("headers").is_empty() && http["headers"].get("authorization").is_some() {
            "token_malformed"
        } else {
            "token_absent"
        };
        assert_eq!((answer.status(), answer.reason().as_str()), (401, reason), "{http}");
        assert_eq!(answer.body()["request_id"], http["headers"]["x-request-id"]);
    }
}
