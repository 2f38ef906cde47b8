//! Which workload shows which certificate, who signed it, when it ends and when it last changed.
//!
//! Each workload reports its own (`tollgate_identity::metrics`), so this knows those from files and from a Workload API
//! beside those of the built-in authority, and tells what is in use, not what was signed. Nobody is asked: the list is
//! there while the authority is away. What the authority has signed, for whoever does not report here too, is told by
//! its own `GET /v1/certificates`.

use std::collections::HashMap;

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use tollgate_identity::{Identity, metrics};
use tollgate_proto::attributes as a;
use utoipa::IntoParams;

use super::ApiState;
use super::problem::{ApiError, Params, Problem};
use super::shapes::unsigned;
use super::types::{Certificates, WorkloadCertificate};
use crate::query::{Filter, Loaded, Range, load, select, units};
use crate::record::Kind;
use crate::store::{Cell, names};

/// Certificates in one answer.
const MAX_CERTIFICATES: usize = 1_000;
/// What is counted of those beyond.
const MAX_LEFT_OUT: usize = 100_000;

/// A range.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields, default)]
pub(super) struct CertificatesQuery {
    /// Start, unix milliseconds; an hour before `to` when absent. Who has reported nothing since is not listed.
    pub(super) from: Option<u64>,
    /// End, unix milliseconds; now when absent.
    pub(super) to: Option<u64>,
}

/// The certificates that workloads show.
#[utoipa::path(get, path = "/certificates", tag = "identity", params(CertificatesQuery), responses(
    (status = 200, body = Certificates), (status = 400, body = Problem), (status = 401, body = Problem)))]
pub(super) async fn list(
    State(state): State<ApiState>,
    Params(query): Params<CertificatesQuery>,
) -> Result<Json<Certificates>, ApiError> {
    let (_, range) = state.range(query.from, query.to)?;
    let mut newest = Newest::default();
    read(&state, range, &mut newest).await?;
    let now_ms = state.clock.unix_millis();
    if query.to.is_none()
        && let Some(Some(identity)) = state.identity.get()
    {
        newest.own(identity, now_ms);
    }
    let mut certificates: Vec<_> =
        newest.met.into_iter().filter_map(|(who, met)| met.shown(who, now_ms)).collect();
    certificates.sort_by(|a, b| {
        (a.expires_ms, &a.spiffe_id, &a.instance).cmp(&(b.expires_ms, &b.spiffe_id, &b.instance))
    });
    let left_out = newest.beyond.len() + certificates.len().saturating_sub(MAX_CERTIFICATES);
    certificates.truncate(MAX_CERTIFICATES);
    Ok(Json(Certificates { certificates, left_out: left_out as u64 }))
}

/// Who shows a certificate.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Who {
    spiffe_id: String,
    service: String,
    instance: String,
}

/// What was last heard of it.
#[derive(Debug, Default)]
struct Met {
    expiry: Option<Expiry>,
    /// The report's rank, and Unix seconds since when.
    since: Option<(Rank, i64)>,
}

/// Whether a workload speaks of itself, and when it said so (Unix nanoseconds). What others say of it does not replace what
/// it says of itself.
type Rank = (bool, i64);

#[derive(Debug)]
struct Expiry {
    rank: Rank,
    /// Unix seconds.
    not_after: i64,
    issuer: String,
    source: String,
    reported_by: String,
}

#[derive(Debug, Default)]
struct Newest {
    met: HashMap<Who, Met>,
    beyond: std::collections::HashSet<Who>,
}

impl Newest {
    /// The place of a workload, if there is one.
    fn of(&mut self, who: Who) -> Option<&mut Met> {
        if self.met.len() >= MAX_CERTIFICATES && !self.met.contains_key(&who) {
            if self.beyond.len() < MAX_LEFT_OUT {
                self.beyond.insert(who);
            }
            return None;
        }
        Some(self.met.entry(who).or_default())
    }

    /// Our own, which need not be reported to be known.
    fn own(&mut self, identity: &Identity, now_ms: u64) {
        let leaf = identity.material().credential.leaf.clone();
        let reported = i64::try_from(now_ms).unwrap_or(i64::MAX).saturating_mul(1_000_000);
        let who = Who {
            spiffe_id: leaf.id.to_string(),
            service: String::from("dashboard"),
            instance: std::process::id().to_string(),
        };
        let Some(met) = self.of(who) else { return };
        let rank = (true, reported);
        met.since = Some((rank, identity.since()));
        met.expiry = Some(Expiry {
            rank,
            not_after: leaf.not_after,
            issuer: leaf.issuer,
            source: identity.source().to_owned(),
            reported_by: leaf.id.to_string(),
        });
    }
}

impl Met {
    fn shown(self, who: Who, now_ms: u64) -> Option<WorkloadCertificate> {
        let expiry = self.expiry?;
        let millis = |seconds: i64| unsigned(seconds.saturating_mul(1_000));
        Some(WorkloadCertificate {
            expires_ms: millis(expiry.not_after),
            ended: millis(expiry.not_after) <= now_ms,
            rotated_ms: self.since.map(|(_, since)| millis(since)),
            reported_ms: unsigned(expiry.rank.1 / 1_000_000),
            verified: expiry.rank.0,
            issuer: expiry.issuer,
            source: expiry.source,
            reported_by: expiry.reported_by,
            spiffe_id: who.spiffe_id,
            service: who.service,
            instance: who.instance,
        })
    }
}

async fn read(state: &ApiState, range: Range, newest: &mut Newest) -> Result<(), ApiError> {
    let (expiry, since) =
        (Filter::exactly(names::NAME, metrics::EXPIRY), Filter::exactly(names::NAME, metrics::SINCE));
    let wanted = [
        names::TIME,
        names::NAME,
        names::VALUE,
        a::SERVICE_NAME,
        a::SERVICE_INSTANCE_ID,
        a::TOLLGATE_EXPORTER_IDENTITY,
        metrics::ID,
        metrics::ISSUER,
        metrics::SOURCE,
    ];
    for unit in units(&state.store, Kind::Metric, range) {
        if !unit.may_match(&expiry) && !unit.may_match(&since) {
            continue;
        }
        let Some(loaded) = load(&state.store, &unit, &wanted).await? else { continue };
        for row in rows(&loaded, &expiry, range) {
            take_expiry(&loaded, row, newest);
        }
        for row in rows(&loaded, &since, range) {
            take_since(&loaded, row, newest);
        }
        tokio::task::yield_now().await;
    }
    Ok(())
}

fn rows(loaded: &Loaded, filter: &Filter, range: Range) -> impl Iterator<Item = usize> {
    let selected = select(loaded, filter, range);
    selected.into_iter().enumerate().filter(|(_, yes)| *yes).map(|(row, _)| row)
}

/// Whom a point is about, what its word counts, and the number.
fn point(loaded: &Loaded, row: usize) -> Option<(Who, Rank, i64)> {
    #[expect(clippy::cast_possible_truncation, reason = "Unix seconds")]
    let seconds = loaded.cell(names::VALUE, row).and_then(Cell::number)? as i64;
    let who = Who {
        spiffe_id: loaded.text(metrics::ID, row),
        service: loaded.text(a::SERVICE_NAME, row),
        instance: loaded.text(a::SERVICE_INSTANCE_ID, row),
    };
    let is_itself = loaded.text(a::TOLLGATE_EXPORTER_IDENTITY, row) == who.spiffe_id;
    let reported = loaded.times().get(row).copied()?;
    Some((who, (is_itself, reported), seconds))
}

fn take_expiry(loaded: &Loaded, row: usize, newest: &mut Newest) {
    let Some((who, rank, not_after)) = point(loaded, row) else { return };
    let Some(met) = newest.of(who) else { return };
    if met.expiry.as_ref().is_none_or(|known| known.rank < rank) {
        met.expiry = Some(Expiry {
            rank,
            not_after,
            issuer: loaded.text(metrics::ISSUER, row),
            source: loaded.text(metrics::SOURCE, row),
            reported_by: loaded.text(a::TOLLGATE_EXPORTER_IDENTITY, row),
        });
    }
}

fn take_since(loaded: &Loaded, row: usize, newest: &mut Newest) {
    let Some((who, rank, since)) = point(loaded, row) else { return };
    let Some(met) = newest.of(who) else { return };
    if met.since.is_none_or(|(known, _)| known < rank) {
        met.since = Some((rank, since));
    }
}
