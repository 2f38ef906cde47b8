//! Requests for which everything works.

use tollgate_testkit::fake_authz::{allow, deny, header};
use tollgate_testkit::fake_ratelimit::over;

use tollgate_runtime::Service;

use crate::harness::{Mesh, Setup, parse, run};

#[tokio::test]
async fn an_allowed_request_reaches_the_app() {
    let mesh = Mesh::start().await;
    let answer = mesh.get("/policies/17?full=1").bearer("reader").header("x-user-agent", "t").send().await;
    assert_eq!(answer.status, 200);
    assert!(answer.body.contains("\"service\":\"policies\""), "{}", answer.body);
    let id = answer.header("x-request-id").unwrap().to_owned();

    let seen = mesh.app.seen().remove(0);
    assert_eq!(seen.uri, "/policies/17?full=1");
    let said = |name: &str| seen.headers.get(name).map(|value| value.to_str().unwrap());
    assert_eq!(said("host"), Some("policies.insurance"));
    assert_eq!(said("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(said("x-forwarded-proto"), Some("http"));
    assert_eq!(said("x-forwarded-host"), Some("policies.insurance"));
    assert_eq!(said("x-request-id"), Some(id.as_str()));
    assert_eq!(said("x-user-agent"), Some("t"));

    let question = mesh.authz.questions().remove(0);
    assert_eq!(header(&question, ":path"), Some("/policies/17?full=1"));
    assert_eq!(header(&question, "x-request-id"), Some(id.as_str()));
    let attributes = question.attributes.unwrap();
    let extension = |name: &str| attributes.context_extensions.get(name).map(String::as_str);
    assert_eq!(extension("tollgate.service"), Some("insurance/policies"));
    assert_eq!(extension("tollgate.route"), Some("policies"));
    assert_eq!(extension("tollgate.point"), Some("ingress"));
    let http = attributes.request.unwrap().http.unwrap();
    assert_eq!((http.id, http.method.as_str(), http.host.as_str()), (id, "GET", "policies.insurance"));

    let counted = mesh.limiter.questions().remove(0);
    assert_eq!(counted.domain, "insurance");
    let entry = &counted.descriptors[0].entries[0];
    assert_eq!((entry.key.as_str(), entry.value.as_str()), ("subject", "reader"));
}

#[tokio::test]
async fn a_refusal_is_authorizations_own_words() {
    let mesh = Mesh::start().await;
    let answer = mesh.get("/policies/17").send().await;
    assert_eq!(answer.status, 401);
    assert_eq!(answer.header("www-authenticate"), Some("Bearer realm=\"tollgate\""));
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert!(answer.body.contains("request_id"));
    assert!(mesh.app.seen().is_empty());
    assert!(mesh.limiter.questions().is_empty());
}

#[tokio::test]
async fn grpc_callers_get_a_trailers_only_answer() {
    let mesh = Mesh::start().await;
    for (status, code) in [(401, "16"), (403, "7")] {
        mesh.authz.answer(move |_| Ok(deny(status, "scope_missing", "no")));
        let answer =
            mesh.post("/policies", "").header("content-type", "application/grpc").http2().send().await;
        assert_eq!((answer.status.as_u16(), answer.header("grpc-status")), (200, Some(code)));
        assert_eq!(answer.body, "");
    }
}

#[tokio::test]
async fn what_no_route_matches_is_never_forwarded() {
    let mesh = Mesh::start().await;
    for path in ["/", "/policies/1/2", "/admin", "/openly"] {
        let answer = mesh.get(path).bearer("reader").send().await;
        assert_eq!((answer.status.as_u16(), answer.reason().as_str()), (404, "no_route"), "{path}");
    }
    assert!(mesh.app.seen().is_empty() && mesh.authz.questions().is_empty());
}

#[tokio::test]
async fn clients_cannot_speak_for_the_proxy() {
    let mesh = Mesh::start().await;
    let answer = mesh
        .get("/open/x")
        .header("x-tollgate-subject", "root")
        .header("x-forwarded-for", "6.6.6.6")
        .header("x-forwarded-client-cert", "By=root")
        .header("forwarded", "for=6.6.6.6")
        .header("x-request-id", "chosen-by-client")
        .header("connection", "x-hop")
        .header("x-hop", "1")
        .send()
        .await;
    assert_eq!(answer.status, 200);
    let seen = mesh.app.seen().remove(0).headers;
    for name in ["x-tollgate-subject", "x-forwarded-client-cert", "forwarded", "x-hop", "connection"] {
        assert!(!seen.contains_key(name), "{name}: {seen:?}");
    }
    assert_eq!(seen.get("x-forwarded-for").unwrap(), "127.0.0.1");
    assert_ne!(seen.get("x-request-id").unwrap(), "chosen-by-client");
}

#[tokio::test]
async fn a_sidecar_keeps_what_the_ingress_said() {
    let mesh = Setup { listener: "role: sidecar", ..Setup::default() }.start().await;
    let answer = mesh
        .get("/open/x")
        .header("x-request-id", "0192-from-ingress")
        .header("x-forwarded-for", "192.0.2.1")
        .header("x-tollgate-subject", "root")
        .send()
        .await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("x-request-id"), None);
    let seen = mesh.app.seen().remove(0).headers;
    assert_eq!(seen.get("x-request-id").unwrap(), "0192-from-ingress");
    assert_eq!(seen.get("x-forwarded-for").unwrap(), "192.0.2.1");
    assert!(!seen.contains_key("x-tollgate-subject"));
}

#[tokio::test]
async fn authorization_may_change_headers() {
    use tollgate_proto::envoy_types::pb::envoy::config::core::v3::{HeaderValue, HeaderValueOption};
    use tollgate_proto::envoy_types::pb::envoy::service::auth::v3::OkHttpResponse;
    use tollgate_proto::envoy_types::pb::envoy::service::auth::v3::check_response::HttpResponse;

    let mesh = Mesh::start().await;
    mesh.authz.answer(|_| {
        let option = |key: &str, value: &str| HeaderValueOption {
            header: Some(HeaderValue { key: key.into(), value: value.into(), ..Default::default() }),
            ..Default::default()
        };
        let mut answer = allow("reader");
        answer.http_response = Some(HttpResponse::OkResponse(OkHttpResponse {
            headers: vec![option("x-user", "reader"), option(":path", "/admin"), option("host", "evil")],
            headers_to_remove: vec!["authorization".into()],
            response_headers_to_add: vec![option("x-decided", "yes")],
            ..Default::default()
        }));
        Ok(answer)
    });
    let answer = mesh.get("/policies/17").bearer("t").send().await;
    assert_eq!(answer.header("x-decided"), Some("yes"));
    let seen = mesh.app.seen().remove(0);
    assert_eq!(
        (seen.uri.path(), seen.headers.get("x-user").unwrap().as_bytes()),
        ("/policies/17", &b"reader"[..])
    );
    assert_eq!(seen.headers.get("host").unwrap(), "policies.insurance");
    assert!(!seen.headers.contains_key("authorization"));
}

#[tokio::test]
async fn a_full_limit_is_429_with_its_headers() {
    let mesh = Mesh::start().await;
    let fine = mesh.get("/policies").bearer("reader").send().await;
    assert_eq!(fine.header("x-ratelimit-limit"), Some("20, 20;w=1;name=\"subject\""));
    assert_eq!(fine.header("x-ratelimit-remaining"), Some("19"));
    mesh.limiter.answer(|_| Ok(over(20, 7)));
    let answer = mesh.get("/policies").bearer("reader").send().await;
    assert_eq!((answer.status.as_u16(), answer.reason().as_str()), (429, "limit_exceeded"));
    assert_eq!(answer.header("retry-after"), Some("7"));
    assert_eq!(answer.header("x-ratelimit-remaining"), Some("0"));
    assert_eq!(answer.header("x-ratelimit-reset"), Some("7"));
    assert!(answer.body.contains(answer.header("x-request-id").unwrap()));
    assert_eq!(mesh.app.seen().len(), 1);
}

#[tokio::test]
async fn bodies_go_through_whole() {
    let mesh = Mesh::start().await;
    let body = "x".repeat(300_000);
    let answer = mesh.post("/open/upload", &body).send().await;
    assert_eq!(answer.status, 200);
    assert_eq!(mesh.app.seen()[0].body.len(), body.len());
    let big = mesh.get("/open/x").header("x-behave", "big:1000000").send().await;
    assert_eq!(big.body.len(), 1_000_000);
    let http2 = mesh.post("/open/upload", &body).http2().send().await;
    assert_eq!(http2.status, 200);
    assert_eq!(mesh.app.seen()[2].body.len(), body.len());
}

#[tokio::test]
async fn trailers_pass_from_http2_to_http2() {
    let mesh = Setup { cluster: "protocol: h2", ..Setup::default() }.start().await;
    let answer = mesh
        .post("/open/grpc", "m")
        .header("x-behave", "trailers")
        .header("te", "trailers")
        .http2()
        .send()
        .await;
    assert_eq!(answer.trailers.unwrap().get("grpc-status").unwrap(), "0");
    let seen = mesh.app.seen().remove(0);
    assert_eq!(seen.version, http::Version::HTTP_2);
    assert_eq!(seen.uri.authority().unwrap(), "policies.insurance");
    assert_eq!(seen.headers.get("te").unwrap(), "trailers");
    let plain = mesh.get("/open/x").send().await;
    assert_eq!(plain.status, 200);
    assert_eq!(mesh.app.connections(), 1);
}

#[tokio::test]
async fn the_upstreams_hop_by_hop_headers_stop_here() {
    let mesh = Mesh::start().await;
    let answer = mesh.get("/open/x").header("x-behave", "hop").send().await;
    for name in ["x-secret-hop", "keep-alive"] {
        assert_eq!(answer.header(name), None, "{name}");
    }
}

#[tokio::test]
async fn connections_to_the_upstream_are_used_again() {
    let mesh = Mesh::start().await;
    for _ in 0..50 {
        assert_eq!(mesh.get("/open/x").send().await.status, 200);
    }
    assert_eq!(mesh.app.seen().len(), 50);
    assert_eq!(mesh.app.connections(), 1);
}

#[tokio::test]
async fn health_is_the_proxys_own_answer() {
    let mesh = Mesh::start().await;
    let blocker = mesh.service.readiness().blocker("test");
    let waiting = mesh.get("/healthz").send().await;
    assert_eq!(waiting.status, 503);
    drop(blocker);
    let ready = mesh.get("/healthz").send().await;
    assert_eq!((ready.status.as_u16(), ready.body.as_str()), (200, "ok\n"));
    assert!(mesh.authz.questions().is_empty() && mesh.app.seen().is_empty());
}

#[tokio::test]
async fn head_requests_and_empty_answers() {
    let mesh = Mesh::start().await;
    let mut call = crate::harness::Call::new(mesh.address, "HEAD", "/open/x");
    call = call.header("x-behave", "big:100");
    let answer = call.send().await;
    assert_eq!((answer.status.as_u16(), answer.body.as_str()), (200, ""));
    let none = mesh.get("/open/x").header("x-behave", "status:204").send().await;
    assert_eq!(none.status, 204);
}

#[tokio::test]
async fn a_route_says_how_its_ambiguous_paths_are_guarded() {
    let mesh = Mesh::start().await;
    let yaml = Setup::default().yaml(mesh.authz.address(), mesh.limiter.address(), mesh.app.address());
    for (written, said) in [("{guard: log}", Some("log")), ("{guard: off}", Some("off")), ("on", None)] {
        let guarded = yaml.replacen("authz: {on_error: allow}", &format!("authz: {written}"), 1);
        let (address, _running) = run(parse(&guarded), Service::for_test("ingress")).await;
        let answer = crate::harness::Call::new(address, "GET", "/forgiving//x").bearer("reader").send().await;
        assert_eq!(answer.status, 200);
        let attributes = mesh.authz.questions().pop().unwrap().attributes.unwrap();
        let guard = attributes.context_extensions.get("tollgate.guard").map(String::as_str);
        assert_eq!(guard, said, "{written}");
    }
}
