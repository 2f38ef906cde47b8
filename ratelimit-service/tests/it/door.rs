//! The HTTP door: JSON, live view, explanation, trial and reset, from outside.

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::Served;

const LIMITS: &str = r#"
domain: shop
descriptors:
  - key: user
    rate_limit: {unit: day, requests_per_unit: 3, name: per-user, candidate: {requests_per_unit: 1}}
  - {key: bucket, rate_limit: {unit: day, requests_per_unit: 2, algorithm: token_bucket}}
  - {key: free, rate_limit: {unlimited: true}}
"#;

async fn served() -> Served {
    Served::with(LIMITS, |config| config.http = Some("127.0.0.1:0".parse().unwrap())).await
}

async fn call(served: &Served, method: &str, path: &str, body: &Value, host: &str) -> (u16, Value) {
    let mut stream = TcpStream::connect(served.http()).await.unwrap();
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(body.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, serde_json::from_str(body).unwrap_or(Value::Null))
}

async fn post(served: &Served, path: &str, body: Value) -> (u16, Value) {
    call(served, "POST", path, &body, "localhost").await
}

async fn get(served: &Served, path: &str) -> Value {
    call(served, "GET", path, &Value::Null, "127.0.0.1").await.1
}

fn question(key: &str, value: &str) -> Value {
    json!({"domain": "shop", "descriptors": [{"entries": [{"key": key, "value": value}]}]})
}

#[tokio::test]
async fn json_is_answered_as_the_reference_does() {
    let served = served().await;
    let (status, answer) = post(&served, "/json", question("user", "a")).await;
    assert_eq!((status, answer["overallCode"].as_str()), (200, Some("OK")));
    let limit = &answer["statuses"][0]["currentLimit"];
    assert_eq!((limit["requestsPerUnit"].as_u64(), limit["unit"].as_str()), (Some(3), Some("DAY")));
    assert_eq!(answer["statuses"][0]["durationUntilReset"], "86400s");
    let mut three = question("user", "a");
    three["hitsAddend"] = 3.into();
    let (status, answer) = post(&served, "/json", three).await;
    assert_eq!((status, answer["overallCode"].as_str()), (429, Some("OVER_LIMIT")));
    let mut back = question("user", "a");
    back["descriptors"][0]["hits_addend"] = "2".into();
    back["descriptors"][0]["is_negative_hits"] = true.into();
    assert_eq!(post(&served, "/json", back).await.1["statuses"][0]["limitRemaining"], 1);

    assert_eq!(post(&served, "/json", json!({"domain": ""})).await.0, 400);
    assert_eq!(post(&served, "/json", json!({"nonsense": 1})).await.0, 422);
    assert_eq!(call(&served, "POST", "/json", &question("user", "a"), "evil.test").await.0, 421);
}

#[tokio::test]
async fn the_live_view_knows_who_talks_and_who_is_limited() {
    let served = served().await;
    for _ in 0..5 {
        post(&served, "/json", question("user", "alice")).await;
    }
    post(&served, "/json", question("user", "bob")).await;
    let usage = get(&served, "/v1/usage?domain=shop").await;
    let of = |mode: &str| {
        usage["limits"]
            .as_array()
            .unwrap()
            .iter()
            .find(|one| one["rule"] == "per-user" && one["mode"] == mode)
            .unwrap()
    };
    let limit = of("enforce");
    assert_eq!(
        (limit["calls"].as_u64(), limit["over"].as_u64(), limit["near"].as_u64()),
        (Some(6), Some(2), Some(1))
    );
    assert!(limit["source"].as_str().unwrap().ends_with("limits.yaml:4"), "{limit}");
    assert_eq!(
        (limit["top"][0]["caller"].as_str(), limit["top"][0]["hits"].as_u64()),
        (Some("user=alice"), Some(5))
    );
    assert_eq!(limit["limited_now"].as_array().unwrap().len(), 1);
    // The candidate would have refused more, and nobody was.
    assert_eq!(of("candidate")["over"], 4);
}

#[tokio::test]
async fn explain_tells_rule_place_and_counters_and_counts_nothing() {
    let served = served().await;
    post(&served, "/json", question("user", "a")).await;
    let mut asked = question("user", "a");
    asked["descriptors"].as_array_mut().unwrap().push(json!({"entries": [{"key": "free", "value": "x"}]}));
    asked["descriptors"].as_array_mut().unwrap().push(json!({"entries": [{"key": "unknown", "value": "x"}]}));
    for _ in 0..3 {
        let (status, told) = post(&served, "/v1/explain", asked.clone()).await;
        assert_eq!((status, told["decision"].as_str()), (200, Some("ok")));
        let limit = &told["descriptors"][0]["limits"][0];
        assert_eq!((limit["used_before"].as_u64(), limit["used_after"].as_u64()), (Some(1), Some(2)));
        assert!(limit["source"].as_str().unwrap().ends_with("limits.yaml:4"));
        assert_eq!(told["descriptors"][0]["limits"][1]["mode"], "candidate");
        assert_eq!(
            (told["descriptors"][1]["outcome"].as_str(), told["descriptors"][2]["outcome"].as_str()),
            (Some("unlimited"), Some("free"))
        );
    }
    for _ in 0..2 {
        post(&served, "/json", question("bucket", "b")).await;
    }
    let (_, told) = post(&served, "/v1/explain", question("bucket", "b")).await;
    let limit = &told["descriptors"][0]["limits"][0];
    assert_eq!((told["decision"].as_str(), limit["used_after"].as_u64()), (Some("over_limit"), Some(2)));
}

#[tokio::test]
async fn a_reset_gives_the_whole_allowance_back_and_is_remembered() {
    let served = served().await;
    for _ in 0..4 {
        post(&served, "/json", question("user", "a")).await;
    }
    let mut asked = json!({"domain": "shop", "entries": [["user", "a"]], "by": "", "reason": "sorry"});
    assert_eq!(post(&served, "/v1/reset", asked.clone()).await.0, 400);
    asked["by"] = "ops".into();
    let (status, done) = post(&served, "/v1/reset", asked.clone()).await;
    assert_eq!((status, done["rules"].as_array().unwrap().len()), (200, 2));
    assert_eq!(post(&served, "/json", question("user", "a")).await.0, 200);
    assert_eq!(get(&served, "/v1/audit").await[0]["by"], "ops");
    asked["entries"] = json!([["nobody", "a"]]);
    assert_eq!(post(&served, "/v1/reset", asked).await.0, 404);
}

#[tokio::test]
async fn new_limits_are_tried_on_what_came() {
    let served = served().await;
    for _ in 0..3 {
        post(&served, "/json", question("user", "a")).await;
    }
    let text = "domain: shop\ndescriptors:\n  - {key: user, rate_limit: {unit: day, requests_per_unit: 1}}\n";
    let proposal = json!({"files": [{"name": "new.yaml", "text": text}], "last": "24h"});
    let (status, trial) = post(&served, "/v1/simulate", proposal).await;
    assert_eq!(status, 200, "{trial}");
    let of = |key: &str| trial[key].as_u64().unwrap();
    assert_eq!((of("calls"), of("refused_now"), of("refused_then"), of("newly_refused")), (3, 0, 2, 2));
    assert_eq!(trial["callers"][0]["caller"], "shop: user=a");
    let wrong = json!({"files": [{"name": "new.yaml", "text": "domain: d\ndescriptors: [{key: k, rate_limit: {unit: no}}]"}]});
    let (status, problem) = post(&served, "/v1/simulate", wrong).await;
    assert_eq!(status, 400);
    assert!(problem["detail"].as_str().unwrap().contains("new.yaml:2"), "{problem}");
}

#[tokio::test]
async fn the_door_is_described() {
    let served = served().await;
    let document = get(&served, "/openapi.json").await;
    assert!(document["paths"]["/v1/usage"]["get"].is_object());
}
