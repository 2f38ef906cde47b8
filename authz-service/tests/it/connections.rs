//! A Check without a request, as Envoy's filter for TCP and our TCP listeners send it.

use serde_json::json;
use tollgate_proto::envoy_types::pb::envoy::service::auth::v3::CheckRequest;
use tollgate_proto::envoy_types::pb::envoy::service::auth::v3::attribute_context::{Peer, TlsSession};

use crate::running::Running;

fn id(name: &str) -> String {
    format!("spiffe://tollgate.demo/ns/insurance/sa/{name}")
}

/// What a workload's connection looks like.
fn connection(source: &str, server_name: &str, extensions: &[(&str, &str)]) -> CheckRequest {
    let mut check = CheckRequest::default();
    let attributes = check.attributes.get_or_insert_default();
    attributes.source = Some(Peer { principal: source.to_owned(), ..Peer::default() });
    attributes.tls_session = Some(TlsSession { sni: server_name.to_owned() });
    attributes.context_extensions =
        extensions.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    check
}

async fn mesh() -> Running {
    let mesh = Running::demo().await;
    let caller = id("ledger-reader");
    let objects = json!([
        {"kind": "Service", "namespace": "insurance", "name": "ledger", "hosts": ["ledger.insurance"],
            "spiffe_id": id("ledger"), "callers": [caller, id("onlooker")]},
        {"kind": "Role", "namespace": "insurance", "name": "ledger-client", "permissions": [
            {"name": "open", "service": "ledger", "methods": ["CONNECT"], "paths": ["/"]}]},
        {"kind": "Binding", "namespace": "insurance", "name": "reader-opens", "role": "ledger-client",
            "who": {"workload": caller}},
    ]);
    mesh.apply(serde_json::from_value(objects).unwrap()).await;
    mesh
}

#[tokio::test]
async fn a_connection_is_granted_by_the_method_connect() {
    let mesh = mesh().await;
    let said = &[("tollgate.service", "insurance/ledger"), ("tollgate.point", "sidecar-in")][..];
    for (source, server_name, extensions, code, reason) in [
        ("ledger-reader", "", said, 0, "ok"),
        // Whoever may call and has no role is told apart from who may not call at all; nobody is asked for a token.
        ("onlooker", "", said, 7, "role_missing"),
        ("policies", "", said, 7, "caller_denied"),
        // Without a word about the service, the server name says which it is.
        ("ledger-reader", "ledger.insurance", &[("tollgate.point", "sidecar-in")], 0, "ok"),
        ("ledger-reader", "unknown.insurance", &[("tollgate.point", "sidecar-in")], 7, "default_deny"),
        // Roles that speak of requests alone open no connection.
        ("ledger-reader", "", &[("tollgate.service", "insurance/policies")], 7, "default_deny"),
    ] {
        let answer = mesh.check_message(connection(&id(source), server_name, extensions)).await.unwrap();
        let got = (answer.0.status.as_ref().unwrap().code, answer.reason());
        assert_eq!(got, (code, reason.to_owned()), "{source} {server_name} {extensions:?}");
    }
    let anonymous = mesh.check_message(connection("", "", said)).await.unwrap();
    assert_eq!(anonymous.reason(), "caller_denied");
}

#[tokio::test]
async fn a_revoked_workload_opens_no_connection() {
    let mesh = mesh().await;
    let ask = || connection(&id("ledger-reader"), "ledger.insurance", &[("tollgate.point", "sidecar-in")]);
    assert_eq!(mesh.check_message(ask()).await.unwrap().reason(), "ok");
    let revocation = json!([{"kind": "Revocation", "name": "stolen", "workload": id("ledger-reader"), "until": "2999-01-01T00:00:00Z"}]);
    mesh.apply(serde_json::from_value(revocation).unwrap()).await;
    assert_eq!(mesh.check_message(ask()).await.unwrap().reason(), "certificate_revoked");
}
