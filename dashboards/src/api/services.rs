//! Services: how is each, and who depends on it?

use std::collections::{BTreeMap, BTreeSet};

use axum::Json;
use axum::extract::{Path, State};
use tollgate_proto::attributes as a;

use super::ApiState;
use super::findings::outcome_name;
use super::overview::{RangeQuery, per_second, sum};
use super::problem::{ApiError, Params, Problem};
use super::shapes::blank;
use super::types::{
    DurationSeries, Level, Peer, RouteRow, Security, Series, ServiceDetail, ServiceRow, ServiceVerdict,
    Services, Spark, StateLine, VersionRow, VersionSeries,
};
use super::words::{requests, thousands};
use crate::query::{Counts, Filter, Range, Tally, fold, load, select, steps_over, units};
use crate::record::{Kind, Outcome};
use crate::store::{Rollup, Sums, names, three_digits};

const STEPS: usize = 120;
const SPARK_STEPS: usize = 30;
/// Services, peers and routes in one answer.
const MAX_ROWS: usize = 500;
const MAX_RULES: usize = 8;

/// Every service that was called.
#[utoipa::path(get, path = "/services", tag = "services", params(RangeQuery), responses(
    (status = 200, body = Services), (status = 400, body = Problem), (status = 401, body = Problem)))]
pub(super) async fn list(
    State(state): State<ApiState>,
    Params(query): Params<RangeQuery>,
) -> Result<Json<Services>, ApiError> {
    let (_, range) = state.range(query.from, query.to)?;
    let filter = Filter::parse(&query.q)?;
    let over = steps_over(range, STEPS);
    let folded = fold(&state.store, range, &filter, over.0, over.1).await?;
    let whole = sum(&folded);
    let services = service_rows(&folded, &Tally::of(&folded), &whole, over, range.to - range.from);
    Ok(Json(Services { services }))
}

#[expect(clippy::cast_precision_loss, reason = "a share to three digits")]
fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { three_digits(part as f64 * 100.0 / whole as f64) }
}

pub(super) fn service_rows(
    steps: &Rollup,
    tally: &Tally,
    whole: &Sums,
    (_, _, count): (i64, i64, usize),
    length: i64,
) -> Vec<ServiceRow> {
    let mut about: BTreeMap<&str, (&str, BTreeSet<&str>)> = BTreeMap::new();
    for key in whole.routes.keys() {
        let entry = about.entry(&key.dest).or_default();
        if !key.namespace.is_empty() {
            entry.0 = &key.namespace;
        }
        if !key.version.is_empty() {
            entry.1.insert(&key.version);
        }
    }
    let mut rows: Vec<ServiceRow> = about
        .into_iter()
        .filter(|(name, _)| !name.is_empty())
        .map(|(name, (namespace, versions))| {
            let counts = tally.service(whole, name);
            ServiceRow {
                name: name.to_owned(),
                namespace: namespace.to_owned(),
                versions: versions.into_iter().map(str::to_owned).collect(),
                requests: counts.all(),
                per_second: per_second(counts.all(), length),
                p99_ms: counts.durations.percentile_ms(0.99),
                failed_percent: percent(counts.of(Outcome::Failed), counts.all()),
                stopped: counts.stopped(),
                spark: spark(steps, tally, name, count),
            }
        })
        .collect();
    rows.sort_by(|a, b| b.requests.cmp(&a.requests).then_with(|| a.name.cmp(&b.name)));
    rows.truncate(MAX_ROWS);
    rows
}

fn spark(steps: &Rollup, tally: &Tally, name: &str, count: usize) -> Spark {
    let slots = count.min(SPARK_STEPS);
    let zeros = || vec![0; slots];
    let mut spark = Spark { passed: zeros(), denied: zeros(), limited: zeros(), failed: zeros() };
    for (number, sums) in &steps.0 {
        let Some(at) = usize::try_from(*number).ok().filter(|at| *at < count) else { continue };
        let at = at * slots / count;
        let counts = tally.service(sums, name);
        spark.passed[at] += counts.of(Outcome::Passed);
        spark.denied[at] += counts.of(Outcome::Denied);
        spark.limited[at] += counts.of(Outcome::Limited);
        spark.failed[at] += counts.of(Outcome::Failed);
    }
    spark
}

/// One service.
#[utoipa::path(get, path = "/services/{name}", tag = "services", params(
    ("name" = String, Path, description = "the service's name"), RangeQuery), responses(
    (status = 200, body = ServiceDetail), (status = 400, body = Problem), (status = 401, body = Problem),
    (status = 404, body = Problem)))]
pub(super) async fn detail(
    State(state): State<ApiState>,
    Path(name): Path<String>,
    Params(query): Params<RangeQuery>,
) -> Result<Json<ServiceDetail>, ApiError> {
    let (shown, range) = state.range(query.from, query.to)?;
    let filter = Filter::parse(&query.q)?;
    let over = steps_over(range, STEPS);
    let length = range.to - range.from;
    let folded = fold(&state.store, range, &filter, over.0, over.1).await?;
    let (tally, whole) = (Tally::of(&folded), sum(&folded));
    let known =
        whole.routes.keys().any(|key| key.dest == name) || whole.edges.keys().any(|key| key.source == name);
    if !known {
        return Err(ApiError::NotFound(format!("no request to or from {name} in this range")));
    }
    let namespace = whole
        .routes
        .keys()
        .filter(|key| key.dest == name)
        .map(|key| key.namespace.as_str())
        .find(|n| !n.is_empty());
    let counts = tally.service(&whole, &name);
    let facts = facts(&state, range, &filter, &name).await?;
    let (series, duration, by_version) = over_time(&folded, &tally, &name, over);
    let versions = versions(&whole, &tally, &name, &facts);
    let callers = peers(&whole, &tally, length, |key| (key.dest == name).then_some(key.source.as_str()));
    let callees = peers(&whole, &tally, length, |key| (key.source == name).then_some(key.dest.as_str()));
    let state_lines = state_lines(&counts, &callers, &versions);
    Ok(Json(ServiceDetail {
        range: shown,
        namespace: namespace.unwrap_or_default().to_owned(),
        verdict: verdict(&name, &counts, &versions),
        series,
        duration,
        by_version,
        versions,
        callers,
        callees,
        routes: routes(&whole, &tally, &name, length, &facts),
        state: state_lines,
        name,
    }))
}

fn over_time(
    steps: &Rollup,
    tally: &Tally,
    name: &str,
    (start, step, count): (i64, i64, usize),
) -> (Series, DurationSeries, Vec<VersionSeries>) {
    let mut series = blank(start, step, count);
    let mut duration = DurationSeries {
        from: series.from,
        step_ms: series.step_ms,
        p50: vec![None; count],
        p95: vec![None; count],
        p99: vec![None; count],
    };
    let mut versions: BTreeMap<&str, Vec<Option<f64>>> = BTreeMap::new();
    for (number, sums) in &steps.0 {
        let Some(at) = usize::try_from(*number).ok().filter(|at| *at < count) else { continue };
        let counts = tally.service(sums, name);
        series.passed[at] = counts.of(Outcome::Passed);
        series.denied[at] = counts.of(Outcome::Denied);
        series.limited[at] = counts.of(Outcome::Limited);
        series.failed[at] = counts.of(Outcome::Failed);
        duration.p50[at] = counts.durations.percentile_ms(0.5);
        duration.p95[at] = counts.durations.percentile_ms(0.95);
        duration.p99[at] = counts.durations.percentile_ms(0.99);
        for (version, counts) in by_version(sums, tally, name) {
            versions.entry(version).or_insert_with(|| vec![None; count])[at] =
                counts.durations.percentile_ms(0.99);
        }
    }
    let versions =
        versions.into_iter().map(|(version, p99)| VersionSeries { version: version.to_owned(), p99 });
    (series, duration, versions.collect())
}

fn by_version<'s>(sums: &'s Sums, tally: &Tally, name: &str) -> BTreeMap<&'s str, Counts> {
    let mut versions: BTreeMap<&str, Counts> = BTreeMap::new();
    for (key, sum) in &sums.routes {
        // What never reached an instance has no version.
        if key.dest == name && key.class.reached && tally.in_service(name, &key.class) {
            versions.entry(&key.version).or_default().add(&key.class, sum);
        }
    }
    versions
}

fn versions(whole: &Sums, tally: &Tally, name: &str, facts: &Facts) -> Vec<VersionRow> {
    let versions = by_version(whole, tally, name);
    let all: u64 = versions.values().map(Counts::all).sum();
    versions
        .into_iter()
        .map(|(version, counts)| {
            let slowest = whole
                .routes
                .iter()
                .filter(|(key, _)| {
                    key.dest == name && key.version == version && tally.in_service(name, &key.class)
                })
                .filter_map(|(key, sum)| Some((sum.durations.percentile_ms(0.99)?, &key.route)))
                .max_by(|a, b| a.0.total_cmp(&b.0));
            VersionRow {
                version: version.to_owned(),
                endpoints: facts.instances.get(version).map(|set| set.len() as u64),
                share_percent: percent(counts.all(), all),
                requests: counts.all(),
                failed: counts.of(Outcome::Failed),
                p50_ms: counts.durations.percentile_ms(0.5),
                p95_ms: counts.durations.percentile_ms(0.95),
                p99_ms: counts.durations.percentile_ms(0.99),
                slowest_route: slowest.map(|(_, route)| route.clone()).unwrap_or_default(),
            }
        })
        .collect()
}

/// What is known about a peer.
#[derive(Default)]
struct Met {
    counts: Counts,
    weakest: Option<Security>,
    /// Stopped requests by outcome.
    stops: BTreeMap<u8, u64>,
}

fn peers<'s>(
    whole: &'s Sums,
    tally: &Tally,
    length: i64,
    peer: impl Fn(&'s crate::store::EdgeKey) -> Option<&'s str>,
) -> Vec<Peer> {
    let mut peers: BTreeMap<&str, Met> = BTreeMap::new();
    for (key, sum) in &whole.edges {
        let Some(name) = peer(key).filter(|_| tally.in_service(&key.dest, &key.class)) else { continue };
        let met = peers.entry(name).or_default();
        met.counts.add(&key.class, sum);
        let security = match key.security.as_str() {
            "none" => Security::None,
            "tls" => Security::Tls,
            "mutual_tls" => Security::MutualTls,
            _ => Security::Unknown,
        };
        met.weakest = Some(met.weakest.map_or(security, |weakest| weakest.min(security)));
        if key.class.outcome != Outcome::Passed as u8 {
            *met.stops.entry(key.class.outcome).or_default() += sum.count;
        }
    }
    let mut peers: Vec<Peer> = peers
        .into_iter()
        .map(|(name, met)| Peer {
            name: name.to_owned(),
            requests: met.counts.all(),
            per_second: per_second(met.counts.all(), length),
            p95_ms: met.counts.durations.percentile_ms(0.95),
            stopped: met.counts.stopped(),
            outcome: met
                .stops
                .into_iter()
                .max_by_key(|(_, count)| *count)
                .map(|(outcome, _)| outcome_name(outcome)),
            security: met.weakest.unwrap_or(Security::Unknown),
        })
        .collect();
    peers.sort_by(|a, b| b.requests.cmp(&a.requests).then_with(|| a.name.cmp(&b.name)));
    peers.truncate(MAX_ROWS);
    peers
}

fn routes(whole: &Sums, tally: &Tally, name: &str, length: i64, facts: &Facts) -> Vec<RouteRow> {
    let mut routes: BTreeMap<(&str, &str), Counts> = BTreeMap::new();
    for (key, sum) in &whole.routes {
        if key.dest == name && tally.in_service(name, &key.class) {
            routes.entry((&key.method, &key.route)).or_default().add(&key.class, sum);
        }
    }
    let mut rows: Vec<RouteRow> = routes
        .into_iter()
        .map(|((method, route), counts)| RouteRow {
            method: method.to_owned(),
            route: route.to_owned(),
            requests: counts.all(),
            per_second: per_second(counts.all(), length),
            p99_ms: counts.durations.percentile_ms(0.99),
            stopped: counts.stopped(),
            rules: facts
                .rules
                .get(&(method.to_owned(), route.to_owned()))
                .map(|rules| rules.iter().cloned().collect())
                .unwrap_or_default(),
        })
        .collect();
    rows.sort_by(|a, b| b.requests.cmp(&a.requests).then_with(|| a.route.cmp(&b.route)));
    rows.truncate(MAX_ROWS);
    rows
}

/// What the sums do not keep, read from the records.
#[derive(Debug, Default)]
struct Facts {
    /// Instances by version.
    instances: BTreeMap<String, BTreeSet<String>>,
    /// Deciding rules by method and route.
    rules: BTreeMap<(String, String), BTreeSet<String>>,
}

/// Instances and rules that are told apart.
const MAX_FACTS: usize = 1000;

async fn facts(state: &ApiState, range: Range, filter: &Filter, name: &str) -> Result<Facts, ApiError> {
    let mut facts = Facts::default();
    let mut wanted = filter.columns();
    wanted.extend([
        names::TIME,
        names::DEST,
        a::TOLLGATE_REPORTER,
        a::SERVICE_INSTANCE_ID,
        a::TOLLGATE_DESTINATION_VERSION,
        a::HTTP_REQUEST_METHOD,
        a::HTTP_ROUTE,
        a::SECURITY_RULE_NAME,
    ]);
    let of_service = Filter::exactly(names::DEST, name);
    for unit in units(&state.store, Kind::Access, range) {
        if !unit.may_match(filter) || !unit.may_match(&of_service) {
            continue;
        }
        let Some(loaded) = load(&state.store, &unit, &wanted).await? else { continue };
        let mut selected = select(&loaded, filter, range);
        of_service.narrow(&mut selected, |name| loaded.column(name));
        for row in (0..selected.len()).filter(|row| selected[*row]) {
            let text = |name: &str| loaded.text(name, row);
            let instance = text(a::SERVICE_INSTANCE_ID);
            if text(a::TOLLGATE_REPORTER) == "destination"
                && !instance.is_empty()
                && facts.instances.len() < MAX_FACTS
            {
                facts.instances.entry(text(a::TOLLGATE_DESTINATION_VERSION)).or_default().insert(instance);
            }
            let rule = text(a::SECURITY_RULE_NAME);
            if !rule.is_empty() && facts.rules.len() < MAX_FACTS {
                let rules =
                    facts.rules.entry((text(a::HTTP_REQUEST_METHOD), text(a::HTTP_ROUTE))).or_default();
                if rules.len() < MAX_RULES {
                    rules.insert(rule);
                }
            }
        }
        tokio::task::yield_now().await;
    }
    Ok(facts)
}

fn verdict(name: &str, counts: &Counts, versions: &[VersionRow]) -> ServiceVerdict {
    let failed = counts.of(Outcome::Failed);
    let p99 = counts.durations.percentile_ms(0.99).map_or(String::new(), |ms| format!(", p99 {ms} ms"));
    let detail = format!(
        "{}{p99}: {} passed, {} denied, {} limited, {} failed.",
        requests(counts.all()),
        thousands(counts.of(Outcome::Passed)),
        thousands(counts.of(Outcome::Denied)),
        thousands(counts.of(Outcome::Limited)),
        thousands(failed)
    );
    if counts.all() == 0 {
        return ServiceVerdict {
            text: format!("Nobody called {name} in this range."),
            detail,
            level: Level::Quiet,
        };
    }
    if failed > 0 {
        let share = percent(failed, counts.all());
        let level = if share >= 1.0 { Level::Failing } else { Level::Look };
        return ServiceVerdict {
            text: format!("{name} failed {} of {}.", thousands(failed), requests(counts.all())),
            detail,
            level,
        };
    }
    let mut measured: Vec<_> =
        versions.iter().filter(|v| v.requests >= 50).filter_map(|v| Some((v.p99_ms?, v))).collect();
    measured.sort_by(|a, b| a.0.total_cmp(&b.0));
    if let (Some((fast_ms, fast)), Some((slow_ms, slow))) = (measured.first(), measured.last())
        && *slow_ms > fast_ms * 1.5
    {
        let text = format!(
            "{name} {} is slower than {}: p99 {slow_ms} ms against {fast_ms} ms.",
            slow.version, fast.version
        );
        return ServiceVerdict { text, detail, level: Level::Look };
    }
    ServiceVerdict {
        text: format!("{name} failed none of {}.", requests(counts.all())),
        detail,
        level: Level::Quiet,
    }
}

fn state_lines(counts: &Counts, callers: &[Peer], versions: &[VersionRow]) -> Vec<StateLine> {
    let line = |label: &str, value: String| StateLine { label: label.to_owned(), value };
    let mut lines = vec![line("Callers", callers.len().to_string())];
    let endpoints: u64 = versions.iter().filter_map(|version| version.endpoints).sum();
    if endpoints > 0 {
        lines.push(line("Instances", endpoints.to_string()));
    }
    if let Some(security) = callers.iter().map(|caller| caller.security).min() {
        let words = match security {
            Security::None => "plaintext",
            Security::Unknown => "not reported",
            Security::Tls => "TLS",
            Security::MutualTls => "mTLS",
        };
        lines.push(line("Weakest connection", words.to_owned()));
    }
    lines.push(line("Stopped", requests(counts.stopped())));
    lines
}
