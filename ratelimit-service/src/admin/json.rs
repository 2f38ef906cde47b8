//! `POST /json`: ShouldRateLimit for those who speak no gRPC, with protobuf's JSON names, as the reference has it.
//! 200 where the request may pass, 429 where it may not.

use axum::Json;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::response::{IntoResponse as _, Response};
use http::StatusCode;
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

use super::Admin;
use super::problem::Problem;
use crate::wire::messages::{self as wire, Code, DescriptorStatus, RateLimitRequest, RateLimitResponse};

/// `RateLimitRequest`
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Question {
    /// The limits domain.
    #[serde(default)]
    domain: String,
    /// What is asked about.
    #[serde(default)]
    descriptors: Vec<Descriptor>,
    /// Hits of each descriptor that has none of its own; 0 is 1.
    #[serde(default, alias = "hits_addend")]
    hits_addend: u32,
}

/// `RateLimitDescriptor`
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Descriptor {
    /// Its entries, in order.
    #[serde(default)]
    entries: Vec<Entry>,
    /// A limit in place of the configured one.
    #[serde(default)]
    limit: Option<Limit>,
    /// Hits; 0 looks without counting. A number, or a text as protobuf's JSON writes it.
    #[serde(default, alias = "hits_addend", deserialize_with = "number_or_text")]
    #[schema(value_type = Option<u64>)]
    hits_addend: Option<u64>,
    /// The hits are given back.
    #[serde(default, alias = "is_negative_hits")]
    is_negative_hits: bool,
}

/// `RateLimitDescriptor.Entry`
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Entry {
    /// The key.
    #[serde(default)]
    key: String,
    /// The value.
    #[serde(default)]
    value: String,
}

/// `RateLimitOverride`
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Limit {
    #[serde(default, alias = "requests_per_unit")]
    requests_per_unit: u32,
    /// SECOND, MINUTE, HOUR, DAY, MONTH or YEAR.
    #[serde(default)]
    unit: String,
    #[serde(default, alias = "unit_multiplier")]
    unit_multiplier: Option<u32>,
}

fn number_or_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either {
        Number(u64),
        Text(String),
    }
    Ok(match Option::<Either>::deserialize(deserializer)? {
        None => None,
        Some(Either::Number(number)) => Some(number),
        Some(Either::Text(text)) => Some(text.parse().map_err(serde::de::Error::custom)?),
    })
}

impl From<Question> for RateLimitRequest {
    fn from(question: Question) -> Self {
        const UNITS: [&str; 7] = ["UNKNOWN", "SECOND", "MINUTE", "HOUR", "DAY", "MONTH", "YEAR"];
        let descriptors = question
            .descriptors
            .into_iter()
            .map(|one| wire::Descriptor {
                entries: one
                    .entries
                    .into_iter()
                    .map(|entry| wire::Entry { key: entry.key, value: entry.value })
                    .collect(),
                limit: one.limit.map(|limit| wire::Override {
                    requests_per_unit: limit.requests_per_unit,
                    // An unknown one is refused where all are checked.
                    unit: UNITS
                        .iter()
                        .position(|name| *name == limit.unit)
                        .map_or(0, |at| i32::try_from(at).unwrap_or(0)),
                    unit_multiplier: limit.unit_multiplier,
                }),
                hits_addend: one.hits_addend,
                is_negative_hits: one.is_negative_hits,
            })
            .collect();
        Self { domain: question.domain, descriptors, hits_addend: question.hits_addend }
    }
}

/// `RateLimitResponse`
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Answer {
    overall_code: &'static str,
    statuses: Vec<Status>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    response_headers_to_add: Vec<Header>,
}

/// `HeaderValue`
#[derive(Debug, Clone, Serialize, ToSchema)]
struct Header {
    key: String,
    value: String,
}

/// `DescriptorStatus`
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Status {
    code: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    current_limit: Option<CurrentLimit>,
    limit_remaining: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    duration_until_reset: Option<String>,
}

/// `RateLimit`
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct CurrentLimit {
    name: String,
    requests_per_unit: u32,
    unit: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    unit_multiplier: Option<u32>,
}

fn code(code: i32) -> &'static str {
    if code == Code::OverLimit as i32 { "OVER_LIMIT" } else { "OK" }
}

impl From<DescriptorStatus> for Status {
    fn from(status: DescriptorStatus) -> Self {
        // By number; mind where the week is.
        const UNITS: [&str; 8] = ["UNKNOWN", "SECOND", "MINUTE", "HOUR", "DAY", "MONTH", "YEAR", "WEEK"];
        let unit = |unit: i32| usize::try_from(unit).ok().and_then(|at| UNITS.get(at)).unwrap_or(&UNITS[0]);
        Self {
            code: code(status.code),
            current_limit: status.current_limit.map(|limit| CurrentLimit {
                requests_per_unit: limit.requests_per_unit,
                unit: unit(limit.unit),
                name: limit.name,
                unit_multiplier: limit.unit_multiplier,
            }),
            limit_remaining: status.limit_remaining,
            duration_until_reset: status.duration_until_reset.map(|reset| format!("{}s", reset.seconds)),
        }
    }
}

/// Asks about a request; counts as the gRPC call does.
#[utoipa::path(post, path = "/json", request_body = Question, responses(
    (status = 200, description = "It may pass", body = Answer),
    (status = 429, description = "It may not", body = Answer),
    (status = 400, description = "It cannot be answered", body = Problem)))]
pub(super) async fn ask(
    State(admin): State<Admin>,
    question: Result<Json<Question>, JsonRejection>,
) -> Result<Response, Problem> {
    let request = RateLimitRequest::from(question?.0);
    let response: RateLimitResponse = admin.limiter.should_rate_limit(&request).await?;
    let over = response.overall_code == Code::OverLimit as i32;
    let answer = Answer {
        overall_code: code(response.overall_code),
        statuses: response.statuses.into_iter().map(Status::from).collect(),
        response_headers_to_add: response
            .response_headers_to_add
            .into_iter()
            .map(|header| Header { key: header.key, value: header.value })
            .collect(),
    };
    let status = if over { StatusCode::TOO_MANY_REQUESTS } else { StatusCode::OK };
    Ok((status, Json(answer)).into_response())
}
