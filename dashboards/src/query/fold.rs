//! Sums over time, from the rollup where it can answer and from a scan where it cannot. Both give the same numbers.

use tollgate_proto::attributes as a;

use super::filter::Filter;
use super::scan::{Range, load, select, units};
use crate::record::{Kind, Row, Value, classify};
use crate::store::{BUCKET_NS, Cell, Rollup, Store, StoreError, names};

/// What the sums are made of.
const COLUMNS: &[&str] = &[
    names::TIME,
    a::TOLLGATE_REASON,
    a::TOLLGATE_REPORTER,
    a::TOLLGATE_RATELIMIT_DECISION,
    a::TOLLGATE_AUTHZ_DECISION,
    a::TOLLGATE_RESPONSE_FLAGS,
    a::TOLLGATE_RESPONSE_DETAILS,
    a::TOLLGATE_UPSTREAM_US,
    a::TOLLGATE_DURATION_US,
    a::TOLLGATE_AUTHZ_US,
    a::TOLLGATE_AUTHZ_EPOCH,
    a::TOLLGATE_AUTHZ_FAILURE_MODE,
    a::TOLLGATE_RATELIMIT_FAILURE_MODE,
    a::TOLLGATE_SOURCE_WORKLOAD,
    a::TOLLGATE_SOURCE_PRINCIPAL,
    a::TOLLGATE_DESTINATION_WORKLOAD,
    a::TOLLGATE_DESTINATION_NAMESPACE,
    a::TOLLGATE_DESTINATION_VERSION,
    a::TOLLGATE_CONNECTION_SECURITY_POLICY,
    a::TOLLGATE_UPSTREAM_CLUSTER,
    a::HTTP_REQUEST_METHOD,
    a::HTTP_ROUTE,
    a::HTTP_RESPONSE_STATUS_CODE,
    a::SERVICE_NAME,
    a::SERVER_ADDRESS,
    a::ENDUSER_ID,
    a::ENDUSER_PSEUDO_ID,
    a::CLIENT_ADDRESS,
    a::NETWORK_PEER_ADDRESS,
];

/// The steps that cover a range: their start, length and number. Steps of ten seconds and more lie on the rollup's
/// buckets, so that the rollup can answer.
pub(crate) fn steps_over(range: Range, steps: usize) -> (i64, i64, usize) {
    let length = (range.to - range.from).max(1);
    let steps = i64::try_from(steps.max(1)).unwrap_or(1);
    let exact = length.div_euclid(steps).max(1);
    let whole = |unit: i64| exact.saturating_add(unit - 1).div_euclid(unit).max(1) * unit;
    let step = if exact >= BUCKET_NS / 2 { whole(BUCKET_NS) } else { whole(1_000_000) };
    let start = if step >= BUCKET_NS { range.from.div_euclid(BUCKET_NS) * BUCKET_NS } else { range.from };
    let count = (range.to - start).max(1).saturating_add(step - 1).div_euclid(step);
    (start, step, usize::try_from(count).unwrap_or(1))
}

/// Sums of `range` in steps of `step_ns` from `start` on; the keys of the result are the numbers of the steps.
pub(crate) async fn fold(
    store: &Store,
    range: Range,
    filter: &Filter,
    start: i64,
    step_ns: i64,
) -> Result<Rollup, StoreError> {
    if filter.is_empty() && step_ns % BUCKET_NS == 0 && start % BUCKET_NS == 0 {
        let mut steps = Rollup::default();
        for (bucket, sums) in store.rollup(range.from, range.to).await?.0 {
            steps.0.entry((bucket * BUCKET_NS - start).div_euclid(step_ns)).or_default().merge(&sums);
        }
        return Ok(steps);
    }
    scan(store, range, filter, start, step_ns).await
}

/// As [`fold`], always by reading the records.
pub(crate) async fn scan(
    store: &Store,
    range: Range,
    filter: &Filter,
    start: i64,
    step_ns: i64,
) -> Result<Rollup, StoreError> {
    let mut steps = Rollup::default();
    let mut wanted = filter.columns();
    wanted.extend_from_slice(COLUMNS);
    for unit in units(store, Kind::Access, range) {
        if !unit.may_match(filter) {
            continue;
        }
        let Some(loaded) = load(store, &unit, &wanted).await? else { continue };
        let selected = select(&loaded, filter, range);
        for (at, _) in selected.iter().enumerate().filter(|(_, yes)| **yes) {
            let time = loaded.times()[at];
            let mut row = Row::at(time);
            for name in COLUMNS {
                if let Some(cell) = loaded.cell(name, at) {
                    let value = match cell {
                        Cell::Int(number) => Value::Int(number),
                        Cell::Word(word) => match word.as_str() {
                            Some(text) => Value::Text(text.into()),
                            None => Value::Text(word.text().into()),
                        },
                    };
                    row.set(name, value);
                }
            }
            let facts = classify(&row);
            steps.0.entry((time - start).div_euclid(step_ns)).or_default().add(&row, &facts);
        }
        tokio::task::yield_now().await;
    }
    Ok(steps)
}
