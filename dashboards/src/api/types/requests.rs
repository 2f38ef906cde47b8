//! Requests: searching, counting, and one request in full.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = Outcome)]
pub enum OutcomeName {
    /// Reached the upstream and was answered.
    Passed,
    /// Refused by policy or token.
    Denied,
    /// Refused by a limit.
    Limited,
    /// Failed upstream or at us.
    Failed,
}

/// In which order a search answers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// Newest first.
    #[default]
    Newest,
}

/// A search for requests.
#[derive(Debug, Clone, Default, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SearchRequest {
    /// Start, unix milliseconds; an hour before `to` when absent.
    pub from: Option<u64>,
    /// End, unix milliseconds; now when absent.
    pub to: Option<u64>,
    /// The filter.
    pub q: String,
    /// Rows a page, 1 to 1,000; 100 when absent. For CSV and NDJSON up to 100,000.
    pub limit: Option<u32>,
    /// `next_cursor` of the page before.
    pub cursor: Option<String>,
    /// Newest first.
    pub order: Order,
}

/// A page of requests.
#[derive(Debug, Clone, Deserialize, Serialize, ToSchema)]
pub struct SearchPage {
    /// The rows, newest first.
    pub rows: Vec<RequestRow>,
    /// Where the next page starts; null on the last one.
    #[schema(required = true)]
    pub next_cursor: Option<String>,
    /// Records in the range that the filter takes.
    pub matched: u64,
    /// Records in the range.
    pub total: u64,
    /// Records that had to be read to answer.
    pub scanned: u64,
    /// How long it took, milliseconds.
    pub took_ms: f64,
    /// Only when nothing matched: what each term finds alone.
    pub terms: Vec<TermCount>,
}

/// What one term of a filter finds alone.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
pub struct TermCount {
    /// The term as written.
    pub term: String,
    /// Records in the range that it takes alone.
    pub count: u64,
    /// Why it could not be applied.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// One reporter's record of a request, as a table row. Text that no reporter gave is empty.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, ToSchema)]
pub struct RequestRow {
    /// The request id; the same on every reporter's record.
    pub id: String,
    /// This record, for good: it does not change when the record moves on disk.
    pub key: String,
    /// When it began, RFC 3339 with milliseconds, UTC.
    pub time: String,
    /// The same, unix nanoseconds in decimal.
    pub time_ns: String,
    /// What became of it.
    pub outcome: OutcomeName,
    /// HTTP status, 0 when there was none.
    pub status: u16,
    /// HTTP method.
    pub method: String,
    /// Path without the query.
    pub path: String,
    /// Who called: the subject of the token, else the calling workload, else the address.
    pub caller: String,
    /// The service called.
    pub dest: String,
    /// The calling workload.
    pub source: String,
    /// The route's name or template.
    pub route: String,
    /// The reason code.
    pub reason: String,
    /// Duration, milliseconds.
    #[schema(required = true)]
    pub duration_ms: Option<f64>,
    /// Which end wrote the record: `gateway`, `source`, `destination`, or empty.
    pub reporter: String,
    /// Version of the service called.
    pub version: String,
    /// The token's subject.
    pub subject: String,
    /// The trace, 32 hex digits, or empty.
    pub trace_id: String,
}

/// Which values fields take, under a filter.
#[derive(Debug, Clone, Default, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct FacetRequest {
    /// Start, unix milliseconds; an hour before `to` when absent.
    pub from: Option<u64>,
    /// End, unix milliseconds; now when absent.
    pub to: Option<u64>,
    /// The filter.
    pub q: String,
    /// Short keys or attribute names, at most 32; the usual ones when absent.
    pub fields: Option<Vec<String>>,
}

/// Facets, in the order asked for.
#[derive(Debug, Clone, Deserialize, Serialize, ToSchema)]
pub struct Facets {
    /// One for each field.
    pub facets: Vec<Facet>,
}

/// The most frequent values of one field.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
pub struct Facet {
    /// The attribute's full name.
    pub field: String,
    /// The key a filter uses for it: the short one where there is one.
    pub key: String,
    /// What to call it.
    pub label: String,
    /// The most frequent values, at most ten.
    pub values: Vec<FacetValue>,
    /// Matching records with another value.
    pub other: u64,
}

/// One value of a field.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
pub struct FacetValue {
    /// The value.
    pub value: String,
    /// Matching records that carry it.
    pub count: u64,
    /// The outcome, where all of those records share one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcome: Option<OutcomeName>,
}

/// Counts over time, under a filter.
#[derive(Debug, Clone, Default, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct HistogramRequest {
    /// Start, unix milliseconds; an hour before `to` when absent.
    pub from: Option<u64>,
    /// End, unix milliseconds; now when absent.
    pub to: Option<u64>,
    /// The filter.
    pub q: String,
    /// How many steps, 1 to 1,000; 120 when absent.
    pub steps: Option<u32>,
}

/// One request, as everybody on its way saw it.
#[derive(Debug, Clone, Deserialize, Serialize, ToSchema)]
pub struct RequestDetail {
    /// The request id.
    pub id: String,
    /// One record for each reporter, the gateway's first, then by time.
    pub records: Vec<RequestRecord>,
}

/// One reporter's record in full.
#[derive(Debug, Clone, Deserialize, Serialize, ToSchema)]
pub struct RequestRecord {
    /// This record, for good.
    pub key: String,
    /// The service that reported it.
    pub service: String,
    /// Which end wrote it.
    pub reporter: String,
    /// When it began, RFC 3339 with milliseconds, UTC.
    pub time: String,
    /// The same, unix nanoseconds in decimal.
    pub time_ns: String,
    /// What became of it.
    pub outcome: OutcomeName,
    /// HTTP status, 0 when there was none.
    pub status: u16,
    /// Who, what and why, in a sentence.
    pub headline: String,
    /// The reporter's own line.
    pub body: String,
    /// The trace, 32 hex digits, or empty.
    pub trace_id: String,
    /// The span, 16 hex digits, or empty.
    pub span_id: String,
    /// Duration, milliseconds.
    #[schema(required = true)]
    pub duration_ms: Option<f64>,
    /// Where the time went, in the order it went there.
    pub stages: Vec<Stage>,
    /// The stage that stopped it, null when nothing did.
    #[schema(required = true)]
    pub stopped_at: Option<String>,
    /// Every attribute, grouped for reading.
    pub groups: Vec<AttributeGroup>,
}

/// A part of a request's way through a proxy.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
pub struct Stage {
    /// `accept`, `route`, `authorize`, `limit`, `upstream` or `respond`.
    pub name: String,
    /// How long it took, microseconds; null when it was not measured.
    #[schema(required = true)]
    pub us: Option<u64>,
    /// What it decided: `allow`, `deny`, `limited`, `failed`, `not_reached`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcome: Option<String>,
}

/// Attributes that belong together.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, ToSchema)]
pub struct AttributeGroup {
    /// `Decision`, `Token`, `Caller`, `Request`, `Limit`, `Upstream`, `Connection` or `Other`.
    pub title: String,
    /// The attributes, by name.
    pub attributes: Vec<KeyValue>,
}

/// One attribute.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, ToSchema)]
pub struct KeyValue {
    /// Its full name.
    pub key: String,
    /// Its value: text, number, true or false, a list or an object.
    pub value: serde_json::Value,
}

/// Filter terms that could come next.
#[derive(Debug, Clone, Deserialize, Serialize, ToSchema)]
pub struct Suggestions {
    /// At most twelve, most frequent first.
    pub suggestions: Vec<Suggestion>,
}

/// A term that could come next.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
pub struct Suggestion {
    /// The term, ready to be added to the filter.
    pub token: String,
    /// What it means.
    pub meaning: String,
    /// Records in the range that it takes; null for a key alone.
    #[schema(required = true)]
    pub count: Option<u64>,
}

/// What a live tail says about itself, once a second (SSE event `status`).
#[derive(Debug, Clone, Copy, PartialEq, Deserialize, Serialize, ToSchema)]
pub struct LiveStatus {
    /// Matching requests a second.
    pub per_second: f64,
    /// Of so many matching rows one is shown; 1 means all.
    pub shown_1_in: u64,
    /// Rows this tail missed because it reads too slowly.
    pub dropped: u64,
}
