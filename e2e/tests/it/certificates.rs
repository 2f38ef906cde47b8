//! The dashboard's list of certificates: every workload of the mesh, who signed for it, until when, since when.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use tollgate_authz::Store;
use tollgate_e2e::{Demo, Operator, eventually};
use tollgate_runtime::clock::Clock;
use tollgate_runtime::config::{Env, Secret};

const DOMAIN: &str = "spiffe://tollgate.demo/ns";
const WORKLOADS: [&str; 8] = [
    "insurance/sa/payments",
    "insurance/sa/policies",
    "insurance/sa/quotes",
    "tollgate-system/sa/authz",
    "tollgate-system/sa/dashboard",
    "tollgate-system/sa/egress",
    "tollgate-system/sa/ingress",
    "tollgate-system/sa/ratelimit",
];

async fn certificates(operator: &Operator) -> BTreeMap<String, Value> {
    let (status, body) = operator.get("/certificates").await;
    assert_eq!(status, 200, "{body}");
    let all = body["certificates"].as_array().unwrap();
    all.iter().map(|one| (one["spiffe_id"].as_str().unwrap().to_owned(), one.clone())).collect()
}

fn number(certificate: &Value, key: &str) -> i64 {
    certificate[key].as_i64().unwrap_or_else(|| panic!("no {key}: {certificate}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_workload_is_listed_with_issuer_end_and_last_rotation() {
    // Long enough for a busy machine to renew in, short enough to see a rotation.
    let parts = [
        "authz",
        "ratelimit",
        "ingress",
        "egress",
        "policies-sidecar",
        "policies-next-sidecar",
        "payments-sidecar",
        "quotes-sidecar",
    ];
    let often: Vec<String> =
        parts.iter().map(|part| format!("{part}.telemetry.metrics_interval=200ms")).collect();
    let sets: Vec<&str> =
        often.iter().map(String::as_str).chain(["authz.ca.leaf_life=20s", "authz.ca.overlap=40s"]).collect();
    let demo = Demo::start_as(Env::empty(), &sets).await;
    let operator = demo.operator().await;
    let wanted: BTreeSet<String> = WORKLOADS.iter().map(|name| format!("{DOMAIN}/{name}")).collect();
    eventually("all workloads are listed", async || {
        certificates(&operator).await.into_keys().collect::<BTreeSet<_>>() == wanted
    })
    .await;
    let first = certificates(&operator).await;
    for (id, certificate) in &first {
        assert_eq!(certificate["verified"], true, "{certificate}");
        assert_eq!(certificate["reported_by"], id.as_str());
        assert_ne!(certificate["issuer"], "", "{certificate}");
        assert!(
            certificate["source"].as_str().is_some_and(|source| source.starts_with("built-in authority")),
            "{certificate}"
        );
        assert!(number(certificate, "rotated_ms") < number(certificate, "expires_ms"));
    }
    assert_eq!(first[&format!("{DOMAIN}/insurance/sa/quotes")]["service"], "quotes-sidecar");

    // Each renews by itself, and what the list says is what the authority signed.
    let url = Secret::new(format!("sqlite://{}", demo.data().join("authz.db").display()));
    let store = Store::open(&url, Clock::system()).await.unwrap();
    for (id, before) in &first {
        eventually(&format!("{id} is listed with its next certificate"), async || {
            let now = &certificates(&operator).await[id];
            number(now, "expires_ms") > number(before, "expires_ms")
                && number(now, "rotated_ms") > number(before, "rotated_ms")
        })
        .await;
        eventually(&format!("{id} is listed with a certificate that the authority signed"), async || {
            let now = &certificates(&operator).await[id];
            let signed = store.certificates(0, 10_000).await.unwrap();
            signed.iter().any(|row| {
                row.spiffe_id == *id
                    && row.not_after * 1000 == number(now, "expires_ms")
                    && row.issued_at * 1000 <= number(now, "rotated_ms")
            })
        })
        .await;
    }
    store.close().await;
    demo.stop().await;
}
