//! Canaries: where each stands and why, and what somebody may want of it.
//!
//! A rollout is made by the first proxy that reports it, and named in its namespace. What is wanted of it is wanted of
//! the plan in force, and under `If-Match` only of that state of it; under an `Idempotency-Key` it is done once.

use axum::Extension;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use tollgate_rollout::{Action, Plan, Step};
use utoipa::ToSchema;

use super::Admin;
use super::caller::Caller;
use super::extract::{Json, Named, Page, PageQuery, Params, bad_cursor};
use super::problem::{Problem, ProblemBody};
use super::scan::Scan;
use super::write::{idempotency_key, say_replayed};
use crate::store::{ActTerms, Acted, RolloutError, RolloutEvent, StoredRollout};

/// A page of rollouts.
type Rollouts = Page<RolloutView>;
/// What happened to a rollout.
type Events = Page<RolloutEvent>;

/// A rollout. Times are Unix seconds, shares percent.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct RolloutView {
    /// The namespace of the service.
    namespace: String,
    /// Its name there.
    name: String,
    /// The plan's id: the hash of all that it says.
    plan: String,
    /// Whether this is the plan that was adopted last of those of this name.
    in_force: bool,
    /// Whose requests these are.
    service: String,
    /// What is replaced.
    baseline: String,
    /// What may replace it.
    canary: String,
    /// `progressing`, `paused`, `promoted` or `rolled_back`.
    state: &'static str,
    /// Grows with each change.
    generation: u64,
    /// The canary's share.
    weight: f64,
    /// The step it is at, from 1.
    step: usize,
    /// All steps.
    steps: Vec<StepView>,
    /// Why it is where it is.
    reason: String,
    /// What keeps it from the next step.
    #[serde(skip_serializing_if = "Option::is_none")]
    waits_for: Option<String>,
    /// What was answered, in all.
    answers: Answers,
    /// What the analysis says.
    analysis: AnalysisView,
    /// When it began.
    started_at: i64,
    /// When this step began.
    step_began_at: i64,
    /// When it last changed.
    changed_at: i64,
    /// When a proxy last reported.
    reported_at: i64,
}

/// A step of a plan.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct StepView {
    /// The canary's share.
    weight: f64,
    /// How long at least; absent: until somebody promotes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    hold_seconds: Option<f64>,
}

/// What both versions answered.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Answers {
    baseline: u64,
    baseline_failed: u64,
    canary: u64,
    canary_failed: u64,
    /// Of the canary in this step, and how many there must be before the next.
    in_step: u64,
    wanted_in_step: u64,
}

/// What the sequential tests say: how many times more the answers speak against the canary than for it.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct AnalysisView {
    /// That it fails more often.
    fails_more: f64,
    /// That it is slower.
    is_slower: f64,
    /// From here on it is rolled back.
    rolled_back_from: f64,
}

/// Every rollout that the caller may read, by namespace and name; those of plans that were replaced too.
#[utoipa::path(get, path = "/v1/rollouts", tag = "rollouts", params(PageQuery),
    responses((status = 200, body = Rollouts), (status = "default", body = ProblemBody)))]
pub(super) async fn list(
    State(admin): State<Admin>,
    Extension(caller): Extension<Caller>,
    Params(query): Params<PageQuery>,
) -> Result<Json<Rollouts>, Problem> {
    let limit = query.limit();
    let cursor = query.cursor.as_deref().map(place_of).transpose()?;
    let now = now_ms(&admin);
    let place =
        |rollout: &RolloutView| (rollout.namespace.clone(), rollout.name.clone(), rollout.plan.clone());
    let mut scan = Scan::new(limit, cursor);
    while let Some((after, count)) = scan.wants().await {
        let (namespace, name, plan) = after.unwrap_or_default();
        let rows = admin.store.rollouts((&namespace, &name, &plan), count).await?;
        let rows = rows.into_iter().map(|row| view(row, now)).collect();
        scan.take(rows, place, |row: &RolloutView| caller.may_see_rollout(&admin, &row.namespace, &row.name));
    }
    Ok(Json(scan.page(|(namespace, name, plan)| format!("{namespace}/{name}/{plan}"))))
}

/// Reads the rollout in force. Its state is the `etag`.
#[utoipa::path(get, path = "/v1/namespaces/{namespace}/rollouts/{name}", tag = "rollouts",
    params(("namespace" = String, Path), ("name" = String, Path)),
    responses((status = 200, body = RolloutView, headers(("etag" = String))),
        (status = "default", body = ProblemBody)))]
pub(super) async fn read(
    State(admin): State<Admin>,
    Named((namespace, name)): Named<(String, String)>,
) -> Result<Response, Problem> {
    let found = admin.store.rollout(&namespace, &name).await?;
    let found = found.ok_or(RolloutError::NotFound(namespace, name))?;
    Ok(shown(&admin, found))
}

/// What happened to a rollout, the newest first; 500 at most are kept of each plan.
#[utoipa::path(get, path = "/v1/namespaces/{namespace}/rollouts/{name}/events", tag = "rollouts",
    params(("namespace" = String, Path), ("name" = String, Path), PageQuery),
    responses((status = 200, body = Events), (status = "default", body = ProblemBody)))]
pub(super) async fn events(
    State(admin): State<Admin>,
    Named((namespace, name)): Named<(String, String)>,
    Params(query): Params<PageQuery>,
) -> Result<Json<Events>, Problem> {
    let start: u32 = query.cursor.as_deref().map_or(Ok(0), str::parse).map_err(|_| bad_cursor())?;
    let limit = u32::try_from(query.limit()).unwrap_or(u32::MAX);
    // One more than fits tells whether there is a next page.
    let most = start.saturating_add(limit).saturating_add(1);
    let rows = admin.store.rollout_events(&namespace, &name, most).await?;
    let end = start.saturating_add(limit);
    let next = (rows.len() > end as usize).then(|| end.to_string());
    let items = rows.into_iter().skip(start as usize).take(limit as usize).collect();
    Ok(Json(Page { items, next }))
}

/// Stays at the step where it is. Evidence against the canary rolls it back all the same.
#[utoipa::path(post, path = "/v1/namespaces/{namespace}/rollouts/{name}/pause", tag = "rollouts",
    params(("namespace" = String, Path), ("name" = String, Path), ("if-match" = Option<String>, Header),
        ("idempotency-key" = Option<String>, Header), ("x-tollgate-change-reason" = Option<String>, Header)),
    responses((status = 200, body = RolloutView, headers(("etag" = String))),
        (status = "default", body = ProblemBody)))]
pub(super) async fn pause(
    state: State<Admin>,
    caller: Extension<Caller>,
    named: Named<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    act(&state, &caller, named, Action::Pause, &headers).await
}

/// Goes on from step to step; the one where it is begins anew.
#[utoipa::path(post, path = "/v1/namespaces/{namespace}/rollouts/{name}/resume", tag = "rollouts",
    params(("namespace" = String, Path), ("name" = String, Path), ("if-match" = Option<String>, Header),
        ("idempotency-key" = Option<String>, Header), ("x-tollgate-change-reason" = Option<String>, Header)),
    responses((status = 200, body = RolloutView, headers(("etag" = String))),
        (status = "default", body = ProblemBody)))]
pub(super) async fn resume(
    state: State<Admin>,
    caller: Extension<Caller>,
    named: Named<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    act(&state, &caller, named, Action::Resume, &headers).await
}

#[derive(Debug, serde::Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct PromoteQuery {
    /// Past all steps that are left: every request goes to the canary.
    #[serde(default)]
    fully: bool,
}

/// Goes to the next step now; from the last one, every request goes to the canary.
#[utoipa::path(post, path = "/v1/namespaces/{namespace}/rollouts/{name}/promote", tag = "rollouts",
    params(("namespace" = String, Path), ("name" = String, Path), PromoteQuery,
        ("if-match" = Option<String>, Header), ("idempotency-key" = Option<String>, Header),
        ("x-tollgate-change-reason" = Option<String>, Header)),
    responses((status = 200, body = RolloutView, headers(("etag" = String))),
        (status = "default", body = ProblemBody)))]
pub(super) async fn promote(
    state: State<Admin>,
    caller: Extension<Caller>,
    named: Named<(String, String)>,
    Params(query): Params<PromoteQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let action = if query.fully { Action::PromoteFully } else { Action::Promote };
    act(&state, &caller, named, action, &headers).await
}

/// Rolls back: no request goes to the canary any more, but those that an override names.
#[utoipa::path(post, path = "/v1/namespaces/{namespace}/rollouts/{name}/rollback", tag = "rollouts",
    params(("namespace" = String, Path), ("name" = String, Path), ("if-match" = Option<String>, Header),
        ("idempotency-key" = Option<String>, Header), ("x-tollgate-change-reason" = Option<String>, Header)),
    responses((status = 200, body = RolloutView, headers(("etag" = String))),
        (status = "default", body = ProblemBody)))]
pub(super) async fn abort(
    state: State<Admin>,
    caller: Extension<Caller>,
    named: Named<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    act(&state, &caller, named, Action::RollBack, &headers).await
}

/// Begins again at the first step, with nothing known: after a canary was mended under the same plan.
#[utoipa::path(post, path = "/v1/namespaces/{namespace}/rollouts/{name}/restart", tag = "rollouts",
    params(("namespace" = String, Path), ("name" = String, Path), ("if-match" = Option<String>, Header),
        ("idempotency-key" = Option<String>, Header), ("x-tollgate-change-reason" = Option<String>, Header)),
    responses((status = 200, body = RolloutView, headers(("etag" = String))),
        (status = "default", body = ProblemBody)))]
pub(super) async fn restart(
    state: State<Admin>,
    caller: Extension<Caller>,
    named: Named<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    act(&state, &caller, named, Action::Restart, &headers).await
}

async fn act(
    admin: &Admin,
    caller: &Caller,
    Named((namespace, name)): Named<(String, String)>,
    action: Action,
    headers: &HeaderMap,
) -> Result<Response, Problem> {
    let expected = headers.get(header::IF_MATCH).map(|value| {
        let text = value.to_str().ok().and_then(|text| text.strip_prefix('"')?.strip_suffix('"'));
        text.ok_or_else(|| Problem::malformed("if-match: give the etag of the rollout"))
    });
    let by = caller.authorship(None);
    let of = (namespace.as_str(), name.as_str());
    let asked = format!("rollout {namespace}/{name}: {}", action.as_str());
    let key = idempotency_key(caller, headers, &asked)?;
    let terms = ActTerms { expected: expected.transpose()?, key: key.as_ref() };
    let Acted { rollout, change, replayed } = admin.store.act_on_rollout(of, action, terms, &by).await?;
    if let Some(change) = &change {
        admin.metrics.rollout_changed(change.action, change.to);
        let (author, reason, to) = (&by.author, &change.reason, change.to.as_str());
        tracing::info!(
            rollout = name,
            namespace,
            author,
            action = change.action,
            to,
            reason,
            generation = rollout.record.generation,
            "rollout changed by {author}"
        );
    }
    let mut response = shown(admin, rollout);
    if replayed {
        say_replayed(response.headers_mut());
    }
    Ok(response)
}

impl From<RolloutError> for Problem {
    fn from(error: RolloutError) -> Self {
        let detail = error.to_string();
        match error {
            RolloutError::Store(error) => error.into(),
            RolloutError::TooMany => Self::new(StatusCode::CONFLICT, "too_many", detail),
            RolloutError::NotFound(..) => Self::new(StatusCode::NOT_FOUND, "not_found", detail),
            RolloutError::Moved { .. } => Self::new(StatusCode::PRECONDITION_FAILED, "moved", detail),
            RolloutError::Refused(_) => Self::new(StatusCode::CONFLICT, "not_possible", detail),
        }
    }
}

fn shown(admin: &Admin, rollout: StoredRollout) -> Response {
    let tag =
        HeaderValue::try_from(format!("\"{}\"", rollout.tag())).expect("a hash and a number are a header");
    ([(header::ETAG, tag)], axum::Json(view(rollout, now_ms(admin)))).into_response()
}

fn now_ms(admin: &Admin) -> i64 {
    admin.authorizer.now().saturating_mul(1000)
}

fn place_of(cursor: &str) -> Result<(String, String, String), Problem> {
    let mut parts = cursor.split('/').map(str::to_owned);
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(namespace), Some(name), Some(plan), None) => Ok((namespace, name, plan)),
        _ => Err(bad_cursor()),
    }
}

/// A rollout as this API shows it.
pub fn json(rollout: StoredRollout, now_ms: i64) -> serde_json::Value {
    serde_json::to_value(view(rollout, now_ms)).expect("a rollout is JSON")
}

fn view(rollout: StoredRollout, now_ms: i64) -> RolloutView {
    let StoredRollout { plan: id, record, reported_ms, in_force, .. } = rollout;
    let percent = |share: tollgate_rollout::Share| f64::from(share.as_millionths()) / 10_000.0;
    let weight = percent(record.weight());
    let waits_for = record.waits_for(now_ms);
    let (fails_more, is_slower) = record.analysis.against();
    let (baseline, canary) = (record.analysis.baseline, record.analysis.canary);
    let wanted_in_step = record.plan.min_samples;
    let analysis = AnalysisView { fails_more, is_slower, rolled_back_from: record.plan.limit() };
    let Plan { service, name, baseline: of_baseline, canary: of_canary, steps, .. } = record.plan;
    let namespace = service.split_once('/').map_or_else(String::new, |(namespace, _)| namespace.to_owned());
    let step_view = |step: Step| StepView {
        weight: percent(step.weight),
        hold_seconds: step.hold_ms.map(|ms| ms as f64 / 1000.0),
    };
    RolloutView {
        namespace,
        name,
        plan: id,
        in_force,
        service,
        baseline: of_baseline,
        canary: of_canary,
        state: record.state.as_str(),
        generation: record.generation,
        weight,
        step: record.step + 1,
        steps: steps.into_iter().map(step_view).collect(),
        reason: record.reason,
        waits_for,
        answers: Answers {
            baseline: baseline.all(),
            baseline_failed: baseline.failed,
            canary: canary.all(),
            canary_failed: canary.failed,
            in_step: record.step_samples,
            wanted_in_step,
        },
        analysis,
        started_at: record.started_ms / 1000,
        step_began_at: record.step_began_ms / 1000,
        changed_at: record.changed_ms / 1000,
        reported_at: reported_ms / 1000,
    }
}
