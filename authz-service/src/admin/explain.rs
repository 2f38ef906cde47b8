//! Why something was decided, and what would be decided: every rule that speaks of it, ticked or crossed.
//!
//! A record does not keep all that a request had: values of headers and claims are gone. So an old decision is told
//! twice: as it was kept, and as the policy of its epoch judges what was kept of the request. What that cannot know
//! is named.

use axum::Extension;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Admin;
use super::caller::Caller;
use super::decisions;
use super::extract::{Json, Named};
use super::problem::{Problem, ProblemBody};
use crate::decisions::DecisionRecord;
use crate::policy::Snapshot;
use crate::policy::explain::Explanation;
use crate::policy::hypothetical::{Hypothetical, What, Who, snapshot_of};
use crate::policy::object::{Kind, ObjectId};
use crate::store::StoreError;

/// A request that nobody sent.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ExplainRequest {
    /// Who.
    #[serde(default)]
    who: Who,
    /// What.
    what: What,
    /// By the policy of this epoch; by the one in force without it.
    epoch: Option<u64>,
}

/// What would be decided, and why.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ExplainAnswer {
    /// The policy that was asked.
    epoch: u64,
    /// One line that says why it would be refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    summary: Option<String>,
    /// Every rule that speaks of it.
    explanation: Explanation,
}

/// What would be decided, and why: every rule that speaks of the request, with each of its conditions.
#[utoipa::path(post, path = "/v1/explain", tag = "decisions", request_body = ExplainRequest,
    responses((status = 200, body = ExplainAnswer), (status = "default", body = ProblemBody)))]
pub(super) async fn explain(
    State(admin): State<Admin>,
    Extension(caller): Extension<Caller>,
    Json(request): Json<ExplainRequest>,
) -> Result<Json<ExplainAnswer>, Problem> {
    let asked = Hypothetical { who: request.who, what: request.what };
    let in_force = admin.authorizer.cell().load_full();
    let service = asked.what.service.clone().or_else(|| asked.service(&in_force));
    may_ask(&admin, &caller, service.as_deref())?;
    let Some(epoch) = request.epoch.filter(|epoch| *epoch != in_force.epoch) else {
        return Ok(Json(answer(&admin, &in_force, &asked)?));
    };
    if service.is_none() && !caller.may_see_all(&admin) {
        let detail =
            "an earlier policy is asked about a service by its key (`what.service`), unless it is in force";
        return Err(Problem::new(StatusCode::FORBIDDEN, "default_deny", detail));
    }
    let explaining = async move |admin: Admin, caller: Caller| {
        let snapshot = at_epoch(&admin, epoch).await?;
        // Then, the host may have been another's.
        may_ask(&admin, &caller, asked.service(&snapshot).as_deref())?;
        Ok(Json(answer(&admin, &snapshot, &asked)?))
    };
    admin.whole(&caller, explaining).await
}

/// An old decision, and why.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct DecisionExplained {
    /// As it was kept.
    decision: DecisionRecord,
    /// What the policy of its epoch says to what was kept of the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    then: Option<ExplainAnswer>,
    /// What the policy in force says to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    now: Option<ExplainAnswer>,
    /// What was read of the request and not kept, so that conditions on it are judged as if it were absent.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    not_kept: Vec<String>,
}

/// Why a request was decided as it was, by the id of its decision or its own: the record, and every rule that spoke of it.
#[utoipa::path(get, path = "/v1/decisions/{id}/explain", tag = "decisions",
    params(("id" = String, Path, description = "the id of a decision, or of a request")),
    responses((status = 200, body = DecisionExplained), (status = "default", body = ProblemBody)))]
pub(super) async fn explain_decision(
    State(admin): State<Admin>,
    Extension(caller): Extension<Caller>,
    Named(id): Named<String>,
) -> Result<Json<DecisionExplained>, Problem> {
    let decision = decisions::find(&admin, &caller, &id)?.shown();
    let gone =
        |part: &&String| part.starts_with("header:") || part.starts_with("claim:") || *part == "source";
    let not_kept: Vec<String> = decision.read.iter().filter(gone).cloned().collect();
    let judged_by_policy = ["valid", "absent"].contains(&decision.token.state.as_str());
    let (mut then, mut now) = (None, None);
    if judged_by_policy && decision.reason != "request_malformed" {
        let asked = Hypothetical::of_record(&decision);
        let in_force = admin.authorizer.cell().load_full();
        if in_force.epoch == decision.epoch {
            then = Some(answer(&admin, &in_force, &asked)?);
        } else {
            let (epoch, of_then) = (decision.epoch, asked.clone());
            let explaining = async move |admin: Admin, _| {
                let snapshot = at_epoch(&admin, epoch).await?;
                answer(&admin, &snapshot, &of_then)
            };
            then = Some(admin.whole(&caller, explaining).await?);
            // The time of the request is part of what it was; today's policy is asked as of today.
            let today = Hypothetical { what: What { at: None, ..asked.what.clone() }, ..asked };
            now = Some(answer(&admin, &in_force, &today)?);
        }
    }
    Ok(Json(DecisionExplained { decision, then, now, not_kept }))
}

/// The policy of an earlier epoch, compiled for the purpose. For [`Admin::whole`].
async fn at_epoch(admin: &Admin, epoch: u64) -> Result<Snapshot, Problem> {
    let (set, _) = admin.store.policy_at(epoch).await?;
    snapshot_of(&set, epoch).map_err(|faults| Problem::from(StoreError::Invalid(faults)))
}

/// An explanation tells rules, so it is for those who may read the service that they are about.
fn may_ask(admin: &Admin, caller: &Caller, service: Option<&str>) -> Result<(), Problem> {
    match service.and_then(|key| key.split_once('/')) {
        Some((namespace, name)) => caller.may(admin, "GET", &ObjectId::new(Kind::Service, namespace, name)),
        None => Ok(()),
    }
}

fn answer(admin: &Admin, snapshot: &Snapshot, asked: &Hypothetical) -> Result<ExplainAnswer, Problem> {
    let now = admin.authorizer.now();
    let explanation = asked.explain(snapshot, now).map_err(Problem::malformed)?;
    let summary = asked.judge(snapshot, now).map_err(Problem::malformed)?.explanation;
    Ok(ExplainAnswer { epoch: snapshot.epoch, summary, explanation })
}
