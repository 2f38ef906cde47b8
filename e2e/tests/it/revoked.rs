//! A certificate that is revoked: refused at the next request on the connection it has, and in every handshake after that.

use http::StatusCode;
use serde_json::{Value, json};
use tollgate_e2e::{Demo, eventually};

const ME: &str = "spiffe://tollgate.demo/ns/insurance/sa/me";

/// What a connection of its own is answered, by the certificate that lies in the folder of clients.
async fn ask(demo: &Demo, pem: &[u8], root: &[u8]) -> Result<StatusCode, String> {
    let client = reqwest::Client::builder()
        .tls_certs_only([reqwest::Certificate::from_pem(root).unwrap()])
        .identity(reqwest::Identity::from_pem(pem).unwrap())
        .build()
        .unwrap();
    let url = format!("https://localhost:{}/policies/POL-1", demo.mesh.addresses().ingress_mtls.port());
    let token = demo.token("reader", &["policies:read"]);
    let answer = client.get(url).bearer_auth(token).send().await;
    answer.map(|answer| answer.status()).map_err(|error| format!("{error:?}"))
}

fn shown(demo: &Demo) -> (Vec<u8>, Vec<u8>) {
    let read = |name: &str| std::fs::read(demo.data().join("clients/me").join(name)).unwrap();
    ([read("tls.crt"), read("tls.key")].concat(), read("ca.crt"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_certificate_ends_at_the_next_check_and_handshake() {
    let demo = Demo::start().await;
    let kept = demo.workload(ME).await;
    let (stolen, root) = shown(&demo);
    let url = format!("https://localhost:{}/policies/POL-1", demo.mesh.addresses().ingress_mtls.port());
    let token = demo.token("reader", &["policies:read"]);
    let by_kept = async || kept.get(&url).bearer_auth(&token).send().await.map(|answer| answer.status());
    assert_eq!(by_kept().await.unwrap(), StatusCode::OK);
    assert_eq!(ask(&demo, &stolen, &root).await, Ok(StatusCode::OK));

    let admin = demo.mesh.create_administrator("auditor").await.unwrap();
    let list = format!("http://{}/v1/certificates", demo.mesh.addresses().authz_http);
    let mut serial = Value::Null;
    eventually("the certificate is listed", async || {
        let answer = reqwest::Client::new().get(&list).bearer_auth(&admin).send().await.unwrap();
        let listed: Value = answer.json().await.unwrap();
        let items = listed["items"].as_array().cloned().unwrap_or_default();
        let mine = items.into_iter().find(|one| one["spiffe_id"] == ME);
        serial = mine.map(|mine| mine["serial"].clone()).unwrap_or_default();
        serial.is_string()
    })
    .await;
    let put = async |name: &str, mut what: Value| {
        what["until"] = json!("2999-01-01T00:00:00Z");
        let url = format!("http://{}/v1/revocations/{name}?wait=applied", demo.mesh.addresses().authz_http);
        let answer = reqwest::Client::new().put(url).bearer_auth(&admin).json(&what).send().await.unwrap();
        assert!(answer.status().is_success(), "{}", answer.text().await.unwrap());
    };
    put("stolen", json!({"certificate_serial": serial})).await;
    // The connection that is there already: authorization knows at once.
    let answer = by_kept().await;
    assert!(answer.as_ref().is_ok_and(|status| *status == StatusCode::FORBIDDEN), "{answer:?}");
    // New ones are refused as soon as the ingress has asked the authority.
    eventually("handshakes are refused", async || match ask(&demo, &stolen, &root).await {
        Ok(status) => {
            assert_eq!(status, StatusCode::FORBIDDEN);
            false
        }
        // Who is still sending when the connection is closed may not see why.
        Err(error) => error.contains("CertificateRevoked"),
    })
    .await;
    // Another certificate of the same workload is not that one.
    demo.workload(ME).await;
    let (another, root) = shown(&demo);
    assert_eq!(ask(&demo, &another, &root).await, Ok(StatusCode::OK));
    // The workload itself is: none of its certificates comes in, and it gets no new one.
    put("gone", json!({"workload": ME})).await;
    eventually("no certificate of it comes in", async || ask(&demo, &another, &root).await.is_err()).await;
    let refused = demo.mesh.issue(ME, &demo.data().join("again")).await.unwrap_err();
    assert!(refused.to_string().contains("revoked"), "{refused:#}");
    demo.stop().await;
}
