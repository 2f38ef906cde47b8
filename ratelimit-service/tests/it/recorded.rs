//! Messages recorded from a real, unmodified Envoy 1.40, asked again of our server.
//! Where the recordings are not at hand the tests say so and check nothing.

use std::path::{Path, PathBuf};

use serde_json::Value;
use tollgate_proto::envoy_types::pb::envoy::extensions::common::ratelimit::v3::RateLimitDescriptor;
use tollgate_proto::envoy_types::pb::envoy::extensions::common::ratelimit::v3::rate_limit_descriptor::RateLimitOverride;
use tollgate_proto::envoy_types::pb::envoy::service::ratelimit::v3::rate_limit_response::Code;
use tollgate_proto::envoy_types::pb::google::protobuf::UInt64Value;

use crate::support::{Served, descriptor, request};

const LIMITS: &str = r#"
domain: rl
descriptors:
  - key: source_cluster
    descriptors: [{key: destination_cluster, rate_limit: {unit: hour, requests_per_unit: 1000}}]
  - {key: remote_address, rate_limit: {unit: hour, requests_per_unit: 1000}}
  - {key: masked_remote_address, value: 127.0.0.0/8, rate_limit: {unit: hour, requests_per_unit: 1000}}
  - key: generic_key
    rate_limit: {unit: hour, requests_per_unit: 1000}
    descriptors: [{key: user, rate_limit: {unit: hour, requests_per_unit: 1000}}]
  - {key: k, value: "v*", rate_limit: {unit: hour, requests_per_unit: 1000}}
  - {key: header_match, rate_limit: {unit: hour, requests_per_unit: 1000}}
  - {key: qk, rate_limit: {unlimited: true}}
  - {key: user, rate_limit: {unit: hour, requests_per_unit: 1000}}
"#;

#[expect(clippy::print_stdout, reason = "a test that checks nothing says so")]
fn recording(name: &str) -> Option<Value> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/vectors/envoy-1.40");
    let file: PathBuf = folder.join(name);
    let Ok(text) = std::fs::read_to_string(&file) else {
        println!("skipped: the recording {} is not here", file.display());
        return None;
    };
    Some(serde_json::from_str(&text).unwrap())
}

fn number(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_str()?.parse().ok()).or_else(|| number(value.get("value")?))
}

fn descriptor_of(json: &Value) -> RateLimitDescriptor {
    let entries: Vec<(&str, &str)> = json["entries"]
        .as_array()
        .map(|entries| {
            entries
                .iter()
                .map(|entry| match entry.as_array() {
                    Some(pair) => (pair[0].as_str().unwrap(), pair[1].as_str().unwrap()),
                    None => (entry["key"].as_str().unwrap(), entry["value"].as_str().unwrap_or_default()),
                })
                .collect()
        })
        .unwrap_or_else(|| vec![("generic_key", "gk")]);
    let limit = json.get("limit").map(|limit| RateLimitOverride {
        requests_per_unit: u32::try_from(number(&limit["requests_per_unit"]).unwrap()).unwrap(),
        unit: ["UNKNOWN", "SECOND", "MINUTE", "HOUR", "DAY", "MONTH", "YEAR"]
            .iter()
            .position(|unit| limit["unit"] == *unit)
            .and_then(|unit| i32::try_from(unit).ok())
            .unwrap(),
    });
    RateLimitDescriptor {
        limit,
        hits_addend: json.get("hits_addend").and_then(number).map(|value| UInt64Value { value }),
        is_negative_hits: json["is_negative_hits"].as_bool().unwrap_or_default(),
        ..descriptor(&entries)
    }
}

#[tokio::test]
async fn what_envoy_sent_is_answered() {
    let Some(recorded) = recording("envoy140_rls.json") else { return };
    let served = Served::with_limits(LIMITS).await;
    let messages = recorded.as_array().unwrap();
    assert!(!messages.is_empty());
    for message in messages {
        let message = &message["message"];
        let descriptors: Vec<_> =
            message["descriptors"].as_array().unwrap().iter().map(descriptor_of).collect();
        let mut asked =
            tonic::Request::new(request(message["domain"].as_str().unwrap(), descriptors.clone()));
        asked.metadata_mut().insert("x-envoy-internal", "true".parse().unwrap());
        asked.set_timeout(std::time::Duration::from_secs(5));
        let answer = served.client().should_rate_limit(asked).await.unwrap().into_inner();
        assert_eq!(answer.overall_code(), Code::Ok, "{message}");
        assert_eq!(answer.statuses.len(), descriptors.len());
        for (status, descriptor) in answer.statuses.iter().zip(&descriptors) {
            let limit = status.current_limit.as_ref().map(|limit| limit.requests_per_unit);
            if let Some(overridden) = &descriptor.limit {
                assert_eq!(limit, Some(overridden.requests_per_unit));
            } else if message["domain"] == "rl" && descriptor.entries[0].key != "qk" {
                assert_eq!(limit, Some(1000), "{descriptor:?}");
            }
        }
    }
}

#[tokio::test]
async fn every_kind_of_action_is_answered() {
    let Some(recorded) = recording("envoy_rls_requests.json") else { return };
    let served = Served::with_limits(LIMITS).await;
    for case in recorded["cases"].as_array().unwrap() {
        let json = if case.get("entries").is_some() { case } else { &case["descriptor"] };
        if json.is_null() {
            continue;
        }
        let asked = descriptor_of(json);
        let answer = served.ask(request("rl", vec![asked.clone()])).await;
        assert_eq!(answer.overall_code(), Code::Ok, "{case}");
        let unlimited = asked.entries[0].key == "qk";
        assert_eq!(answer.statuses[0].current_limit.is_none(), unlimited, "{case}");
    }
}
