//! Who gets which of two versions: by a header, by a claim that authorization verified, by a certificate, and always
//! the same one where it is a matter of chance.

use std::collections::BTreeMap;

use http::Method;
use reqwest::Client;
use serde_json::Value;
use tollgate_e2e::Demo;
use tollgate_runtime::config::Env;

const READ: &[&str] = &["policies:read"];
const ME: &str = "spiffe://tollgate.demo/ns/insurance/sa";

#[tokio::test(flavor = "multi_thread")]
async fn a_dark_launch_is_for_those_it_names_and_for_nobody_who_only_says_so() {
    let demo = Demo::start_as(
        Env::empty(),
        &[
            "ingress.routes.1.overrides=[\
             {cluster: policies-1.1, headers: [{name: x-preview, value: 'true'}]}, \
             {cluster: policies-1.1, claims: [{name: scope, value: 'policies:preview'}]}, \
             {cluster: policies-1.1, peer: {type: RegularExpression, value: '.*/ns/insurance/sa/tester-[0-9]+'}}]",
            // The same as a route of its own.
            "ingress.routes.5={name: auditors, listeners: [ingress-mtls], service: insurance/policies, \
             matches: [{path: {type: PathTemplate, value: '/policies/{id}'}, \
             peer: {type: RegularExpression, value: 'spiffe://tollgate[.]demo/ns/insurance/sa/auditor-[a-z]+'}}], \
             backends: [{cluster: policies-1.1}]}",
        ],
    )
    .await;
    let token = demo.token("reader", READ);
    let version = async |token: &str, headers: &[(&str, &str)]| {
        let answer = demo.send_with(Method::GET, "/policies/POL-1", Some(token), headers).await;
        answer.body["version"].as_str().unwrap_or_default().to_owned()
    };
    assert_eq!(version(&token, &[]).await, "1.0");
    assert_eq!(version(&token, &[("x-preview", "true")]).await, "1.1");
    assert_eq!(version(&token, &[("x-preview", "yes")]).await, "1.0");

    let previewing = demo.token("reader", &["policies:read", "policies:preview"]);
    assert_eq!(version(&previewing, &[]).await, "1.1");
    // A claim counts once it was verified, whatever a client says of itself.
    assert_eq!(version(&token, &[("x-tollgate-scope", "policies:preview")]).await, "1.0");
    let forged = format!("{}x", demo.token("reader", &["policies:read", "policies:preview"]));
    assert_eq!(demo.get("/policies/POL-1", Some(&forged)).await.status, 401);

    let url = format!("https://localhost:{}/policies/POL-1", demo.mesh.addresses().ingress_mtls.port());
    let by = async |client: &Client| {
        let answer = client.get(&url).bearer_auth(&token).send().await.unwrap();
        answer.json::<Value>().await.unwrap()["version"].as_str().unwrap_or_default().to_owned()
    };
    for (name, expected) in
        [("tester-7", "1.1"), ("tester-x", "1.0"), ("auditor-eva", "1.1"), ("auditor-7", "1.0")]
    {
        assert_eq!(by(&demo.workload(&format!("{ME}/{name}")).await).await, expected, "{name}");
    }
    // Nobody comes by a certificate at the other listener, whatever header they send.
    let certificate = format!("URI={ME}/tester-7");
    assert_eq!(version(&token, &[("x-forwarded-client-cert", &certificate)]).await, "1.0");
    demo.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_gets_a_version_keeps_it() {
    let demo = Demo::start_as(
        Env::empty(),
        &[
            "ingress.routes.1.backends=[{cluster: policies, weight: 50}, {cluster: policies-1.1, weight: 50}]",
            "ingress.routes.1.sticky={header: x-tenant}",
            "ingress.routes.1.overrides=[]",
        ],
    )
    .await;
    let subjects = ["reader", "editor", "adjuster"].map(|subject| demo.token(subject, READ));
    let mut versions = BTreeMap::<String, usize>::new();
    for tenant in 0..15 {
        let tenant = format!("tenant-{tenant}");
        let mut got = Vec::new();
        for token in &subjects {
            let headers = [("x-tenant", &*tenant)];
            let answer = demo.send_with(Method::GET, "/policies/POL-1", Some(token), &headers).await;
            got.push(answer.body["version"].as_str().unwrap_or_default().to_owned());
        }
        assert!(got.iter().all(|version| *version == got[0]), "{tenant}: {got:?}");
        *versions.entry(got.swap_remove(0)).or_default() += 1;
    }
    println!("{versions:?}");
    assert_eq!(versions.keys().collect::<Vec<_>>(), ["1.0", "1.1"]);
    demo.stop().await;
}
