//! Commands against the services of a running mesh by HTTPS: whom they believe, and as whom they come.

use std::process::{Command, Output};
use std::time::{Duration, Instant};

use serde_json::json;
use tollgate::up::{Mesh, Options, Ports};
use tollgate_runtime::config::Env;

use super::text;

const PATIENCE: Duration = Duration::from_secs(60);
const OPERATOR: &str = "spiffe://tollgate.demo/ns/tollgate-system/sa/operator";

fn told(output: &Output) -> String {
    text(&output.stdout) + &text(&output.stderr)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_comes_by_a_certificate_of_the_data_folder() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options {
        data: folder.path().to_owned(),
        ports: Ports::Free,
        traffic: 0,
        sets: Vec::new(),
        env: Env::empty(),
    };
    let mesh = Mesh::start(&options).await.unwrap();
    mesh.ready(PATIENCE).await.unwrap();
    let out = folder.path().join("operator");
    mesh.issue(OPERATOR, &out).await.unwrap();
    let administrator = mesh.create_administrator("me").await.unwrap();
    let token = folder.path().join("me.token");
    std::fs::write(&token, &administrator).unwrap();
    let file = |name: &str| out.join(name).display().to_string();
    let (ca, cert, key) = (file("ca.crt"), file("tls.crt"), file("tls.key"));
    let authz = mesh.addresses().authz_http;
    let https = format!("https://{authz}");
    let run = async |arguments: &[&str], env: &[(&str, &str)]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate"));
        command.args(arguments).envs(env.iter().copied());
        tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
    };
    let export = ["policy", "export", "--server", &https];
    // A new administrator is known as soon as the policy is read again.
    let (client, status) = (reqwest::Client::new(), format!("http://{authz}/v1/status"));
    let deadline = Instant::now() + PATIENCE;
    while !client.get(&status).bearer_auth(&administrator).send().await.unwrap().status().is_success() {
        assert!(Instant::now() < deadline, "the new administrator is not known");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }

    // By a token, over TLS and in plaintext on this machine.
    let token = token.display().to_string();
    let plain = format!("http://{authz}");
    for server in [&["--server", &*https, "--ca", &ca][..], &["--server", &plain]] {
        let output = run(&[&["policy", "export", "--token-file", &token][..], server].concat(), &[]).await;
        assert!(output.status.success() && told(&output).contains("name: policies"), "{}", told(&output));
    }
    // Without roots nobody is believed; without a word of who asks nothing is asked.
    let output = run(&[&export[..], &["--token-file", &token]].concat(), &[]).await;
    assert_eq!(output.status.code(), Some(1), "{}", told(&output));
    let output = run(&[&export[..], &["--ca", &ca]].concat(), &[]).await;
    assert!(told(&output).contains("--token-file or by --cert and --key"), "{}", told(&output));

    // By a certificate, which policy makes an administrator.
    let as_operator = [("TOLLGATE_CA", &*ca), ("TOLLGATE_CERT", &cert), ("TOLLGATE_KEY", &key)];
    let output = run(&export, &as_operator).await;
    assert!(told(&output).contains("401"), "{}", told(&output));
    let binding = json!({"role": "admin", "who": {"workload": OPERATOR}});
    let url = format!("http://{authz}/v1/namespaces/tollgate-system/bindings/operator");
    let put = client.put(url).bearer_auth(administrator).json(&binding).send().await.unwrap();
    assert_eq!(put.status(), 201);
    let output = run(&export, &as_operator).await;
    assert!(output.status.success() && told(&output).contains("name: policies"), "{}", told(&output));
    mesh.stop().await;
}
