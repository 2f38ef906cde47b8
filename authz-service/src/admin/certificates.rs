//! Which workload has which certificate of the built-in authority, since when, and until when.

use axum::extract::State;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use tollgate_identity::certificate::Leaf;
use utoipa::{IntoParams, ToSchema};

use super::Admin;
use super::extract::{self, Json, Page, Params};
use super::problem::{Problem, ProblemBody};
use crate::policy::Snapshot;
use crate::store::CertificateRow;

/// A page of workloads.
type Certificates = Page<WorkloadCertificate>;

/// A workload's newest certificate. Times are Unix seconds.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct WorkloadCertificate {
    /// Whose it is.
    spiffe_id: String,
    /// Its serial number, as revocations name it.
    serial: String,
    /// The name of the root that signed it.
    issuer: String,
    /// SHA-256 of that root's certificate: which of several roots of one name.
    root: String,
    /// How the id was proved: `join-token`, `kubernetes`, `renewal`, or `data-folder` for who can write the database.
    proof: String,
    /// By whose doing it has certificates: who made the join token, or who signed from the data folder.
    issued_by: String,
    /// When it was signed: the last rotation.
    rotated_at: i64,
    /// When the workload last proved its id by anything but a certificate.
    attested_at: i64,
    /// When it ends.
    expires_at: i64,
    /// Whether the workload or this certificate is revoked.
    revoked: bool,
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct CertificatesQuery {
    /// Only what follows: the `next` of the page before.
    cursor: Option<String>,
    /// How many; 100 unless said, 1000 at most.
    limit: Option<usize>,
    /// Also workloads whose last certificate has ended, as far back as is remembered: 30 days.
    #[serde(default)]
    ended: bool,
}

/// Every workload with its newest certificate, by id.
#[utoipa::path(get, path = "/v1/certificates", tag = "certificates", params(CertificatesQuery),
    responses((status = 200, body = Certificates), (status = "default", body = ProblemBody)))]
pub(super) async fn list(
    State(admin): State<Admin>,
    Params(query): Params<CertificatesQuery>,
) -> Result<Json<Certificates>, Problem> {
    let limit = extract::limit(query.limit);
    let now = admin.authorizer.now();
    let (after, ends_after) = (query.cursor.unwrap_or_default(), if query.ended { 0 } else { now });
    // One more than fits tells whether there is a next page.
    let most = u32::try_from(limit + 1).unwrap_or(u32::MAX);
    let mut rows = admin.store.newest_certificates(&after, ends_after, most).await?;
    let is_more = rows.len() > limit;
    rows.truncate(limit);
    let next = rows.last().filter(|_| is_more).map(|row| row.spiffe_id.clone());
    let snapshot = admin.authorizer.cell().load_full();
    let items = rows.into_iter().map(|row| shown(row, &snapshot, now)).collect();
    Ok(Json(Page { items, next }))
}

fn shown(row: CertificateRow, snapshot: &Snapshot, now: i64) -> WorkloadCertificate {
    let leaf = STANDARD.decode(&row.certificate).ok().and_then(|der| Leaf::read(&der).ok());
    WorkloadCertificate {
        revoked: snapshot.revokes_caller(&row.spiffe_id, &row.serial, now),
        issuer: leaf.map(|leaf| leaf.issuer).unwrap_or_default(),
        spiffe_id: row.spiffe_id,
        serial: row.serial,
        root: row.root,
        proof: row.proof,
        issued_by: row.issued_by,
        rotated_at: row.issued_at,
        attested_at: row.attested_at,
        expires_at: row.not_after,
    }
}
