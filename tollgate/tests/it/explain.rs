//! `tollgate explain` against a running mesh: first the service that decided, then what the dashboard recorded.

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
