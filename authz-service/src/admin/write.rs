//! The one way in which this API changes the policy.
//!
//! ```text
//! wish ──> changes ──> may the caller do each? does the caller hold what each grants? ──> rows, history, epoch
//!          └─────────────────────────── one transaction ───────────────────────────────────────┘
//! ```

use std::collections::BTreeSet;

use aws_lc_rs::digest::{SHA256, digest};
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};

use super::Admin;
use super::auth::bounded;
use super::caller::Caller;
use super::extract::Params;
use super::problem::Problem;
use crate::policy::delegation;
use crate::policy::object::{ObjectId, PolicySet};
use crate::store::{Applied, Change, Guard, IdempotencyKey, Operation, StoreError, Write};

/// How often restoring is tried again when somebody else writes at the same time.
const ATTEMPTS: usize = 5;
/// The longest idempotency key.
const MAX_KEY_BYTES: usize = 255;

/// What is wanted.
#[derive(Debug, Clone)]
pub(super) enum Wish {
    /// These operations.
    Operations(Vec<Operation>),
    /// The policy as it was at an epoch, or one object of it.
    Restore(u64, Option<ObjectId>),
}

/// A wish with its conditions.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    pub(super) wish: Wish,
    pub(super) prune: bool,
    pub(super) dry_run: bool,
    /// The revision that the caller has seen of the one object.
    pub(super) expected: Option<u64>,
    pub(super) reason: Option<String>,
    pub(super) key: Option<IdempotencyKey>,
}

impl Wanted {
    pub(super) fn operations(operations: Vec<Operation>) -> Self {
        let wish = Wish::Operations(operations);
        Self { wish, prune: false, dry_run: false, expected: None, reason: None, key: None }
    }
}

/// Changes the policy as far as the caller may, or tells what would change.
pub(super) async fn perform(admin: &Admin, caller: &Caller, wanted: Wanted) -> Result<Applied, Problem> {
    if let Some(reason) = &wanted.reason {
        bounded(reason)?;
    }
    // A folder that removes what is not in it is compared with everything there is.
    let _place = if wanted.prune { Some(admin.whole_reads.place()?) } else { None };
    for _ in 0..ATTEMPTS {
        let (operations, base) = operations(admin, caller, &wanted.wish).await?;
        let write = Write {
            operations,
            prune: wanted.prune,
            dry_run: wanted.dry_run,
            expected: wanted.expected,
            base,
            by: caller.authorship(wanted.reason.clone()),
            key: wanted.key.clone(),
        };
        let named = match &wanted.wish {
            Wish::Operations(operations) => operations.iter().map(Operation::object).collect(),
            Wish::Restore(_, only) => only.iter().cloned().collect(),
        };
        match admin.store.write_if(write, &Rights { admin, caller, named }).await {
            // An earlier state is restored on the very state that it was compared with.
            Err(StoreError::PolicyMoved { .. }) => {}
            // Who may do what was changed, and is not in force here yet: it is judged again once it is.
            Err(overtaken @ StoreError::Overtaken { found, .. }) => {
                if !admin.applied(found).await {
                    return Err(overtaken.into());
                }
            }
            outcome => return outcome?,
        }
    }
    Err(Problem::new(
        StatusCode::CONFLICT,
        "moved",
        "the policy is changed by others all the time; try again",
    ))
}

/// What the caller may, asked about each change.
struct Rights<'a> {
    admin: &'a Admin,
    caller: &'a Caller,
    /// The objects that the caller named; of others the caller learns no more than may be read.
    named: BTreeSet<ObjectId>,
}

impl Guard for Rights<'_> {
    type Refusal = Problem;

    fn judges_by(&self) -> Option<u64> {
        Some(self.admin.authorizer.cell().load().epoch)
    }

    fn wants(&self, changes: &[Change]) -> Vec<String> {
        self.caller.not_free_to_grant(self.admin, changes)
    }

    fn judge(&self, changes: &[Change], seen: &PolicySet) -> Result<(), Problem> {
        let (admin, caller) = (self.admin, self.caller);
        caller.still_admitted(admin)?;
        for change in changes {
            let method = if change.after.is_some() { "PUT" } else { "DELETE" };
            if self.named.contains(&change.object) {
                caller.may(admin, method, &change.object)?;
            } else {
                caller.may_unnamed(admin, method, &change.object)?;
            }
            if delegation::lifts_revocation(change, admin.authorizer.now()) {
                caller.has_all_rights(admin, None)?;
            }
        }
        self.caller.may_grant(self.admin, changes, seen)
    }
}

/// What the wish means now, and at which epoch that was found out, where it depends on it.
async fn operations(
    admin: &Admin,
    caller: &Caller,
    wish: &Wish,
) -> Result<(Vec<Operation>, Option<u64>), Problem> {
    match wish {
        Wish::Operations(operations) => Ok((operations.clone(), None)),
        Wish::Restore(epoch, only) => {
            let (epoch, only) = (*epoch, only.clone());
            let restoring =
                async move |admin: Admin, _| Ok(admin.store.restoring(epoch, only.as_ref()).await?);
            let (operations, now) = admin.whole(caller, restoring).await?;
            Ok((operations, Some(now)))
        }
    }
}

/// What every write may say beside its body.
#[derive(Debug)]
pub(super) struct Terms {
    /// The revision that the caller has seen, where the request depends on it.
    pub(super) expected: Option<u64>,
    wait: Wait,
    key: Option<(String, String)>,
}

/// Until when an answer waits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Wait {
    /// Until the change is in force in this replica, or for two seconds: the header `x-tollgate-in-force` says which.
    #[default]
    Usual,
    /// Until the change is in force in this replica; where that takes too long, the answer is a 504.
    Applied,
    /// Not at all.
    None,
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct WaitQuery {
    /// `applied` answers once the change is in force in this replica, or with 504; `none` does not wait. Without it
    /// the answer waits up to two seconds and says in `x-tollgate-in-force` what came of it.
    #[serde(default)]
    #[param(inline, required = false)]
    wait: Wait,
}

impl<S: Send + Sync> FromRequestParts<S> for Terms {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Params(WaitQuery { wait }) = Params::from_request_parts(parts, state).await?;
        let path = parts.uri.path().to_owned();
        let key = key_of(&parts.headers)?.map(|key| (key, format!("{} {path}", parts.method)));
        Ok(Self { expected: expected(&parts.headers)?, wait, key })
    }
}

impl Terms {
    /// The idempotency key for a request with this body.
    pub(super) fn key(&self, caller: &Caller, body: &[u8]) -> Result<Option<IdempotencyKey>, Problem> {
        let Some((key, what)) = self.key.as_ref() else { return Ok(None) };
        named(caller, key, &[what.as_bytes(), b"\n", body].concat()).map(Some)
    }

    /// Waits as wished, and says in the answer what came of it.
    pub(super) async fn answer(
        &self,
        admin: &Admin,
        applied: &Applied,
        answer: impl IntoResponse,
    ) -> Result<Response, Problem> {
        if !applied.changes.is_empty() && !applied.replayed {
            admin.metrics.admin_write();
        }
        let in_force = self.wait != Wait::None && admin.applied(applied.epoch).await;
        if self.wait == Wait::Applied && !in_force {
            let detail = format!(
                "the change is kept as epoch {}, but it is not in force here yet; it will be, without another request",
                applied.epoch
            );
            return Err(Problem::new(StatusCode::GATEWAY_TIMEOUT, "not_in_force", detail));
        }
        let mut response = answer.into_response();
        let headers = response.headers_mut();
        headers.insert("x-tollgate-epoch", HeaderValue::from(applied.epoch));
        headers
            .insert("x-tollgate-in-force", HeaderValue::from_static(if in_force { "true" } else { "false" }));
        if applied.replayed {
            say_replayed(headers);
        }
        Ok(response)
    }
}

/// The idempotency key of a request that asks for this, where it has one.
pub(super) fn idempotency_key(
    caller: &Caller,
    headers: &HeaderMap,
    asked: &str,
) -> Result<Option<IdempotencyKey>, Problem> {
    key_of(headers)?.map(|key| named(caller, &key, asked.as_bytes())).transpose()
}

fn named(caller: &Caller, key: &str, asked: &[u8]) -> Result<IdempotencyKey, Problem> {
    if caller.name().is_empty() {
        let detail = "idempotency-key: for callers with a token, or anybody could hear what another has done";
        return Err(Problem::malformed(detail));
    }
    let fingerprint = URL_SAFE_NO_PAD.encode(digest(&SHA256, asked));
    Ok(IdempotencyKey { caller: caller.name(), key: key.to_owned(), fingerprint })
}

/// Says of an answer that what was asked for had been done before.
pub(super) fn say_replayed(headers: &mut HeaderMap) {
    headers.insert("idempotency-replayed", HeaderValue::from_static("true"));
}

fn key_of(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let Some(value) = headers.get("idempotency-key") else { return Ok(None) };
    let text = value.to_str().unwrap_or_default();
    if text.is_empty() || text.len() > MAX_KEY_BYTES {
        let detail =
            format!("idempotency-key: 1 to {MAX_KEY_BYTES} printable characters, a new one each time");
        return Err(Problem::malformed(detail));
    }
    Ok(Some(text.to_owned()))
}

fn expected(headers: &HeaderMap) -> Result<Option<u64>, Problem> {
    if let Some(value) = headers.get(header::IF_NONE_MATCH) {
        return match value.as_bytes() {
            b"*" => Ok(Some(0)),
            _ => Err(Problem::malformed("if-none-match: only `*` makes sense here")),
        };
    }
    let Some(value) = headers.get(header::IF_MATCH) else { return Ok(None) };
    let number = value.to_str().ok().and_then(|text| text.strip_prefix('"')?.strip_suffix('"')?.parse().ok());
    number.map(Some).ok_or_else(|| Problem::malformed("if-match: give the etag of one object"))
}
