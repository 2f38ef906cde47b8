//! Against a running mesh: `tollgate explain`, first of the service that decided, then of what the dashboard recorded; and
//! `tollgate policy` over the admin API.

use std::path::Path;
use std::time::{Duration, Instant};

use tollgate::demo::issuer::{Grant, Issuer};
use tollgate::up::{Mesh, Options, Ports};
use tollgate_runtime::clock::Clock;
use tollgate_runtime::config::Env;

use super::{text, tollgate};

const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_explained_by_its_request_id() {
    let folder = tempfile::tempdir().unwrap();
    let sets = vec!["ingress.authz.timeout=5s".to_owned(), "ingress.rate_limit.timeout=5s".to_owned()];
    let options =
        Options { data: folder.path().to_owned(), ports: Ports::Free, traffic: 0, sets, env: Env::empty() };
    let mesh = Mesh::start(&options).await.unwrap();
    mesh.ready(PATIENCE).await.unwrap();
    let grant = Grant {
        subject: "reader".to_owned(),
        client: "test".to_owned(),
        scopes: vec!["profile".to_owned()],
        ttl: Duration::from_secs(600),
        expired: false,
        bound_to: None,
    };
    let token = Issuer::open(folder.path()).unwrap().token(&grant, &Clock::system()).unwrap();
    let url = format!("http://{}/policies/POL-1", mesh.addresses().ingress);
    let refused = reqwest::Client::new().get(url).bearer_auth(token).send().await.unwrap();
    assert_eq!(refused.status(), 403);
    let id = refused.headers()["x-request-id"].to_str().unwrap().to_owned();

    let administrator = mesh.create_administrator("me").await.unwrap();
    let file = folder.path().join("me.token");
    std::fs::write(&file, administrator).unwrap();
    let server = format!("http://{}", mesh.addresses().authz_http);
    let (at, file) = (folder.path().to_owned(), file.to_str().unwrap().to_owned());
    let run = async |arguments: Vec<String>| {
        let at = at.clone();
        let output = tokio::task::spawn_blocking(move || {
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            tollgate(&at, &arguments)
        });
        let output = output.await.unwrap();
        (output.status.code(), text(&output.stdout) + &text(&output.stderr))
    };
    let asked =
        |more: &[&str]| [&["explain", &id], more].concat().iter().map(|one| (*one).to_owned()).collect();
    let why = "role policy-reader: scope needs policies:read, token has profile";
    let (code, told) = run(asked(&["--server", &server, "--token-file", &file])).await;
    assert!(code == Some(0) && told.contains(why), "{told}");
    assert!(
        told.contains("✗ scopes: policies:read, has profile") && told.contains("✓ caller: external"),
        "{told}"
    );
    assert!(told.contains("grant insurance/reader-reads → insurance/policy-reader.read"), "{told}");

    policy_over_the_api(&at, &server, &file).await;

    // On the data folder there is no memory of decisions, but there is the dashboard's.
    let started = Instant::now();
    let told = loop {
        let (code, told) = run(asked(&["--data", at.to_str().unwrap()])).await;
        if code == Some(0) {
            break told;
        }
        assert!(started.elapsed() < PATIENCE, "{told}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    assert!(told.contains(why) && told.contains("as the dashboard recorded it"), "{told}");
    assert!(told.contains("✗ scopes: policies:read, has profile"), "{told}");
    let (code, told) = run(["explain", "nothing", "--data", "."].map(str::to_owned).to_vec()).await;
    assert!(code == Some(1) && told.contains("nor the dashboard knows"), "{told}");
    mesh.stop().await;
}

const SHOP: &str = "kind: Service\nnamespace: shop\nname: orders\nhosts: [orders.shop]\ncallers: [external]\nissuers: [demo]\n---\n\
    kind: Role\nnamespace: shop\nname: orders-reader\npermissions:\n  \
    - {name: read, service: orders, methods: [GET], paths: [\"/orders/{id}\"]}\n---\n\
    kind: Binding\nnamespace: shop\nname: ann\nrole: orders-reader\nwho: {issuer: demo, subject: ann}\n";
/// Every `policy` command does over the API what it does on the data folder.
async fn policy_over_the_api(at: &Path, server: &str, token_file: &str) {
    std::fs::write(at.join("shop.yaml"), SHOP).unwrap();
    let run = async |arguments: &[&str], token_file: &str| {
        let remote = ["--server", server, "--token-file", token_file];
        let arguments: Vec<String> =
            ["policy"].iter().chain(arguments).chain(&remote).map(|one| (*one).to_owned()).collect();
        let at = at.to_owned();
        let output = tokio::task::spawn_blocking(move || {
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            tollgate(&at, &arguments)
        });
        let output = output.await.unwrap();
        (output.status.code(), text(&output.stdout) + &text(&output.stderr))
    };
    for (arguments, code, expected) in [
        (&["diff", "-f", "shop.yaml"][..], 0, "+ Service shop/orders"),
        (&["apply", "-f", "shop.yaml", "--reason", "a shop"], 0, "applied as epoch"),
        (&["get", "--namespace", "shop"], 0, "orders-reader"),
        (&["export", "--namespace", "shop"], 0, "orders-reader"),
        (&["history", "role/shop/orders-reader"], 0, "a shop"),
        (&["lint"], 0, ""),
        (&["who-can", "GET", "/orders/1", "--service", "shop/orders"], 0, "by shop/ann → orders-reader.read"),
        (&["can", "ann", "--issuer", "demo"], 0, "GET /orders/{id} on shop/orders"),
        // The first epoch had no administrator yet.
        (&["rollback", "1", "--dry-run"], 1, "last administrator"),
        (&["rollback", "999"], 1, "epoch"),
    ] {
        let (status, told) = run(arguments, token_file).await;
        assert!(status == Some(code) && told.contains(expected), "{arguments:?}: {told}");
    }
    std::fs::write(at.join("stranger.token"), "nobody").unwrap();
    let stranger = at.join("stranger.token");
    let (status, told) = run(&["get", "--namespace", "shop"], stranger.to_str().unwrap()).await;
    assert!(status != Some(0) && told.contains("401"), "{told}");
    let (status, told) = run(&["get"], "no-such.token").await;
    assert!(status != Some(0) && told.contains("no-such.token"), "{told}");
}
