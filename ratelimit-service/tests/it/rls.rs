//! ShouldRateLimit through a real server, by a client made of Envoy's own message definitions.

use std::time::Duration;

use tollgate_proto::envoy_types::pb::envoy::extensions::common::ratelimit::v3::RateLimitDescriptor;
use tollgate_proto::envoy_types::pb::envoy::extensions::common::ratelimit::v3::rate_limit_descriptor::RateLimitOverride;
use tollgate_proto::envoy_types::pb::envoy::service::ratelimit::v3::RateLimitRequest;
use tollgate_proto::envoy_types::pb::envoy::service::ratelimit::v3::rate_limit_response::Code;
use tollgate_proto::envoy_types::pb::google::protobuf::value::Kind;
use tollgate_ratelimit::answer::Enforcement;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus};

use crate::support::{START_SECONDS, Served, descriptor, per_day, request};

const SHOP: &str = r#"
domain: shop
descriptors:
  - {key: subject, rate_limit: {unit: second, requests_per_unit: 20, name: per-subject}}
  - {key: minute, rate_limit: {unit: minute, requests_per_unit: 2}}
  - {key: free, rate_limit: {unlimited: true}}
  - {key: watched, shadow_mode: true, rate_limit: {unit: hour, requests_per_unit: 1}}
"#;

#[tokio::test]
async fn exactly_the_limit_passes_and_the_next_window_begins_anew() {
    let served = Served::with_limits(SHOP).await;
    for n in 1..=25u32 {
        let answer = served.ask(request("shop", vec![descriptor(&[("subject", "reader")])])).await;
        let expected = if n <= 20 { Code::Ok } else { Code::OverLimit };
        assert_eq!(answer.overall_code(), expected, "request {n}");
        let status = &answer.statuses[0];
        let limit = status.current_limit.as_ref().unwrap();
        assert_eq!((limit.requests_per_unit, limit.unit, limit.name.as_str()), (20, 1, "per-subject"));
        assert_eq!(status.limit_remaining, 20u32.saturating_sub(n));
        let reset = status.duration_until_reset.as_ref().unwrap();
        assert_eq!((reset.seconds, reset.nanos), (1, 0));
    }
    assert!(served.passes("shop", "subject", "another").await, "each value has a counter of its own");
    served.clock.advance(Duration::from_secs(1));
    assert!(served.passes("shop", "subject", "reader").await);
}

#[tokio::test]
async fn resets_count_down_rounded_up() {
    let served = Served::with_limits(SHOP).await;
    for (passed_ms, reset) in [(0, 60), (500, 60), (600, 59), (58_800, 1)] {
        served.clock.advance(Duration::from_millis(passed_ms));
        let answer = served.ask(request("shop", vec![descriptor(&[("minute", "a")])])).await;
        assert_eq!(answer.statuses[0].duration_until_reset.as_ref().unwrap().seconds, reset);
    }
}

#[tokio::test]
async fn several_descriptors_have_a_status_each() {
    let served = Served::with_limits(SHOP).await;
    let asked = request(
        "shop",
        vec![
            descriptor(&[("minute", "a")]),
            descriptor(&[("nothing", "known")]),
            descriptor(&[("free", "x")]),
            descriptor(&[("watched", "w")]),
        ],
    );
    for overall in [Code::Ok, Code::Ok, Code::OverLimit] {
        let answer = served.ask(asked.clone()).await;
        assert_eq!(answer.overall_code(), overall);
        assert_eq!(answer.statuses.len(), 4);
        assert_eq!(answer.statuses[0].code(), overall);
        assert!(answer.statuses[1].current_limit.is_none() && answer.statuses[1].limit_remaining == 0);
        assert!(answer.statuses[2].current_limit.is_none() && answer.statuses[2].limit_remaining == u32::MAX);
        assert_eq!((answer.statuses[3].code(), answer.statuses[3].limit_remaining), (Code::Ok, 0));
    }
}

#[tokio::test]
async fn the_deciding_rule_is_in_the_metadata() {
    let served = Served::with_limits(SHOP).await;
    let asked = vec![descriptor(&[("subject", "s")]), descriptor(&[("minute", "m")])];
    let answer = served.ask(request("shop", asked)).await;
    let metadata = answer.dynamic_metadata.unwrap();
    let Some(Kind::StructValue(ours)) = metadata.fields["tollgate"].kind.clone() else { panic!("a struct") };
    assert_eq!(ours.fields["rule"].kind, Some(Kind::StringValue("shop.minute".into())));
    assert_eq!(ours.fields["limit"].kind, Some(Kind::NumberValue(2.0)));
    assert_eq!(ours.fields["unit"].kind, Some(Kind::StringValue("minute".into())));
    assert_eq!(ours.fields["remaining"].kind, Some(Kind::NumberValue(1.0)));
    let without = served.ask(request("shop", vec![descriptor(&[("nothing", "known")])])).await;
    assert!(without.dynamic_metadata.is_none());
}

#[tokio::test]
async fn hits_of_request_and_descriptor() {
    let served = Served::with_limits(&per_day(10)).await;
    let of = |hits_addend: Option<u64>, is_negative_hits: bool| RateLimitDescriptor {
        hits_addend: hits_addend
            .map(|value| tollgate_proto::envoy_types::pb::google::protobuf::UInt64Value { value }),
        is_negative_hits,
        ..descriptor(&[("key", "v")])
    };
    let table = [
        // hits of the request, of the descriptor, negative; code, remaining
        (0, None, false, Code::Ok, 9),
        (3, None, false, Code::Ok, 6),
        (3, Some(1), false, Code::Ok, 5),
        (3, Some(0), false, Code::Ok, 5),
        (0, Some(5), false, Code::Ok, 0),
        (0, Some(0), false, Code::Ok, 0),
        (0, Some(7), false, Code::OverLimit, 0),
        (0, Some(0), false, Code::OverLimit, 0),
        (0, Some(9), true, Code::Ok, 2),
        (0, Some(99), true, Code::Ok, 10),
        (11, None, false, Code::OverLimit, 0),
    ];
    for (of_request, of_descriptor, negative, code, remaining) in table {
        let asked = RateLimitRequest {
            hits_addend: of_request,
            ..request("test", vec![of(of_descriptor, negative)])
        };
        let answer = served.ask(asked).await;
        let found = (answer.overall_code(), answer.statuses[0].limit_remaining);
        assert_eq!(found, (code, remaining), "{of_request} {of_descriptor:?} {negative}");
    }
}

#[tokio::test]
async fn an_override_holds_in_a_known_domain_only() {
    let served = Served::with_limits(SHOP).await;
    let overridden = |unit| RateLimitDescriptor {
        limit: Some(RateLimitOverride { requests_per_unit: 1, unit }),
        ..descriptor(&[("watched", "w")])
    };
    for (expected, remaining) in [(Code::Ok, 0), (Code::OverLimit, 0)] {
        // The rule it overrides is in shadow mode; the override is not.
        let answer = served.ask(request("shop", vec![overridden(4)])).await;
        assert_eq!((answer.overall_code(), answer.statuses[0].limit_remaining), (expected, remaining));
        let limit = answer.statuses[0].current_limit.clone().unwrap();
        assert_eq!((limit.requests_per_unit, limit.unit, limit.name.as_str()), (1, 4, "shop.watched"));
    }
    let elsewhere = served.ask(request("unknown", vec![overridden(4)])).await;
    assert_eq!(elsewhere.overall_code(), Code::Ok);
    assert!(elsewhere.statuses[0].current_limit.is_none());
    let wrong = served.client().should_rate_limit(request("shop", vec![overridden(7)])).await.unwrap_err();
    assert_eq!(wrong.code(), tonic::Code::InvalidArgument);
}

#[tokio::test]
async fn unknown_domains_pass_and_malformed_requests_are_named() {
    let served = Served::with_limits(SHOP).await;
    let answer = served.ask(request("unknown", vec![descriptor(&[("k", "v")]); 2])).await;
    assert_eq!((answer.overall_code(), answer.statuses.len()), (Code::Ok, 2));

    let table = [
        (request("", vec![descriptor(&[("k", "v")])]), "rate limit domain must not be empty"),
        (request("shop", vec![]), "rate limit descriptor list must not be empty"),
    ];
    for (asked, text) in table {
        let error = served.client().should_rate_limit(asked).await.unwrap_err();
        assert_eq!((error.code(), error.message()), (tonic::Code::InvalidArgument, text));
    }
}

#[tokio::test]
async fn without_any_limits_the_call_is_refused_as_the_reference_does() {
    let served = Served::with_limits(SHOP).await;
    std::fs::remove_file(served.folder.path().join("limits.yaml")).unwrap();
    crate::support::eventually("the empty folder is taken", || async {
        let asked = request("shop", vec![descriptor(&[("free", "x")])]);
        matches!(served.client().should_rate_limit(asked).await, Err(status)
            if status.code() == tonic::Code::InvalidArgument
                && status.message() == "no rate limit configuration loaded")
    })
    .await;
}

#[tokio::test]
async fn shadow_of_the_whole_service_refuses_nothing() {
    let served = Served::with(&per_day(1), |config| config.mode = Enforcement::Shadow).await;
    assert!(served.passes("test", "key", "v").await);
    let answer = served.ask(request("test", vec![descriptor(&[("key", "v")])])).await;
    assert_eq!((answer.overall_code(), answer.statuses[0].code()), (Code::Ok, Code::OverLimit));
}

#[tokio::test]
async fn keys_that_the_reference_mixes_up_are_apart() {
    let limits = r#"
domain: d
descriptors:
  - {key: a_b, rate_limit: {unit: day, requests_per_unit: 1}}
  - {key: a, rate_limit: {unit: day, requests_per_unit: 1}}
"#;
    let served = Served::with_limits(limits).await;
    assert!(served.passes("d", "a_b", "c").await);
    assert!(served.passes("d", "a", "b_c").await);
    assert!(!served.passes("d", "a", "b_c").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_at_once_exactly_the_limit_passes() {
    let served = Served::with_limits(&per_day(20)).await;
    assert_eq!(served.passing_of(60, "v").await, 20);
}

#[tokio::test]
async fn a_clock_that_steps_counts_nothing_twice_and_refuses_nobody_for_good() {
    const LIMITS: &str = r#"
domain: test
descriptors:
  - {key: fixed_window, rate_limit: {unit: minute, requests_per_unit: 3}}
  - {key: sliding_window, rate_limit: {unit: minute, requests_per_unit: 3, algorithm: sliding_window}}
  - {key: token_bucket, rate_limit: {unit: minute, requests_per_unit: 3, algorithm: token_bucket}}
"#;
    const STEP: u64 = 10_000_000_000;
    let served = Served::with_limits(LIMITS).await;
    // Amid a minute.
    let middle = START_SECONDS * 1_000_000_000 + 3 * STEP;
    for key in ["fixed_window", "sliding_window", "token_bucket"] {
        // At the beginning of a minute a step back leaves its window, too.
        for (value, start) in [("middle", middle), ("edge", middle - 3 * STEP)] {
            served.clock.set(start);
            for _ in 0..3 {
                assert!(served.passes("test", key, value).await);
            }
            for step in [start - STEP, start, start + STEP, start] {
                served.clock.set(step);
                assert!(!served.passes("test", key, value).await, "{key} {value} {step}");
            }
            let mut waited = 0;
            while !served.passes("test", key, value).await {
                served.clock.advance(Duration::from_secs(10));
                waited += 10;
                assert!(waited <= 120, "{key} {value} is refused for good");
            }
        }
    }
}

#[tokio::test]
async fn health_is_served() {
    let served = Served::with_limits(SHOP).await;
    let service = "envoy.service.ratelimit.v3.RateLimitService".to_owned();
    let health = HealthClient::new(served.channel()).check(HealthCheckRequest { service }).await.unwrap();
    assert_eq!(health.into_inner().status(), ServingStatus::Serving);
}

#[tokio::test]
async fn stopping_ends_the_server_within_the_grace() {
    let served = Served::with_limits(SHOP).await;
    assert!(served.passes("shop", "subject", "s").await);
    served.service.stop().await;
    assert!(served.client().should_rate_limit(request("shop", vec![])).await.is_err());
}
