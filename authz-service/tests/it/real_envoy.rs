//! A real, unmodified Envoy 1.40 does with our answers what they mean (the cases az-… are those that were measured).

use std::net::SocketAddr;

use axum::http::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tollgate_testkit::echo_app::{EchoApp, Seen};
use tollgate_testkit::envoy::Envoy;
use tollgate_testkit::fake_ratelimit::FakeRateLimit;

use crate::running::{ISSUER, Running, claims};

/// Our service, an Envoy that asks it, and what is behind the Envoy.
struct Chain {
    mesh: Running,
    envoy: Envoy,
    upstream: EchoApp,
    limits: FakeRateLimit,
    client: reqwest::Client,
}

impl Chain {
    /// `filter` is laid over the configuration of the `ext_authz` filter.
    async fn start(filter: Value) -> Self {
        let mesh = Running::demo().await;
        let documents = [
            json!({"kind": "Issuer", "name": "demo", "issuer": ISSUER, "jwks": mesh.signer.jwks(), "strip": true,
                "token_places": [{"header": "authorization"}, {"query": "access_token"}, {"cookie": "session"}],
                "claim_headers": [{"claim": "sub", "header": "x-user"}, {"claim": "note", "header": "x-note"}],
                "claim_parameters": [{"claim": "tier", "parameter": "tier"}],
                "metadata_claims": ["tier"]}),
            json!({"kind": "Issuer", "name": "gone", "issuer": "https://gone", "jwks_url": "http://127.0.0.1:1/"}),
            json!({"kind": "Service", "namespace": "insurance", "name": "policies", "callers": ["external"],
                "issuers": ["demo", "gone"], "audiences": ["insurance"], "login": {"url": "https://login.example/"}}),
        ];
        mesh.apply(documents.map(|json| serde_json::from_value(json).unwrap()).into()).await;
        let (upstream, limits) = (EchoApp::start().await, FakeRateLimit::start().await);
        let (authz, limiter, app) = (mesh.addresses.grpc, limits.address(), upstream.address());
        let start =
            move || Envoy::start_from(1, |own, admin| bootstrap(own, admin, [authz, limiter, app], filter));
        let envoy = tokio::task::spawn_blocking(start).await.unwrap();
        let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
        Self { mesh, envoy, upstream, limits, client }
    }

    fn get(&self, path: &str) -> reqwest::RequestBuilder {
        self.client.get(format!("http://{}{path}", self.envoy.address()))
    }

    /// Sends what must pass; answers what the upstream got.
    async fn passes(&self, request: reqwest::RequestBuilder) -> Seen {
        let before = self.upstream.seen().len();
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), 200, "{answer:?}");
        let seen = self.upstream.seen();
        assert_eq!(seen.len(), before + 1);
        seen.into_iter().next_back().unwrap()
    }

    /// A request that no client library would send; answers the status line.
    async fn raw(&self, head: &str) -> String {
        let mut stream = TcpStream::connect(self.envoy.address()).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer.lines().next().unwrap_or_default().to_owned()
    }

    fn reader(&self) -> String {
        self.mesh.token("reader", "policies:read")
    }
}

fn bootstrap(own: SocketAddr, admin: SocketAddr, behind: [SocketAddr; 3], filter: Value) -> String {
    let at = |address: SocketAddr| json!({"socket_address": {"address": address.ip(), "port_value": address.port()}});
    let cluster = |name: &str, address: SocketAddr, http2: bool| {
        let mut cluster = json!({"name": name, "type": "STATIC", "connect_timeout": "1s",
            "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [{"endpoint": {"address": at(address)}}]}]}});
        if http2 {
            cluster["typed_extension_protocol_options"] = json!({"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {"http2_protocol_options": {}}}});
        }
        cluster
    };
    let of_route = |extensions: Value| {
        json!({"ext_authz": {"@type": "type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute",
            "check_settings": {"context_extensions": extensions}}})
    };
    let ours = |path: &[&str]| -> Value { path.iter().map(|key| json!({"key": key})).collect() };
    let limit = |key: &str, path: &[&str]| {
        json!({"metadata": {"descriptor_key": key,
            "metadata_key": {"key": "envoy.filters.http.ext_authz", "path": ours(path)}}})
    };
    let limited = json!([{"actions": [limit("subject", &["tollgate", "subject"]), limit("tier", &["tollgate", "claims", "tier"])]}]);
    let policies = json!({"tollgate.service": "insurance/policies", "tollgate.point": "ingress"});
    let payments = json!({"tollgate.service": "insurance/payments", "tollgate.point": "ingress"});
    let routes = json!([
        {"match": {"connect_matcher": {}}, "route": {"cluster": "upstream"}, "typed_per_filter_config": of_route(policies.clone())},
        {"match": {"prefix": "/payments"}, "route": {"cluster": "upstream"}, "typed_per_filter_config": of_route(payments)},
        {"match": {"prefix": "/mistaken"}, "route": {"cluster": "upstream"},
            "typed_per_filter_config": of_route(json!({"tollgate.service": "insurance/policies", "tollgate.point": "moon"}))},
        {"match": {"prefix": "/open"}, "route": {"cluster": "upstream"}, "typed_per_filter_config": {"ext_authz": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute", "disabled": true}}},
        {"match": {"prefix": "/"}, "route": {"cluster": "upstream", "rate_limits": limited}, "typed_per_filter_config": of_route(policies)},
    ]);
    let mut authz = json!({"@type": "type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz",
        "transport_api_version": "V3",
        "grpc_service": {"envoy_grpc": {"cluster_name": "authz"}, "timeout": "5s"}});
    authz.as_object_mut().unwrap().extend(filter.as_object().unwrap().clone());
    let ratelimit = json!({"@type": "type.googleapis.com/envoy.extensions.filters.http.ratelimit.v3.RateLimit",
        "domain": "insurance", "timeout": "5s",
        "rate_limit_service": {"transport_api_version": "V3", "grpc_service": {"envoy_grpc": {"cluster_name": "ratelimit"}}}});
    let manager = json!({
    "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
    "stat_prefix": "in", "upgrade_configs": [{"upgrade_type": "CONNECT"}],
    "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]},
    "http_filters": [
        {"name": "ext_authz", "typed_config": authz},
        {"name": "ratelimit", "typed_config": ratelimit},
        {"name": "router", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}},
    ]});
    json!({
        "admin": {"address": at(admin)},
        "static_resources": {
            "listeners": [{"name": "in", "address": at(own),
                "filter_chains": [{"filters": [{"name": "hcm", "typed_config": manager}]}]}],
            "clusters": [cluster("authz", behind[0], true), cluster("ratelimit", behind[1], true),
                cluster("upstream", behind[2], false)],
        },
    })
    .to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_allow_changes_the_request_as_told() {
    let chain = Chain::start(json!({})).await;
    let reader = chain.reader();
    // az-14, az-15: a claim overwrites what the client said, the token and look-alikes are gone.
    let request =
        chain.get("/policies/1").bearer_auth(&reader).header("x-user", "root").header("x-tollgate-a", "b");
    let seen = chain.passes(request).await;
    assert_eq!(seen.headers.get_all("x-user").iter().collect::<Vec<_>>(), ["reader"]);
    assert!(!seen.headers.contains_key("authorization") && !seen.headers.contains_key("x-tollgate-a"));
    // az-16: one parameter is taken out with the token in it, one is set, the others stay.
    let mut said = claims("reader", "policies:read");
    said["tier"] = json!("gold & silver");
    let token = chain.mesh.signer.token(&said);
    let path = format!("/policies/1?b=2&tier=mine&access_token={token}&%74ier=mine&a=1");
    let seen = chain.passes(chain.get(&path)).await;
    assert_eq!(seen.uri.query(), Some("a=1&b=2&tier=gold%20%26%20silver"));
    // Nothing to say, nothing said.
    let seen = chain.passes(chain.get("/policies/1?tier=mine").bearer_auth(&reader)).await;
    assert_eq!(seen.uri, "/policies/1");
    let request = chain.get("/policies/1").header("cookie", format!("a=1; session={reader}; b=2"));
    assert_eq!(chain.passes(request).await.headers["cookie"], "a=1; b=2");
    // az-20: a claim that would break out of its header, or have Envoy refuse the answer.
    said["note"] = json!("a\r\nx-admin: 1");
    let seen = chain.passes(chain.get("/policies/1").bearer_auth(chain.mesh.signer.token(&said))).await;
    assert_eq!(seen.headers["x-note"], "a%0D%0Ax-admin: 1");
    assert!(!seen.headers.contains_key("x-admin"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_reaches_the_client_as_it_was_said() {
    let chain = Chain::start(json!({})).await;
    // az-03: status, headers and body.
    let refused = chain.get("/policies/1").send().await.unwrap();
    assert_eq!(refused.status(), 401);
    assert_eq!(refused.headers()["www-authenticate"], r#"Bearer realm="tollgate""#);
    assert_eq!(refused.headers()["content-type"], "application/json");
    assert_eq!(refused.json::<Value>().await.unwrap()["error"], "unauthenticated");
    let outsider = chain.mesh.token("outsider", "policies:read");
    assert_eq!(chain.get("/policies/1").bearer_auth(outsider).send().await.unwrap().status(), 403);
    // az-09.
    let login = chain.get("/policies/1").header("accept", "text/html").send().await.unwrap();
    assert_eq!(login.status(), 302);
    assert_eq!(login.headers()["location"], "https://login.example/");
    // az-10: what we cannot say is an error, with our status.
    let mut said = claims("reader", "policies:read");
    said["iss"] = json!("https://gone");
    let failed = chain.get("/policies/1").bearer_auth(chain.mesh.signer.token(&said)).send().await.unwrap();
    assert_eq!((failed.status().as_u16(), failed.headers().contains_key("retry-after")), (503, true));
    // az-11: a mistake in Envoy's own configuration is its operator's, and closed.
    let mistaken = chain.get("/mistaken").bearer_auth(chain.reader()).send().await.unwrap();
    assert_eq!(mistaken.status(), 403);
    // az-13: gRPC callers get a status of theirs, also where Envoy alone would call it an internal error.
    for (path, code, message) in [("/policies/1", "16", "unauthenticated"), ("/%zz", "3", "invalid_request")]
    {
        let answer = chain.get(path).header("content-type", "application/grpc").send().await.unwrap();
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()["grpc-status"], code, "{path}");
        assert!(answer.headers()["grpc-message"].to_str().unwrap().contains(message));
        assert_eq!(answer.headers()["content-type"], "application/grpc");
    }
    assert!(chain.upstream.seen().is_empty());
    // And one who may passes.
    let request =
        chain.get("/policies/1").header("content-type", "application/grpc").bearer_auth(chain.reader());
    chain.passes(request).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_says_its_service_and_limits_read_our_metadata() {
    let chain = Chain::start(json!({})).await;
    let mut said = claims("reader", "policies:read");
    said["tier"] = json!("gold");
    chain.passes(chain.get("/policies/1").bearer_auth(chain.mesh.signer.token(&said))).await;
    let asked = chain.limits.questions();
    let entries =
        asked[0].descriptors[0].entries.iter().map(|entry| (entry.key.as_str(), entry.value.as_str()));
    assert_eq!(entries.collect::<Vec<_>>(), [("subject", "reader"), ("tier", "gold")]);
    // The same token, where it may do nothing: another service, by the route's context extensions.
    let elsewhere = chain.get("/payments").bearer_auth(chain.reader()).send().await.unwrap();
    assert_eq!(elsewhere.status(), 403);
    // A route that asks nobody, asks nobody.
    chain.passes(chain.get("/open")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn raw_headers_and_bodies_come_along() {
    let body = json!({"max_request_bytes": 64, "allow_partial_message": true, "pack_as_bytes": true});
    for filter in [
        json!({"encode_raw_headers": true, "with_request_body": body}),
        json!({"with_request_body": {"max_request_bytes": 64, "allow_partial_message": true}}),
    ] {
        let chain = Chain::start(filter.clone()).await;
        let editor = chain.mesh.token("editor", "policies:write");
        let url = format!("http://{}/policies", chain.envoy.address());
        let create = || chain.client.request(Method::POST, &url).body(vec![0xff_u8; 1000]);
        let seen = chain.passes(create().bearer_auth(&editor).header("x-user", "root")).await;
        assert_eq!(seen.body.len(), 1000, "{filter}");
        assert_eq!(seen.headers.get_all("x-user").iter().collect::<Vec<_>>(), ["editor"], "{filter}");
        assert_eq!(create().send().await.unwrap().status(), 401, "{filter}");
        // Two tokens in two lines.
        let twice = create().bearer_auth(&editor).bearer_auth(&editor).send().await.unwrap();
        assert_eq!(twice.status(), 400, "{filter}");
        // Bytes that are no text.
        let odd = reqwest::header::HeaderValue::from_bytes(b"\xff\xfe").unwrap();
        let seen = chain.passes(create().bearer_auth(&editor).header("x-odd", odd)).await;
        assert!(seen.headers.contains_key("x-odd"), "{filter}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_no_path_is_refused_and_breaks_nothing() {
    let chain = Chain::start(json!({})).await;
    let token = chain.reader();
    let rest =
        format!("host: policies.insurance\r\nauthorization: Bearer {token}\r\nconnection: close\r\n\r\n");
    // What no route of Envoy's fits never gets to a filter; `*` in a Check is a test of `envoy`.
    for (line, code) in [("CONNECT policies.insurance:443", "400"), ("OPTIONS *", "404")] {
        let status = chain.raw(&format!("{line} HTTP/1.1\r\n{rest}")).await;
        assert!(status.contains(code), "{line}: {status}");
    }
    assert!(chain.upstream.seen().is_empty());
    chain.passes(chain.get("/policies/1").bearer_auth(&token)).await;
}
