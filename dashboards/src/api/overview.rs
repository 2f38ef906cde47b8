//! The status line, the strip, and the first page: is anything wrong now?

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use tollgate_proto::attributes as a;
use utoipa::IntoParams;

use super::ApiState;
use super::findings;
use super::problem::{ApiError, Params, Problem};
use super::requests::steps;
use super::services::service_rows;
use super::shapes::{add_lost, traffic, unsigned};
use super::types::{Overview, Proxies, Retention, Series, Status, Totals};
use crate::query::{Filter, Range, Tally, fold, load, steps_over, units};
use crate::record::{Kind, Outcome};
use crate::store::{Cell, Rollup, Sums, names, three_digits};

/// A range of time and a filter, as every page carries them.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RangeQuery {
    /// Start, unix milliseconds; an hour before `to` when absent.
    pub(super) from: Option<u64>,
    /// End, unix milliseconds; now when absent.
    pub(super) to: Option<u64>,
    /// The filter.
    #[param(required = false)]
    pub(super) q: String,
}

/// A range, a filter and a number of steps.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields, default)]
pub(super) struct SeriesQuery {
    /// Start, unix milliseconds; an hour before `to` when absent.
    pub(super) from: Option<u64>,
    /// End, unix milliseconds; now when absent.
    pub(super) to: Option<u64>,
    /// The filter.
    #[param(required = false)]
    pub(super) q: String,
    /// How many steps, 1 to 1,000; 120 when absent.
    pub(super) steps: Option<u32>,
}

/// Steps of the first page's chart.
const OVERVIEW_STEPS: usize = 120;
/// A reporter that was silent for longer is not counted as a proxy.
const PROXY_WINDOW_NS: i64 = 300_000_000_000;

/// How the dashboard and its reporters are doing.
#[utoipa::path(get, path = "/status", tag = "overview", responses((status = 200, body = Status), (status = 401, body = Problem)))]
pub(super) async fn status(State(state): State<ApiState>) -> Result<Json<Status>, ApiError> {
    let (epoch, proxies) = proxies(&state).await?;
    let metrics = state.store.metrics();
    let view = state.store.view();
    let sealed = view.sealed.iter().filter(|b| b.kind == Kind::Access).map(|b| b.tmin);
    let open = view.open.iter().filter(|p| p.kind == Kind::Access).map(|p| p.tmin);
    Ok(Json(Status {
        ingest_lag_ms: metrics.lag_ms(),
        records_lost_1h: metrics.lost_by_minute().values().sum(),
        records_dropped: metrics.drops(),
        epoch,
        proxies,
        first_record_ms: sealed.chain(open).min().map(|ns| unsigned(ns / 1_000_000)),
        retention: Retention { raw_days: u64::from(state.keep_days) },
        version: env!("CARGO_PKG_VERSION").to_owned(),
        now_ms: state.clock.unix_millis(),
    }))
}

/// The newest epoch, and how many reporters are on it.
async fn proxies(state: &ApiState) -> Result<(Option<u64>, Proxies), ApiError> {
    let now = i64::try_from(state.clock.unix_nanos()).unwrap_or(i64::MAX);
    let range = Range { from: now - PROXY_WINDOW_NS, to: i64::MAX };
    let columns = [
        names::TIME,
        a::SERVICE_NAME,
        a::SERVICE_INSTANCE_ID,
        a::TOLLGATE_AUTHZ_EPOCH,
        a::TOLLGATE_WATCH_EPOCH,
    ];
    let mut last: std::collections::HashMap<(String, String), (i64, u64)> = std::collections::HashMap::new();
    for unit in units(&state.store, Kind::Access, range) {
        let Some(loaded) = load(&state.store, &unit, &columns).await? else { continue };
        for (row, time) in loaded.times().iter().enumerate().filter(|(_, time)| range.holds(**time)) {
            let epoch = |name| loaded.cell(name, row).and_then(Cell::int).and_then(|e| u64::try_from(e).ok());
            let Some(epoch) = epoch(a::TOLLGATE_WATCH_EPOCH).or_else(|| epoch(a::TOLLGATE_AUTHZ_EPOCH))
            else {
                continue;
            };
            let who = (loaded.text(a::SERVICE_NAME, row), loaded.text(a::SERVICE_INSTANCE_ID, row));
            let seen = last.entry(who).or_insert((*time, epoch));
            if *time >= seen.0 {
                *seen = (*time, epoch);
            }
        }
    }
    let newest = last.values().map(|(_, epoch)| *epoch).max();
    let on_epoch = last.values().filter(|(_, epoch)| Some(*epoch) == newest).count() as u64;
    Ok((newest, Proxies { total: last.len() as u64, on_epoch }))
}

/// The strip: traffic over time.
#[utoipa::path(get, path = "/series", tag = "overview", params(SeriesQuery), responses(
    (status = 200, body = Series), (status = 400, body = Problem), (status = 401, body = Problem)))]
pub(super) async fn series(
    State(state): State<ApiState>,
    Params(query): Params<SeriesQuery>,
) -> Result<Json<Series>, ApiError> {
    let (_, range) = state.range(query.from, query.to)?;
    let filter = Filter::parse(&query.q)?;
    let over = steps_over(range, steps(query.steps)?);
    let folded = fold(&state.store, range, &filter, over.0, over.1).await?;
    let mut series = traffic(&folded, &Tally::of(&folded), over);
    add_lost(&state, &mut series);
    Ok(Json(series))
}

/// The first page. Ranges of twenty minutes and more are widened to whole ten seconds, which is what sums are kept by.
#[utoipa::path(get, path = "/overview", tag = "overview", params(RangeQuery), responses(
    (status = 200, body = Overview), (status = 400, body = Problem), (status = 401, body = Problem)))]
pub(super) async fn overview(
    State(state): State<ApiState>,
    Params(query): Params<RangeQuery>,
) -> Result<Json<Overview>, ApiError> {
    let (shown, range) = state.range(query.from, query.to)?;
    let filter = Filter::parse(&query.q)?;
    let over = steps_over(range, OVERVIEW_STEPS);
    let folded = fold(&state.store, range, &filter, over.0, over.1).await?;
    let length = range.to - range.from;
    let before = Range { from: range.from.saturating_sub(length), to: range.from };
    let (before_start, before_step, _) = steps_over(before, OVERVIEW_STEPS);
    let earlier = fold(&state.store, before, &filter, before_start, before_step).await?;

    let tally = Tally::of(&folded);
    let whole = sum(&folded);
    let mut series = traffic(&folded, &tally, over);
    add_lost(&state, &mut series);
    let totals = totals(&tally, &whole, length);
    let services = service_rows(&folded, &tally, &whole, over, length);
    let lost: u64 = state.store.metrics().lost_by_minute().values().sum();
    let findings = findings::findings(&whole, &tally, &services, &range, lost);
    Ok(Json(Overview {
        range: shown,
        verdict: findings::verdict(&totals, &series, &findings),
        findings,
        previous: self::totals(&Tally::of(&earlier), &sum(&earlier), length),
        totals,
        series,
        services,
        reasons: findings::reasons(&whole, &tally),
        changes: findings::changes(&folded, &whole, over),
    }))
}

/// All steps added up.
pub(super) fn sum(steps: &Rollup) -> Sums {
    let mut whole = Sums::default();
    steps.0.values().for_each(|sums| whole.merge(sums));
    whole
}

pub(super) fn per_second(count: u64, length_ns: i64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a rate to three digits")]
    three_digits(count as f64 * 1e9 / length_ns.max(1) as f64)
}

fn totals(tally: &Tally, whole: &Sums, length_ns: i64) -> Totals {
    let counts = tally.totals(whole);
    Totals {
        requests: counts.all(),
        passed: counts.of(Outcome::Passed),
        denied: counts.of(Outcome::Denied),
        limited: counts.of(Outcome::Limited),
        failed: counts.of(Outcome::Failed),
        per_second: per_second(counts.all(), length_ns),
        duration_p50_ms: counts.durations.percentile_ms(0.5),
        duration_p95_ms: counts.durations.percentile_ms(0.95),
        duration_p99_ms: counts.durations.percentile_ms(0.99),
        decision_p99_ms: whole.decisions.percentile_ms(0.99),
        not_enforced_s: whole.open_seconds.len() as u64,
    }
}
