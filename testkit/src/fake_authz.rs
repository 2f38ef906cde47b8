//! An authorization service that answers what a test tells it, over the real protocol.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tollgate_proto::envoy_types::pb::envoy::config::core::v3::{HeaderValue, HeaderValueOption};
use tollgate_proto::envoy_types::pb::envoy::service::auth::v3::authorization_server::{
    Authorization, AuthorizationServer,
};
use tollgate_proto::envoy_types::pb::envoy::service::auth::v3::check_response::HttpResponse;
use tollgate_proto::envoy_types::pb::envoy::service::auth::v3::{
    CheckRequest, CheckResponse, DeniedHttpResponse, OkHttpResponse,
};
use tollgate_proto::envoy_types::pb::envoy::r#type::v3::HttpStatus;
use tollgate_proto::envoy_types::pb::google::protobuf::value::Kind;
use tollgate_proto::envoy_types::pb::google::protobuf::{ListValue, Struct, Value};
use tollgate_proto::envoy_types::pb::google::rpc::Status as RpcStatus;
use tonic::{Request, Response, Status};

use crate::grpc::Server;

/// What a fake answers to a question.
pub type Answer = Arc<dyn Fn(&CheckRequest) -> Result<CheckResponse, Status> + Send + Sync>;

/// The fake. It stops when dropped.
#[derive(Debug)]
pub struct FakeAuthz {
    state: State,
    server: Server,
}

#[derive(Clone)]
struct State {
    questions: Arc<Mutex<Vec<CheckRequest>>>,
    answer: Arc<Mutex<Answer>>,
    delay: Arc<Mutex<Duration>>,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").field("questions", &self.questions.lock().len()).finish_non_exhaustive()
    }
}

impl FakeAuthz {
    /// Answers on a port of its own: lets subjects named by `Bearer <subject>` pass, and 401 for the rest.
    pub async fn start() -> Self {
        let state = State {
            questions: Arc::default(),
            answer: Arc::new(Mutex::new(Arc::new(by_bearer))),
            delay: Arc::default(),
        };
        let server = Server::start(AuthorizationServer::new(state.clone())).await;
        Self { state, server }
    }

    /// Where it is.
    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// Answers so from now on.
    pub fn answer(
        &self,
        answer: impl Fn(&CheckRequest) -> Result<CheckResponse, Status> + Send + Sync + 'static,
    ) {
        *self.state.answer.lock() = Arc::new(answer);
    }

    /// Takes this long for every answer from now on.
    pub fn delay(&self, delay: Duration) {
        *self.state.delay.lock() = delay;
    }

    /// What it was asked, in order.
    pub fn questions(&self) -> Vec<CheckRequest> {
        self.state.questions.lock().clone()
    }
}

#[tonic::async_trait]
impl Authorization for State {
    async fn check(&self, request: Request<CheckRequest>) -> Result<Response<CheckResponse>, Status> {
        let question = request.into_inner();
        self.questions.lock().push(question.clone());
        let delay = *self.delay.lock();
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        let answer = Arc::clone(&*self.answer.lock());
        answer(&question).map(Response::new)
    }
}

/// The header of a question by its name.
pub fn header<'q>(question: &'q CheckRequest, name: &str) -> Option<&'q str> {
    let http = question.attributes.as_ref()?.request.as_ref()?.http.as_ref()?;
    http.headers.get(name).map(String::as_str)
}

fn by_bearer(question: &CheckRequest) -> Result<CheckResponse, Status> {
    Ok(match header(question, "authorization").and_then(|value| value.strip_prefix("Bearer ")) {
        Some(subject) => allow(subject),
        None => deny(401, "token_absent", "{\"request_id\":\"…\"}"),
    })
}

/// Yes, for a subject.
pub fn allow(subject: &str) -> CheckResponse {
    let token = fields([("state", text("valid")), ("kid", text("k1")), ("alg", text("ES256"))]);
    let metadata = fields([
        ("decision", text("allow")),
        ("decision_id", text("01930000-0000-7000-8000-000000000001")),
        ("reason", text("ok")),
        ("rule", text("insurance/reader-reads → policy-reader.read")),
        ("epoch", Value { kind: Some(Kind::NumberValue(7.0)) }),
        ("subject", text(subject)),
        ("issuer", text("demo")),
        ("scopes", Value { kind: Some(Kind::ListValue(ListValue { values: vec![text("policies:read")] })) }),
        ("token", Value { kind: Some(Kind::StructValue(token)) }),
    ]);
    CheckResponse {
        status: Some(RpcStatus::default()),
        dynamic_metadata: Some(under_tollgate(metadata)),
        http_response: Some(HttpResponse::OkResponse(OkHttpResponse::default())),
    }
}

/// No, with a status, a reason and a body.
pub fn deny(status: i32, reason: &str, body: &str) -> CheckResponse {
    let challenge = HeaderValueOption {
        header: Some(HeaderValue {
            key: "www-authenticate".into(),
            value: "Bearer realm=\"tollgate\"".into(),
            ..Default::default()
        }),
        ..Default::default()
    };
    let metadata = fields([
        ("decision", text("deny")),
        ("decision_id", text("01930000-0000-7000-8000-000000000002")),
        ("reason", text(reason)),
        ("rule", text("default-deny")),
        (
            "missing",
            Value { kind: Some(Kind::ListValue(ListValue { values: vec![text("scope:policies:read")] })) },
        ),
    ]);
    CheckResponse {
        status: Some(RpcStatus { code: if status == 401 { 16 } else { 7 }, ..Default::default() }),
        dynamic_metadata: Some(under_tollgate(metadata)),
        http_response: Some(HttpResponse::DeniedResponse(DeniedHttpResponse {
            status: Some(HttpStatus { code: status }),
            headers: vec![challenge],
            body: body.to_owned(),
        })),
    }
}

fn under_tollgate(metadata: Struct) -> Struct {
    fields([("tollgate", Value { kind: Some(Kind::StructValue(metadata)) })])
}

fn text(text: &str) -> Value {
    Value { kind: Some(Kind::StringValue(text.to_owned())) }
}

fn fields<const N: usize>(pairs: [(&str, Value); N]) -> Struct {
    Struct { fields: HashMap::from(pairs.map(|(key, value)| (key.to_owned(), value))) }
}
