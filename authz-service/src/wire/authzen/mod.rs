//! OpenID AuthZEN's evaluation API: may this subject do this to that?
//!
//! Its questions are put to the same policy as a proxy's. Whoever asks needs a permission for it, on the built-in
//! service `admin`, as for the rest of the API, and is answered about services that it may read. The subject is a token (`type: token`, verified as always) or somebody
//! named by the asker (`type: user` or `workload`), who is believed for the length of the answer.

mod messages;

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{FromRef, Request, State};
use axum::http::uri::{Authority, Scheme};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use opentelemetry::Context;
use serde_json::{Value, json};

use crate::authorize::{Authorizer, Decided, Presented, Question, service_of};
use crate::facts::{Entry, PathReadings};
use crate::policy::snapshot::ServiceRules;
use crate::policy::{Snapshot, Verdict};
use crate::token::{Check, Refusal};
use messages::{Evaluation, Evaluations, Semantic, Subject};

/// About which services the caller may ask, by their keys: whoever admits callers says so.
#[derive(Clone)]
pub(crate) struct MayAsk(Arc<dyn Fn(&str) -> bool + Send + Sync>);

impl MayAsk {
    pub(crate) fn new(may_ask: impl Fn(&str) -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(may_ask))
    }
}

/// Why there is no answer.
struct NoAnswer {
    status: StatusCode,
    message: String,
}

impl From<String> for NoAnswer {
    fn from(message: String) -> Self {
        Self { status: StatusCode::BAD_REQUEST, message }
    }
}

impl From<&str> for NoAnswer {
    fn from(message: &str) -> Self {
        message.to_owned().into()
    }
}

/// Questions in one request.
const MAX_EVALUATIONS: usize = 256;

/// The routes, to be put behind the API's own authorization.
pub(crate) fn routes<S>() -> Router<S>
where
    Authorizer: FromRef<S>,
    S: Clone + Send + Sync + 'static,
{
    Router::new()
        .route("/access/v1/evaluation", post(evaluation))
        .route("/access/v1/evaluations", post(evaluations))
        .route("/.well-known/authzen-configuration", get(configuration))
}

async fn evaluation(
    State(authorizer): State<Authorizer>,
    Extension(may_ask): Extension<MayAsk>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let answer = async {
        let asked: Evaluation = parse(&body)?;
        evaluate(&authorizer, &may_ask, &asked).await
    };
    named(&headers, answer.await)
}

async fn evaluations(
    State(authorizer): State<Authorizer>,
    Extension(may_ask): Extension<MayAsk>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    named(&headers, evaluate_all(&authorizer, &may_ask, &body).await)
}

async fn evaluate_all(authorizer: &Authorizer, may_ask: &MayAsk, body: &[u8]) -> Result<Value, NoAnswer> {
    let asked: Evaluations = parse(body)?;
    if asked.evaluations.len() > MAX_EVALUATIONS {
        return Err(format!("more than {MAX_EVALUATIONS} evaluations").into());
    }
    if asked.evaluations.is_empty() {
        // Without a list it is one question (AuthZEN 1.0 §7.1).
        return evaluate(authorizer, may_ask, &asked.common).await;
    }
    let mut answers = Vec::with_capacity(asked.evaluations.len());
    for each in asked.evaluations {
        // A question that cannot be understood is answered with no, in its place; the others are answered as well.
        let answer = match evaluate(authorizer, may_ask, &each.or(&asked.common)).await {
            Ok(answer) => answer,
            Err(NoAnswer { status, message }) => {
                let error = json!({"status": status.as_u16(), "message": message});
                json!({"decision": false, "context": {"error": error}})
            }
        };
        let allowed = answer["decision"] == true;
        answers.push(answer);
        match asked.options.evaluations_semantic {
            Semantic::DenyOnFirstDeny if !allowed => break,
            Semantic::PermitOnFirstPermit if allowed => break,
            _ => {}
        }
    }
    Ok(json!({ "evaluations": answers }))
}

fn parse<'a, T: serde::Deserialize<'a>>(body: &'a [u8]) -> Result<T, String> {
    let mut reader = serde_json::Deserializer::from_slice(body);
    let parsed = serde_path_to_error::deserialize(&mut reader).map_err(|error| error.to_string())?;
    reader.end().map_err(|error| error.to_string())?;
    Ok(parsed)
}

async fn evaluate(authorizer: &Authorizer, may_ask: &MayAsk, asked: &Evaluation) -> Result<Value, NoAnswer> {
    let subject = asked.subject.as_ref().ok_or("subject is missing")?;
    let resource = asked.resource.as_ref().ok_or("resource is missing")?;
    let action = asked.action.as_ref().ok_or("action is missing")?;
    if resource.kind != "service" {
        return Err(format!("resource.type is `{}`; write `service`", resource.kind).into());
    }
    if !(may_ask.0)(&resource.id) {
        // The same whether there is such a service or not.
        let message = "resource.id: a service that the caller may not read".to_owned();
        return Err(NoAnswer { status: StatusCode::FORBIDDEN, message });
    }
    let workload = subject.workload();
    let question = Question {
        guard: crate::facts::Guard::Deny,
        service: Some(&resource.id),
        destination: None,
        entry: if workload.is_some() { Entry::Inside } else { Entry::Outside },
        peer: workload,
        certificate: None,
        holder: None,
        method: &action.name,
        host: resource.properties.host.as_deref().unwrap_or_default(),
        target: resource.properties.path.as_deref().unwrap_or("/"),
        request_id: None,
        headers: &resource.properties.headers,
        source: resource.properties.source,
    };
    let path = PathReadings::of_target(question.target)
        .map_err(|error| format!("resource.properties.path: {error}"))?;
    let mut snapshot = authorizer.cell().load_full();
    let presented = present(authorizer, &mut snapshot, &question, subject).await?;
    let decided = authorizer.decide(&snapshot, &question, path, &presented, &Context::new());
    Ok(said(&decided, snapshot.epoch))
}

async fn present(
    authorizer: &Authorizer,
    snapshot: &mut Arc<Snapshot>,
    question: &Question<'_>,
    subject: &Subject,
) -> Result<Presented, String> {
    match subject.kind.as_str() {
        "token" => Ok(authorizer.believe(snapshot, question, subject.token(), None, &Context::new()).await),
        "workload" => Ok(Presented::Absent),
        "user" => {
            let user = subject.user(snapshot)?;
            let accepts = |rules: &ServiceRules| rules.service.issuers.contains(&user.issuer);
            if service_of(snapshot, question).is_none_or(accepts) {
                return Ok(Presented::Verified(Arc::new(user)));
            }
            let detail = "the service does not accept this issuer";
            Ok(Presented::Refused(Refusal::new(Check::IssuerAccepted, detail)))
        }
        other => Err(format!("subject.type is `{other}`; write `token`, `user` or `workload`")),
    }
}

fn said(decided: &Decided<'_>, epoch: u64) -> Value {
    json!({
        "decision": decided.decision.verdict == Verdict::Allow,
        "context": {
            "id": decided.id.to_string(),
            "reason": decided.decision.reason.as_str(),
            "rule": decided.rule,
            "missing": decided.missing,
            "explanation": decided.explanation,
            "epoch": epoch,
        },
    })
}

/// The answer under the id that the asker gave its request (AuthZEN 1.0 §10.1.4).
fn named(headers: &HeaderMap, answer: Result<Value, NoAnswer>) -> Response {
    let mut response = match answer {
        Ok(answer) => Json(answer).into_response(),
        Err(NoAnswer { status, message }) => (status, Json(json!({"error": message}))).into_response(),
    };
    if let Some(id) = headers.get("x-request-id") {
        response.headers_mut().insert("x-request-id", id.clone());
    }
    response
}

async fn configuration(request: Request) -> Json<Value> {
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    // HTTP/2 has no such header.
    let host = host.or_else(|| request.uri().authority().map(Authority::as_str)).unwrap_or("localhost");
    let is_tls = request.extensions().get::<Scheme>() == Some(&Scheme::HTTPS);
    // Plaintext is loopback only; elsewhere TLS is in front.
    let scheme = if is_loopback(host) && !is_tls { "http" } else { "https" };
    let base = format!("{scheme}://{host}");
    Json(json!({
        "policy_decision_point": base,
        "access_evaluation_endpoint": format!("{base}/access/v1/evaluation"),
        "access_evaluations_endpoint": format!("{base}/access/v1/evaluations"),
    }))
}

fn is_loopback(host: &str) -> bool {
    let name = host.rsplit_once(':').map_or(host, |(name, _port)| name);
    name == "localhost" || name == "127.0.0.1" || name == "[::1]"
}
