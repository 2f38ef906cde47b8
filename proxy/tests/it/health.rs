//! Endpoints that are asked how they are: real servers that fall ill and get well again, and who gets requests meanwhile.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use serde_json::Value;
use tollgate_testkit::echo_app::EchoApp;
use tollgate_testkit::grpc::Server;
use tonic::transport::Channel;
use tonic_health::ServingStatus::{self, NotServing, Serving};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::server::{HealthReporter, health_reporter};

use crate::harness::{Mesh, Setup, endpoint};
use crate::pki::{CLIENT, PROXY, Pki};

/// A mesh whose requests all go to these endpoints, in turn, as they do by their answers to health checks alone.
async fn asked(addresses: &[SocketAddr], cluster: &str) -> Mesh {
    let addresses: Vec<_> = addresses.iter().map(|address| format!("'{address}'")).collect();
    let clusters = format!(
        ", {{name: many, endpoints: {{static: [{}]}}, balance: round_robin, outlier_detection: {{enabled: false}}, \
         health_check: {{interval: 50ms, timeout: 2s, unhealthy_threshold: 2, healthy_threshold: 2, {cluster}",
        addresses.join(", ")
    );
    let routes = "routes: [{name: a, matches: [{}], authz: off, timeout: 5s, backends: [{cluster: many}]}]";
    let listener = "limit_by_address: {per_second: 0}";
    Setup { listener, routes: Some(routes), clusters: &clusters, ..Setup::default() }.start().await
}

/// Waits until an endpoint is in this state; what its last check said.
async fn state(mesh: &Mesh, address: SocketAddr, state: &str) -> String {
    let what = format!("{address} to be {state}");
    let cluster = mesh.until("many", &what, |cluster| endpoint(cluster, address)["state"] == state).await;
    endpoint(&cluster, address)["last_check"].as_str().unwrap_or_default().to_owned()
}

/// Waits until the last check of an endpoint said this.
async fn last_check(mesh: &Mesh, address: SocketAddr, said: &str) {
    let says = |cluster: &Value| {
        endpoint(cluster, address)["last_check"].as_str().is_some_and(|text| text.contains(said))
    };
    mesh.until("many", said, says).await;
}

/// How many requests an application got that were no health checks.
fn requests(app: &EchoApp) -> usize {
    app.seen().iter().filter(|seen| seen.uri == "/a").count()
}

/// Ten requests; how many of them each application got.
async fn shares(mesh: &Mesh, apps: &[&EchoApp]) -> Vec<usize> {
    let before: Vec<usize> = apps.iter().map(|app| requests(app)).collect();
    for _ in 0..10 {
        assert_eq!(mesh.get("/a").send().await.status, 200);
    }
    apps.iter().zip(before).map(|(app, before)| requests(app) - before).collect()
}

#[tokio::test]
async fn who_answers_500_is_left_out_until_it_answers_200() {
    let (well, ill) = (EchoApp::start().await, EchoApp::start().await);
    let mesh = asked(&[well.address(), ill.address()], "ask: {http: /healthz}}}").await;
    assert_eq!(shares(&mesh, &[&well, &ill]).await, [5, 5]);
    ill.behave("status:500");
    assert_eq!(state(&mesh, ill.address(), "ill").await, "status 500");
    assert_eq!(shares(&mesh, &[&well, &ill]).await, [10, 0]);
    ill.behave("");
    assert_eq!(state(&mesh, ill.address(), "in_use").await, "well");
    assert_eq!(shares(&mesh, &[&well, &ill]).await, [5, 5]);
    // An answer that does not come is none.
    ill.behave("delay:60000");
    assert_eq!(state(&mesh, ill.address(), "ill").await, "no answer within 2s");
    assert_eq!(shares(&mesh, &[&well, &ill]).await, [10, 0]);
}

#[tokio::test]
async fn who_accepts_no_connection_is_left_out_until_it_does() {
    let well = EchoApp::start().await;
    // An address that nobody connects from, so that its port stays free.
    let gone = EchoApp::start_at("127.0.0.7:0".parse().unwrap()).await;
    let address = gone.address();
    let mesh = asked(&[well.address(), address], "ask: tcp}}").await;
    assert_eq!(shares(&mesh, &[&well, &gone]).await, [5, 5]);
    drop(gone);
    let said = state(&mesh, address, "ill").await;
    assert!(said.contains("refused"), "{said}");
    assert_eq!(shares(&mesh, &[&well]).await, [10]);
    let back = EchoApp::start_at(address).await;
    assert_eq!(state(&mesh, address, "in_use").await, "well");
    assert_eq!(shares(&mesh, &[&well, &back]).await, [5, 5]);
}

/// A gRPC server that says of itself, as a whole, what it is told to, and of `shop.Orders` that it serves.
async fn orders(itself: ServingStatus) -> (HealthReporter, Server) {
    let (reporter, health) = health_reporter();
    reporter.set_service_status("", itself).await;
    reporter.set_service_status("shop.Orders", Serving).await;
    (reporter, Server::start(health).await)
}

/// What those that get requests say of themselves as a whole.
async fn answering(mesh: &Mesh) -> BTreeSet<i32> {
    let channel = Channel::from_shared(format!("http://{}", mesh.address)).unwrap().connect().await.unwrap();
    let mut client = HealthClient::new(channel);
    let mut statuses = BTreeSet::new();
    for _ in 0..10 {
        let answer = client.check(HealthCheckRequest { service: String::new() }).await.unwrap();
        statuses.insert(answer.into_inner().status);
    }
    statuses
}

#[tokio::test]
async fn a_grpc_server_says_itself_whether_it_serves() {
    // Requests tell the two apart by what they say as a whole; the proxy asks about one service.
    let ((one_says, one), (mut other_says, other)) = (orders(Serving).await, orders(NotServing).await);
    let (serving, not_serving) = (Serving as i32, NotServing as i32);
    let mesh = asked(&[one.address(), other.address()], "ask: {grpc: shop.Orders}}, protocol: h2}").await;
    last_check(&mesh, other.address(), "well").await;
    assert_eq!(answering(&mesh).await, BTreeSet::from([serving, not_serving]));

    other_says.set_service_status("shop.Orders", NotServing).await;
    assert_eq!(state(&mesh, other.address(), "ill").await, format!("serving status {not_serving}"));
    assert_eq!(answering(&mesh).await, BTreeSet::from([serving]));

    other_says.set_service_status("shop.Orders", Serving).await;
    assert_eq!(state(&mesh, other.address(), "in_use").await, "well");
    assert_eq!(answering(&mesh).await, BTreeSet::from([serving, not_serving]));

    // Who does not know the service does not serve it.
    other_says.clear_service_status("shop.Orders").await;
    let said = state(&mesh, other.address(), "ill").await;
    assert!(said.contains("not found"), "{said}");

    // When nobody serves, somebody has to be asked all the same.
    one_says.set_service_status("shop.Orders", NotServing).await;
    state(&mesh, one.address(), "ill").await;
    mesh.until("many", "panic", |cluster| cluster["panic"] == true && cluster["usable"] == 0).await;
    assert_eq!(answering(&mesh).await, BTreeSet::from([serving, not_serving]));
}

#[tokio::test]
async fn who_speaks_http2_alone_is_asked_over_http2() {
    let (_says, server) = orders(Serving).await;
    // What a gRPC server does not know it answers 200, with the rest in `grpc-status`.
    let mesh = asked(&[server.address()], "ask: {http: /healthz}}, protocol: h2}").await;
    last_check(&mesh, server.address(), "well").await;
}

#[tokio::test]
async fn checks_are_asked_in_the_clusters_protocol_and_by_its_certificates() {
    let pki = Pki::new();
    let top = pki.identity("sidecar", PROXY);
    let sidecar =
        Setup { top: &top, listener: "role: sidecar, mtls: strict", ..Setup::default() }.start().await;
    for protocol in ["h1", "h2"] {
        for (ask, by) in
            [("{http: /healthz}", PROXY), ("{http: /nowhere}", PROXY), ("tcp", PROXY), ("tcp", CLIENT)]
        {
            let clusters = format!(
                ", {{name: many, endpoints: {{static: ['{}']}}, protocol: {protocol}, tls: {{spiffe_ids: ['{by}']}}, \
                 health_check: {{ask: {ask}, interval: 50ms, timeout: 5s, unhealthy_threshold: 1}}}}",
                sidecar.address
            );
            let top = pki.identity("ingress", "spiffe://test.example/ns/shop/sa/ingress");
            let mesh = Setup { top: &top, clusters: &clusters, ..Setup::default() }.start().await;
            let said = match (ask, by) {
                ("{http: /nowhere}", _) => "status 404",
                (_, CLIENT) => "certificate",
                _ => "well",
            };
            last_check(&mesh, sidecar.address, said).await;
            let ill = state(&mesh, sidecar.address, if said == "well" { "in_use" } else { "ill" }).await;
            assert!(ill.contains(said), "{protocol} {ask} {by}: {ill}");
        }
    }
}
