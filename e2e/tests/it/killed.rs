//! SIGKILL in the middle of writes, run as the separate binaries: what was answered is there.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use http::StatusCode;
use serde_json::json;
use tollgate_e2e::{Operator, eventually};
use tollgate_testkit::ports::free_addresses;

use crate::parts::{Part, listening};

#[tokio::test(flavor = "multi_thread")]
async fn every_acknowledged_policy_write_survives_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let [grpc, http] = free_addresses();
    let token_file = folder.path().join("bootstrap-admin.token");
    let mut authz = Part::start(
        "authz",
        "authz",
        &[
            format!("database.url=sqlite://{}", folder.path().join("authz.db").display()),
            format!("listen.grpc={grpc}"),
            format!("listen.http={http}"),
            format!("bootstrap.token_file={}", token_file.display()),
            "telemetry.endpoint=null".to_owned(),
        ],
    );
    // The port is bound before the database is open, and the token is written after that.
    eventually("the one-use token is written", async || token_file.exists()).await;
    let client = reqwest::Client::builder().timeout(Duration::from_secs(10)).build().unwrap();
    let bootstrap = std::fs::read_to_string(&token_file).unwrap();
    let made = client
        .post(format!("http://{http}/v1/bootstrap"))
        .bearer_auth(bootstrap.trim())
        .json(&json!({ "name": "root" }))
        .send()
        .await
        .unwrap();
    assert!(made.status().is_success(), "{}", made.text().await.unwrap());
    let admin = made.json::<serde_json::Value>().await.unwrap()["token"].as_str().unwrap().to_owned();

    let put = |index: usize| {
        let request = client
            .put(format!("http://{http}/v1/namespaces/insurance/roles/role-{index}"))
            .bearer_auth(&admin)
            .header("x-tollgate-change-reason", "kill test")
            .json(&json!({ "permissions": [] }));
        async move { request.send().await.is_ok_and(|answer| answer.status().is_success()) }
    };
    assert!(put(0).await, "a write works before anything is killed");
    let writes: Vec<_> = (1..=100).map(|index| tokio::spawn(put(index))).collect();
    eventually("some writes are answered", async || writes.iter().filter(|w| w.is_finished()).count() >= 10)
        .await;
    authz.kill();
    let mut acknowledged = vec![0];
    for (index, write) in (1..).zip(writes) {
        if write.await.unwrap() {
            acknowledged.push(index);
        }
    }

    authz.restart();
    listening(http).await;
    for index in acknowledged {
        let found = client
            .get(format!("http://{http}/v1/namespaces/insurance/roles/role-{index}"))
            .bearer_auth(&admin)
            .send()
            .await
            .unwrap();
        assert_eq!(found.status(), StatusCode::OK, "role-{index} was answered with 2xx and is gone");
    }
    assert!(put(1000).await, "writes go on after the restart");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_acknowledged_record_survives_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let [web, grpc, otlp] = free_addresses();
    let sets = tollgate::up::dashboard_sets(folder.path(), web, grpc, otlp);
    let mut dashboard = Part::start("dashboard", "dashboard", &sets);
    listening(otlp).await;

    let client = reqwest::Client::builder().timeout(Duration::from_secs(10)).build().unwrap();
    let killed = Arc::new(AtomicBool::new(false));
    let counted = Arc::new(AtomicUsize::new(0));
    let senders: Vec<_> = (0..8)
        .map(|sender| {
            let (client, killed, counted) = (client.clone(), Arc::clone(&killed), Arc::clone(&counted));
            tokio::spawn(async move {
                let mut acknowledged = Vec::new();
                for number in 0.. {
                    let id = format!("kill-{sender}-{number}");
                    let answer =
                        client.post(format!("http://{otlp}/v1/logs")).json(&record(&id)).send().await;
                    match answer {
                        Ok(answer) if answer.status().is_success() => {
                            acknowledged.push(id);
                            counted.fetch_add(1, Ordering::Relaxed);
                        }
                        _ => return acknowledged,
                    }
                    if killed.load(Ordering::Relaxed) {
                        return acknowledged;
                    }
                }
                acknowledged
            })
        })
        .collect();
    eventually("records are acknowledged", async || counted.load(Ordering::Relaxed) >= 40).await;
    dashboard.kill();
    killed.store(true, Ordering::Relaxed);
    let mut acknowledged = Vec::new();
    for sender in senders {
        acknowledged.extend(sender.await.unwrap());
    }
    assert!(!acknowledged.is_empty(), "nothing was acknowledged before the kill");

    dashboard.restart();
    listening(web).await;
    std::fs::write(folder.path().join("dashboard.url"), format!("http://{web}")).unwrap();
    let operator = Operator::sign_in(&tollgate::up::login_link(folder.path()).await.unwrap()).await;
    for id in &acknowledged {
        let (status, body) = operator.get(&format!("/requests/{id}")).await;
        let found = body["records"].as_array().map_or(0, Vec::len);
        assert_eq!((status, found), (StatusCode::OK, 1), "{id} was acknowledged");
    }
}

/// One access record as OTLP/JSON.
fn record(id: &str) -> serde_json::Value {
    let now = tollgate_runtime::clock::Clock::system().unix_nanos().to_string();
    let text = |key: &str, value: &str| json!({ "key": key, "value": { "stringValue": value } });
    json!({ "resourceLogs": [{
        "resource": { "attributes": [text("service.name", "ingress")] },
        "scopeLogs": [{ "logRecords": [{
            "timeUnixNano": now, "eventName": "tollgate.access", "body": { "stringValue": "GET /policies/POL-1 200" },
            "attributes": [
                text("tollgate.request.id", id), text("tollgate.reporter", "gateway"), text("tollgate.reason", "ok"),
                text("http.request.method", "GET"), text("url.path", "/policies/POL-1"),
                { "key": "http.response.status_code", "value": { "intValue": "200" } }
            ]
        }] }]
    }] })
}
