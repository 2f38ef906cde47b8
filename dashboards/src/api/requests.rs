//! Requests: search, facets, histogram, suggestions, and one request in full.

use axum::Json;
use axum::extract::{Path, State};
use axum::response::{IntoResponse as _, Response};
use http::HeaderMap;
use serde::Deserialize;
use tollgate_proto::attributes as a;
use utoipa::IntoParams;

use super::ApiState;
use super::export::{self, Format};
use super::problem::{ApiError, Body, Params, Problem};
use super::rows;
use super::shapes;
use super::types::{
    Facet, FacetRequest, FacetValue, Facets, HistogramRequest, OutcomeName, RequestDetail, SearchPage,
    SearchRequest, Series, Suggestion, Suggestions, TermCount,
};
use crate::query::{self, Cursor, Filter, SHORT_KEYS, column_of, short_key_of};
use crate::record::Kind;
use crate::store::names;

const PAGE_ROWS: u32 = 100;
const MAX_PAGE_ROWS: u32 = 1_000;
const MAX_EXPORT_ROWS: u32 = 100_000;
const MAX_FIELDS: usize = 32;
const FACET_VALUES: usize = 10;
const MAX_SUGGESTIONS: usize = 12;
const STEPS: u32 = 120;
const MAX_STEPS: u32 = 1_000;
/// Records of one request; a request that passes more proxies than this is no honest one.
const MAX_RECORDS: usize = 64;
/// What facets show when nobody says which.
const USUAL_FACETS: &[&str] =
    &["outcome", "status", "reason", "caller", "dest", "route", "method", "version", "token", "limit"];

/// Find requests. `Accept: text/csv` or `application/x-ndjson` answers the rows alone.
#[utoipa::path(post, path = "/requests/search", tag = "requests", request_body = SearchRequest, responses(
    (status = 200, body = SearchPage), (status = 400, body = Problem), (status = 401, body = Problem)))]
pub(super) async fn search(
    State(state): State<ApiState>,
    headers: HeaderMap,
    Body(request): Body<SearchRequest>,
) -> Result<Response, ApiError> {
    let started = std::time::Instant::now();
    let format = Format::wanted(&headers);
    let (_, range) = state.range(request.from, request.to)?;
    let filter = Filter::parse(&request.q)?;
    let most = if format == Format::Page { MAX_PAGE_ROWS } else { MAX_EXPORT_ROWS };
    let limit = request.limit.unwrap_or(if format == Format::Page { PAGE_ROWS } else { most });
    if !(1..=most).contains(&limit) {
        return Err(ApiError::Body(format!("`limit` must be 1 to {most}")));
    }
    let before = match request.cursor.as_deref() {
        None => None,
        Some(text) => Some(
            text.parse::<Cursor>()
                .map_err(|()| ApiError::Body("`cursor` is not one that this API gave".to_owned()))?,
        ),
    };
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let found = query::search(
        &state.store,
        &query::Ask { kind: Kind::Access, range, filter: &filter, before, limit },
        rows::COLUMNS,
        |hit| rows::row(hit.loaded, hit.row),
    )
    .await?;
    match format {
        Format::Csv => return Ok(export::csv(&found.rows)),
        Format::Ndjson => return Ok(export::ndjson(&found.rows)),
        Format::Page => {}
    }
    let mut terms = Vec::new();
    if found.matched == 0 && filter.terms.len() > 1 {
        for term in &filter.terms {
            let count = query::count(&state.store, Kind::Access, range, &Filter::alone(term)).await?;
            terms.push(TermCount { term: term.source.clone(), count, error: None });
        }
    } else if found.matched == 0 {
        terms.extend(filter.terms.iter().map(|t| TermCount {
            term: t.source.clone(),
            count: 0,
            error: None,
        }));
    }
    let page = SearchPage {
        rows: found.rows,
        next_cursor: found.next.map(|cursor| cursor.to_string()),
        matched: found.matched,
        total: found.total,
        scanned: found.scanned,
        took_ms: crate::store::three_digits(started.elapsed().as_secs_f64() * 1000.0),
        terms,
    };
    Ok(Json(page).into_response())
}

/// Which values fields take.
#[utoipa::path(post, path = "/requests/facets", tag = "requests", request_body = FacetRequest, responses(
    (status = 200, body = Facets), (status = 400, body = Problem), (status = 401, body = Problem)))]
pub(super) async fn facets(
    State(state): State<ApiState>,
    Body(request): Body<FacetRequest>,
) -> Result<Json<Facets>, ApiError> {
    let (_, range) = state.range(request.from, request.to)?;
    let filter = Filter::parse(&request.q)?;
    let fields = request.fields.unwrap_or_else(|| USUAL_FACETS.iter().map(|f| (*f).to_owned()).collect());
    if fields.len() > MAX_FIELDS {
        return Err(ApiError::Body(format!("`fields` may name {MAX_FIELDS}")));
    }
    let columns: Vec<String> = fields.iter().map(|field| column_of(field).into_owned()).collect();
    let counts = query::facets(&state.store, Kind::Access, range, &filter, &columns).await?;
    let facets = columns.iter().zip(counts).map(|(column, counts)| facet(column, counts)).collect();
    Ok(Json(Facets { facets }))
}

fn facet(column: &str, counts: query::FacetCounts) -> Facet {
    let (values, other) = counts.top(FACET_VALUES);
    let short = short_key_of(column);
    let name = names::attribute_of(column).unwrap_or(column);
    Facet {
        field: name.to_owned(),
        key: short.map_or(name, |field| field.key).to_owned(),
        label: short.map_or(name, |field| field.label).to_owned(),
        values: values
            .into_iter()
            .map(|(value, count, outcomes)| FacetValue { value, count, outcome: only_outcome(outcomes) })
            .collect(),
        other,
    }
}

fn only_outcome(bits: u8) -> Option<OutcomeName> {
    match bits {
        1 => Some(OutcomeName::Passed),
        2 => Some(OutcomeName::Denied),
        4 => Some(OutcomeName::Limited),
        8 => Some(OutcomeName::Failed),
        _ => None,
    }
}

pub(super) fn steps(wanted: Option<u32>) -> Result<usize, ApiError> {
    let steps = wanted.unwrap_or(STEPS);
    if !(1..=MAX_STEPS).contains(&steps) {
        return Err(ApiError::Range(format!("`steps` must be 1 to {MAX_STEPS}")));
    }
    Ok(usize::try_from(steps).unwrap_or(1))
}

/// Matching requests over time, beside those that do not match (`unmatched`).
#[utoipa::path(post, path = "/requests/histogram", tag = "requests", request_body = HistogramRequest, responses(
    (status = 200, body = Series), (status = 400, body = Problem), (status = 401, body = Problem)))]
pub(super) async fn histogram(
    State(state): State<ApiState>,
    Body(request): Body<HistogramRequest>,
) -> Result<Json<Series>, ApiError> {
    let (_, range) = state.range(request.from, request.to)?;
    let filter = Filter::parse(&request.q)?;
    Ok(Json(shapes::record_series(&state, range, &filter, steps(request.steps)?).await?))
}

/// One request, as everybody on its way saw it.
#[utoipa::path(get, path = "/requests/{request_id}", tag = "requests", params(
    ("request_id" = String, Path, description = "the id, as in `x-request-id`")), responses(
    (status = 200, body = RequestDetail), (status = 401, body = Problem), (status = 404, body = Problem)))]
pub(super) async fn detail(
    State(state): State<ApiState>,
    Path(request_id): Path<String>,
) -> Result<Json<RequestDetail>, ApiError> {
    let everything = query::Range { from: i64::MIN, to: i64::MAX };
    let filter = Filter::exactly(a::TOLLGATE_REQUEST_ID, &request_id);
    let found = query::search(
        &state.store,
        &query::Ask {
            kind: Kind::Access,
            range: everything,
            filter: &filter,
            before: None,
            limit: MAX_RECORDS,
        },
        &[],
        |hit| (hit.at, shapes::record(hit.loaded, hit.row)),
    )
    .await?;
    let mut records = found.rows;
    if records.is_empty() {
        return Err(ApiError::NotFound(format!("no record of request {request_id} is kept")));
    }
    records.sort_by_key(|(at, record)| (record.reporter != "gateway", *at));
    Ok(Json(RequestDetail {
        id: request_id,
        records: records.into_iter().map(|(_, record)| record).collect(),
    }))
}

/// What to complete.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields, default)]
pub(super) struct SuggestQuery {
    /// Start, unix milliseconds; an hour before `to` when absent.
    pub(super) from: Option<u64>,
    /// End, unix milliseconds; now when absent.
    pub(super) to: Option<u64>,
    /// The term as far as it is typed.
    #[param(required = false)]
    pub(super) prefix: String,
}

/// Filter terms that could come next.
#[utoipa::path(get, path = "/suggest", tag = "requests", params(SuggestQuery), responses(
    (status = 200, body = Suggestions), (status = 400, body = Problem), (status = 401, body = Problem)))]
pub(super) async fn suggest(
    State(state): State<ApiState>,
    Params(request): Params<SuggestQuery>,
) -> Result<Json<Suggestions>, ApiError> {
    let (_, range) = state.range(request.from, request.to)?;
    let (sign, typed) = match request.prefix.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", request.prefix.as_str()),
    };
    let mut suggestions = Vec::new();
    if let Some((key, value)) = typed.split_once(':') {
        let column = column_of(key).into_owned();
        let meaning = short_key_of(&column).map_or("attribute", |field| field.meaning);
        let counts = query::facets(&state.store, Kind::Access, range, &Filter::default(), &[column]).await?;
        for (found, count, _) in counts.into_iter().flat_map(|counts| counts.top(usize::MAX).0) {
            if found.to_lowercase().contains(&value.to_lowercase()) && !found.is_empty() {
                let quoted = found.contains([' ', ',', '"']) || found.starts_with(['<', '>']);
                let value = if quoted {
                    format!("\"{}\"", found.replace('\\', "\\\\").replace('"', "\\\""))
                } else {
                    found
                };
                suggestions.push(Suggestion {
                    token: format!("{sign}{key}:{value}"),
                    meaning: meaning.to_owned(),
                    count: Some(count),
                });
            }
        }
    } else {
        for field in SHORT_KEYS.iter().filter(|field| field.key.starts_with(typed)) {
            suggestions.push(Suggestion {
                token: format!("{sign}{}:", field.key),
                meaning: field.meaning.to_owned(),
                count: None,
            });
        }
        let attributes =
            tollgate_proto::attributes::ALL.iter().filter(|name| !typed.is_empty() && name.contains(typed));
        suggestions.extend(attributes.map(|name| Suggestion {
            token: format!("{sign}{name}:"),
            meaning: "attribute".to_owned(),
            count: None,
        }));
    }
    suggestions.truncate(MAX_SUGGESTIONS);
    Ok(Json(Suggestions { suggestions }))
}
