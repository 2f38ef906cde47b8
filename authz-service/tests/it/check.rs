//! The demo table, as a proxy sees it.

use serde_json::json;

use crate::running::{Ask, Running, claims, now};

#[tokio::test]
async fn the_demo_table() {
    let mesh = Running::demo().await;
    let reader = mesh.token("reader", "policies:read");
    let check = async |ask: Ask<'_>, status: i32, reason: &str| {
        let answer = mesh.check(&ask).await;
        assert_eq!(
            (answer.status(), answer.reason().as_str()),
            (status, reason),
            "{} {}",
            ask.method,
            ask.path
        );
        answer
    };

    let answer = check(Ask::new("GET", "/policies/1"), 401, "token_absent").await;
    assert_eq!(answer.header("www-authenticate"), Some(r#"Bearer realm="tollgate""#));
    assert_eq!(answer.body(), json!({"request_id": "r-1", "error": "unauthenticated"}));
    assert_eq!(answer.metadata()["token"]["state"], "absent");
    assert_eq!(answer.metadata()["rule"], "default-deny");

    let invalid = Some(r#"Bearer realm="tollgate", error="invalid_token""#);
    let answer = check(Ask::new("GET", "/policies/1").bearer("broken"), 401, "token_malformed").await;
    assert_eq!(answer.header("www-authenticate"), invalid);
    let mut expired = claims("reader", "policies:read");
    expired["exp"] = json!(now() - 60);
    let answer =
        check(Ask::new("GET", "/policies/1").bearer(&mesh.signer.token(&expired)), 401, "token_expired")
            .await;
    assert_eq!(answer.header("www-authenticate"), invalid);
    assert_eq!(answer.metadata()["token"]["state"], "expired");
    assert_eq!(answer.metadata()["subject"], "reader", "its signature was good, so we know whose it was");

    let answer = check(Ask::new("GET", "/policies/1?x=1").bearer(&reader), 200, "ok").await;
    let metadata = answer.metadata();
    assert_eq!(metadata["rule"], "insurance/reader-reads → policy-reader.read");
    assert_eq!(metadata["decision"], "allow");
    assert_eq!(metadata["epoch"], 1);
    assert_eq!(metadata["issuer"], "demo");
    assert_eq!(metadata["client_id"], "web");
    assert_eq!(metadata["scopes"], json!(["policies:read"]));
    assert_eq!(metadata["groups"], json!(["staff"]));
    assert_eq!(metadata["token"]["kid"], "k1");
    assert_eq!(metadata["token"]["alg"], "ES256");
    assert_eq!(metadata["token"]["audience"], json!(["insurance"]));
    assert!(metadata.get("missing").is_none() && metadata.get("explanation").is_none());

    let without = mesh.token("reader", "profile");
    let answer = check(Ask::new("GET", "/policies/1").bearer(&without), 403, "scope_missing").await;
    assert_eq!(
        answer.header("www-authenticate"),
        Some(r#"Bearer realm="tollgate", error="insufficient_scope", scope="policies:read""#)
    );
    assert_eq!(answer.body(), json!({"request_id": "r-1", "error": "insufficient_scope"}));
    assert_eq!(answer.metadata()["missing"], json!(["scope:policies:read"]));
    let why = "role policy-reader: scope needs policies:read, token has profile";
    assert_eq!(answer.metadata()["explanation"], why);
    assert!(
        !answer.body().to_string().contains("policy-reader"),
        "the client is told no names of the policy"
    );

    let outsider = mesh.token("outsider", "policies:read");
    let answer = check(Ask::new("GET", "/policies/1").bearer(&outsider), 403, "role_missing").await;
    let missing = answer.metadata()["missing"].clone();
    assert!(missing.as_array().unwrap().contains(&json!("role:policy-reader")), "{missing}");
    assert_eq!(answer.header("www-authenticate"), None);

    let both = "policies:read policies:write";
    let answer =
        check(Ask::new("POST", "/policies").bearer(&mesh.token("reader", both)), 403, "role_missing").await;
    assert_eq!(answer.metadata()["missing"], json!(["role:policy-editor"]));
    check(Ask::new("POST", "/policies").bearer(&mesh.token("editor", both)), 200, "ok").await;
    check(Ask::new("GET", "/policies").bearer(&mesh.token("editor", both)), 200, "ok").await;
    check(Ask::new("GET", "/policies/7").bearer(&mesh.token("adjuster", both)), 200, "ok").await;
    check(Ask::new("DELETE", "/policies").bearer(&mesh.token("editor", both)), 403, "default_deny").await;
}

#[tokio::test]
async fn a_bound_token_is_held_to_the_certificate_that_the_entry_saw() {
    let mesh = Running::demo().await;
    let hash = "2ce2678958b6a580216e6ddd7b0820c10bdc2f8c4db3bb497f9015590d9fc197";
    let mut bound = claims("reader", "policies:read");
    bound["cnf"] = json!({"x5t#S256": "LOJniVi2pYAhbm3dewggwQvcL4xNs7tJf5AVWQ2fwZc"});
    let token = mesh.signer.token(&bound);
    let (ingress, quotes) = (
        "spiffe://tollgate.demo/ns/tollgate-system/sa/ingress",
        "spiffe://tollgate.demo/ns/insurance/sa/quotes",
    );
    let other = hash.replace('2', "3");
    for (source, said, reason) in [
        (ingress, Some(hash), "ok"),
        (ingress, Some(&*other), "token_binding"),
        (ingress, Some("2ce2"), "token_binding"),
        (ingress, None, "token_binding"),
        // Who is no entry forwards nobody's certificate.
        (quotes, Some(hash), "token_binding"),
    ] {
        let mut ask = Ask::new("GET", "/policies/1").bearer(&token);
        ask.extensions = vec![("tollgate.service", "insurance/policies"), ("tollgate.point", "sidecar-in")];
        ask.extensions.extend(said.map(|said| ("tollgate.client_certificate", said)));
        ask.source = source;
        assert_eq!(mesh.check(&ask).await.reason(), reason, "{source} {said:?}");
    }
}

#[tokio::test]
async fn what_is_odd_is_refused() {
    let mesh = Running::demo().await;
    let reader = mesh.token("reader", "policies:read");
    let check = async |ask: Ask<'_>, status: i32, reason: &str| {
        let answer = mesh.check(&ask).await;
        assert_eq!(
            (answer.status(), answer.reason().as_str()),
            (status, reason),
            "{} {}",
            ask.method,
            ask.path
        );
    };
    let get = |path| Ask::new("GET", path).bearer(&reader);
    // Two tokens.
    let mut twice = Ask::new("GET", "/policies/1");
    twice.headers.push(("authorization", format!("Bearer {reader},Bearer {reader}")));
    check(twice, 400, "token_ambiguous").await;
    // Paths that upstreams read differently.
    check(get("/policies/1%2F2"), 400, "ambiguous_request").await;
    check(get("/policies/%zz"), 400, "request_malformed").await;
    check(get("/x/../policies/1"), 200, "ok").await;
    check(get("/policies/%31"), 200, "ok").await;
    // A service that policy does not know, with and without a token.
    let unknown = |token: Option<&str>| {
        let mut ask = Ask::new("GET", "/policies/1");
        ask.extensions = vec![("tollgate.service", "insurance/nothing")];
        ask.headers.extend(token.map(|token| ("authorization", format!("Bearer {token}"))));
        ask
    };
    check(unknown(None), 401, "token_absent").await;
    check(unknown(Some(&reader)), 403, "default_deny").await;
    check(unknown(Some("a.b.c")), 401, "token_malformed").await;
}

#[tokio::test]
async fn a_route_may_say_how_its_ambiguous_paths_are_guarded() {
    let mesh = Running::demo().await;
    let reader = mesh.token("reader", "policies:read");
    let check = async |path, guard| {
        let mut ask = Ask::new("GET", path).bearer(&reader);
        ask.extensions.push(("tollgate.guard", guard));
        mesh.try_check(&ask).await
    };
    for (guard, status, shadow) in [
        ("deny", 400, json!(null)),
        ("log", 200, json!({"decision": "deny", "reason": "ambiguous_request"})),
        ("off", 200, json!(null)),
    ] {
        let answer = check("/policies//1", guard).await.unwrap();
        assert_eq!((answer.status(), &answer.metadata()["shadow"]), (status, &shadow), "{guard}");
        // The upstream is declared to decode slashes, and may do nothing at what it then reads.
        assert_ne!(check("/policies/1%2F..%2F..%2Fadmin", guard).await.unwrap().status(), 200, "{guard}");
    }
    assert_eq!(check("/policies/1", "perhaps").await.unwrap_err().code(), tonic::Code::InvalidArgument);
}

#[tokio::test]
async fn a_plain_envoy_is_a_gateway_and_names_services_by_host() {
    let mesh = Running::demo().await;
    let reader = mesh.token("reader", "policies:read");
    let mut ask = Ask::new("GET", "/policies/1").bearer(&reader).header("x-tollgate-subject", "root");
    (ask.extensions, ask.host) = (vec![], "Policies.Insurance:8080");
    let answer = mesh.check(&ask).await;
    assert_eq!(answer.status(), 200);
    let Some(http) = answer.0.http_response else { panic!("an answer about HTTP") };
    let debug = format!("{http:?}");
    assert!(debug.contains("x-tollgate-subject"), "what is ours to say is removed: {debug}");
}

#[tokio::test]
async fn the_caller_gate_knows_workloads_from_outsiders() {
    let mesh = Running::demo().await;
    let reader = mesh.token("reader", "policies:read");
    let mut ask = Ask::new("GET", "/policies/1").bearer(&reader);
    ask.extensions[1] = ("tollgate.point", "sidecar-in");
    ask.source = "spiffe://tollgate.demo/ns/insurance/sa/payments";
    let answer = mesh.check(&ask).await;
    assert_eq!((answer.status(), answer.reason().as_str()), (403, "caller_denied"));
    assert_eq!(answer.metadata()["rule"], "caller-gate");
    // Without a token the same is a 401.
    ask.headers.truncate(1);
    assert_eq!(mesh.check(&ask).await.status(), 401);
    // A point that does not exist is a mistake of the asker's.
    ask.extensions[1] = ("tollgate.point", "moon");
    assert_eq!(mesh.try_check(&ask).await.unwrap_err().code(), tonic::Code::InvalidArgument);
}

#[tokio::test]
async fn at_a_sidecar_the_destination_says_which_service_it_is_and_the_host_does_not() {
    let mesh = Running::demo().await;
    let service = json!({"kind": "Service", "namespace": "insurance", "name": "policies",
        "hosts": ["policies.insurance"], "spiffe_id": "spiffe://tollgate.demo/ns/insurance/sa/policies",
        "callers": ["external", "spiffe://tollgate.demo/ns/insurance/*"], "issuers": ["demo"], "audiences": ["insurance"]});
    mesh.apply(vec![serde_json::from_value(service).unwrap()]).await;
    let token = mesh.token("reader", "policies:read");
    for (point, destination, status) in [
        ("sidecar-in", "policies", 200),
        ("sidecar-in", "other", 403),
        ("ingress", "policies", 200),
        // What a gateway sends on to has no identity in this policy; there the host is what was routed by.
        ("ingress", "other", 200),
    ] {
        let mut ask = Ask::new("GET", "/policies/1").bearer(&token);
        (ask.host, ask.extensions) = ("policies.insurance", vec![("tollgate.point", point)]);
        ask.source = "spiffe://tollgate.demo/ns/insurance/sa/quotes";
        let mut message = ask.message();
        let principal = format!("spiffe://tollgate.demo/ns/insurance/sa/{destination}");
        message.attributes.as_mut().unwrap().destination.get_or_insert_default().principal = principal;
        let answer = mesh.check_message(message).await.unwrap();
        assert_eq!(answer.status(), status, "{point} {destination}: {answer:?}");
    }
}

#[tokio::test]
async fn audit_mode_forgives_a_missing_grant_and_nothing_else() {
    let mesh = Running::demo().await;
    let service = json!({"kind": "Service", "namespace": "insurance", "name": "policies", "callers": ["external"],
        "issuers": ["demo"], "audiences": ["insurance"], "mode": "audit"});
    mesh.apply(vec![serde_json::from_value(service).unwrap()]).await;
    let outsider = mesh.token("outsider", "policies:read");
    let answer = mesh.check(&Ask::new("GET", "/policies/1").bearer(&outsider)).await;
    assert_eq!((answer.status(), answer.reason().as_str()), (200, "ok"));
    assert_eq!(answer.metadata()["shadow"], json!({"decision": "deny", "reason": "role_missing"}));
    assert_eq!(mesh.check(&Ask::new("GET", "/policies/1").bearer("x")).await.status(), 401);
}

#[tokio::test]
async fn the_health_service_answers() {
    use tonic_health::pb::HealthCheckRequest;
    use tonic_health::pb::health_client::HealthClient;

    let mesh = Running::empty().await;
    let channel = tonic::transport::Channel::from_shared(format!("http://{}", mesh.addresses.grpc)).unwrap();
    let mut client = HealthClient::new(channel.connect_lazy());
    for service in ["", "envoy.service.auth.v3.Authorization"] {
        let request = HealthCheckRequest { service: service.to_owned() };
        assert_eq!(client.check(request).await.unwrap().into_inner().status, 1, "{service}");
    }
}

#[tokio::test]
async fn every_decision_is_counted() {
    let mesh = Running::demo().await;
    let reader = mesh.token("reader", "policies:read");
    mesh.check(&Ask::new("GET", "/policies/1").bearer(&reader)).await;
    mesh.check(&Ask::new("GET", "/policies/1")).await;
    let metrics = mesh.service.telemetry().render_metrics().unwrap();
    for needle in [
        r#"tollgate_authz_decisions_total{decision="allow","#,
        r#"reason="token_absent""#,
        "tollgate_policy_epoch",
        "rpc_server_call_duration",
    ] {
        assert!(metrics.contains(needle), "{needle} in:\n{metrics}");
    }
}
