//! A running service with the demo policy, and what a test needs to talk to it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jsonwebtoken::Algorithm;
use serde_json::{Value, json};
use tempfile::TempDir;
use tollgate_authz::policy::object::Document;
use tollgate_authz::policy::{SnapshotCell, documents};
use tollgate_authz::store::{Authorship, Store};
use tollgate_authz::{Addresses, App, Config};
use tollgate_proto::envoy_types::pb::envoy::service::auth::v3::authorization_client::AuthorizationClient;
use tollgate_proto::envoy_types::pb::envoy::service::auth::v3::check_response::HttpResponse;
use tollgate_proto::envoy_types::pb::envoy::service::auth::v3::{
    CheckRequest, CheckResponse, DeniedHttpResponse, OkHttpResponse,
};
use tollgate_proto::envoy_types::pb::google::protobuf::value::Kind;
use tollgate_proto::envoy_types::pb::google::protobuf::{Struct, Value as PbValue};
use tollgate_runtime::App as _;
use tollgate_runtime::Service;
use tollgate_runtime::clock::Clock;
use tollgate_runtime::config::Secret;
use tonic::transport::Channel;

use tollgate_testkit::signer::Signer;

pub(crate) const ISSUER: &str = "https://issuer.demo";
const DEADLINE: Duration = Duration::from_secs(10);

/// A service in this process.
pub(crate) struct Running {
    pub(crate) addresses: Addresses,
    pub(crate) store: Store,
    pub(crate) cell: Arc<SnapshotCell>,
    pub(crate) signer: Signer,
    pub(crate) service: Service,
    pub(crate) folder: TempDir,
    pub(crate) http: reqwest::Client,
    checks: AuthorizationClient<Channel>,
}

pub(crate) fn demo_documents() -> Vec<Document> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/policy");
    documents::load_dir(&folder).unwrap().into_iter().map(|written| written.document).collect()
}

pub(crate) fn demo_issuer(signer: &Signer) -> Document {
    let issuer = json!({"kind": "Issuer", "name": "demo", "issuer": ISSUER, "jwks": signer.jwks()});
    serde_json::from_value(issuer).unwrap()
}

impl Running {
    /// Starts a service on an empty SQLite file.
    pub(crate) async fn empty() -> Self {
        let folder = TempDir::new().unwrap();
        let url = format!("sqlite://{}", folder.path().join("authz.db").display());
        Self::on(folder, &url, |_| {}).await
    }

    /// Starts a service with the demo policy and a demo issuer.
    pub(crate) async fn demo() -> Self {
        let running = Self::empty().await;
        running.apply_demo().await;
        running
    }

    pub(crate) async fn on(folder: TempDir, url: &str, change: impl FnOnce(&mut Config)) -> Self {
        Self::at(Clock::system(), folder, url, change).await
    }

    /// As [`Self::on`], at a time of the test's choice.
    pub(crate) async fn at(
        clock: Clock,
        folder: TempDir,
        url: &str,
        change: impl FnOnce(&mut Config),
    ) -> Self {
        let mut config = Config::default();
        config.listen.grpc = ([127, 0, 0, 1], 0).into();
        config.listen.http = ([127, 0, 0, 1], 0).into();
        config.database.url = Secret::new(url);
        config.bootstrap.token_file = folder.path().join("bootstrap-admin.token");
        config.keys.allow_private_addresses = true;
        change(&mut config);
        let service = Service::for_test_at("authz", clock);
        let app = App::build(config, service.clone()).await.unwrap();
        let (addresses, store, cell) = (*app.addresses(), app.store().clone(), Arc::clone(app.snapshots()));
        service.tasks().spawn("app", app.run());
        service.readiness().ready().await;
        let channel = Channel::from_shared(format!("http://{}", addresses.grpc)).unwrap();
        let checks = AuthorizationClient::new(channel.connect_lazy());
        let signer = Signer::new(Algorithm::ES256, "k1");
        Self { addresses, store, cell, signer, service, folder, http: reqwest::Client::new(), checks }
    }

    pub(crate) async fn apply_demo(&self) {
        let mut documents = demo_documents();
        documents.push(demo_issuer(&self.signer));
        self.apply(documents).await;
    }

    /// Applies documents past the API and waits until they are in force.
    pub(crate) async fn apply(&self, documents: Vec<Document>) {
        let by = Authorship::new("test", "set up");
        let applied = self.store.apply(documents, by, false, false).await.unwrap();
        self.in_force(applied.epoch).await;
    }

    pub(crate) async fn in_force(&self, epoch: u64) {
        let mut watching = self.cell.watch();
        let waiting = watching.wait_for(|current| *current >= epoch);
        tokio::time::timeout(DEADLINE, waiting).await.expect("in force in time").unwrap();
    }

    pub(crate) fn bootstrap_file(&self) -> PathBuf {
        self.folder.path().join("bootstrap-admin.token")
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.addresses.http)
    }

    /// Makes the first administrator; answers the token.
    pub(crate) async fn administrator(&self, name: &str) -> String {
        let token = std::fs::read_to_string(self.bootstrap_file()).unwrap();
        let request = self.http.post(self.url("/v1/bootstrap")).bearer_auth(token.trim());
        let answer = request.json(&json!({"name": name})).send().await.unwrap();
        assert_eq!(answer.status(), 201);
        let body: Value = answer.json().await.unwrap();
        body["token"].as_str().unwrap().to_owned()
    }

    /// A good token.
    pub(crate) fn token(&self, subject: &str, scope: &str) -> String {
        self.signer.token(&claims(subject, scope))
    }

    pub(crate) async fn check(&self, ask: &Ask<'_>) -> Answer {
        let answer = self.checks.clone().check(ask.message()).await.unwrap().into_inner();
        Answer(answer)
    }

    /// Sends a message as it is.
    pub(crate) async fn check_message(&self, message: CheckRequest) -> Result<Answer, tonic::Status> {
        Ok(Answer(self.checks.clone().check(message).await?.into_inner()))
    }

    pub(crate) async fn try_check(&self, ask: &Ask<'_>) -> Result<Answer, tonic::Status> {
        Ok(Answer(self.checks.clone().check(ask.message()).await?.into_inner()))
    }

    pub(crate) async fn stop(self) -> TempDir {
        self.service.stop().await;
        self.store.close().await;
        self.folder
    }
}

pub(crate) fn now() -> i64 {
    Clock::system().unix_seconds().cast_signed()
}

pub(crate) fn claims(subject: &str, scope: &str) -> Value {
    json!({
        "iss": ISSUER, "sub": subject, "aud": "insurance", "scope": scope,
        "iat": now(), "exp": now() + 600, "client_id": "web", "jti": "j-1", "groups": ["staff"],
    })
}

/// A Check as our ingress sends it.
pub(crate) struct Ask<'a> {
    pub(crate) method: &'a str,
    pub(crate) path: &'a str,
    pub(crate) host: &'a str,
    pub(crate) headers: Vec<(&'a str, String)>,
    pub(crate) extensions: Vec<(&'a str, &'a str)>,
    pub(crate) source: &'a str,
}

impl<'a> Ask<'a> {
    pub(crate) fn new(method: &'a str, path: &'a str) -> Self {
        Self {
            method,
            path,
            host: "127.0.0.1:8080",
            headers: vec![("x-request-id", "r-1".to_owned())],
            extensions: vec![("tollgate.service", "insurance/policies"), ("tollgate.point", "ingress")],
            source: "",
        }
    }

    pub(crate) fn bearer(mut self, token: &str) -> Self {
        self.headers.push(("authorization", format!("Bearer {token}")));
        self
    }

    pub(crate) fn header(mut self, name: &'a str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }

    pub(crate) fn message(&self) -> CheckRequest {
        let headers: Value = self
            .headers
            .iter()
            .map(|(k, v)| ((*k).to_owned(), json!(v)))
            .collect::<serde_json::Map<_, _>>()
            .into();
        let mut request = CheckRequest::default();
        let attributes = request.attributes.get_or_insert_default();
        attributes.context_extensions =
            self.extensions.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        attributes.source.get_or_insert_default().principal = self.source.to_owned();
        let http = attributes.request.get_or_insert_default().http.get_or_insert_default();
        http.method = self.method.to_owned();
        http.path = self.path.to_owned();
        http.host = self.host.to_owned();
        http.headers = serde_json::from_value(headers).unwrap();
        request
    }
}

/// An answer, easy to ask.
#[derive(Debug)]
pub(crate) struct Answer(pub(crate) CheckResponse);

impl Answer {
    /// What is said instead of letting pass, be it a refusal or an error of ours.
    fn refusal(&self) -> Option<&DeniedHttpResponse> {
        match &self.0.http_response {
            Some(HttpResponse::DeniedResponse(said) | HttpResponse::ErrorResponse(said)) => Some(said),
            _ => None,
        }
    }

    /// What an allow changes.
    pub(crate) fn changes(&self) -> &OkHttpResponse {
        let Some(HttpResponse::OkResponse(changes)) = &self.0.http_response else { panic!("{:?}", self.0) };
        changes
    }

    /// Whether it is an error of ours.
    pub(crate) fn is_error(&self) -> bool {
        matches!(self.0.http_response, Some(HttpResponse::ErrorResponse(_)))
    }

    /// 200 for "may pass".
    pub(crate) fn status(&self) -> i32 {
        self.refusal().map_or(200, |said| said.status.as_ref().unwrap().code)
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let headers = self.refusal()?.headers.iter().filter_map(|option| option.header.as_ref());
        headers.into_iter().find(|header| header.key == name).map(|header| header.value.as_str())
    }

    pub(crate) fn text(&self) -> &str {
        &self.refusal().unwrap().body
    }

    pub(crate) fn body(&self) -> Value {
        self.refusal().map_or(Value::Null, |said| serde_json::from_str(&said.body).unwrap())
    }

    /// What stands under `tollgate` in the dynamic metadata.
    pub(crate) fn metadata(&self) -> Value {
        of_struct(self.0.dynamic_metadata.as_ref().unwrap())["tollgate"].clone()
    }

    pub(crate) fn reason(&self) -> String {
        self.metadata()["reason"].as_str().unwrap().to_owned()
    }
}

fn of_struct(value: &Struct) -> Value {
    Value::Object(value.fields.iter().map(|(key, value)| (key.clone(), of_value(value))).collect())
}

fn of_value(value: &PbValue) -> Value {
    match value.kind.as_ref().unwrap() {
        Kind::StringValue(text) => json!(text),
        Kind::NumberValue(number) => json!(*number as i64),
        Kind::BoolValue(flag) => json!(flag),
        Kind::ListValue(list) => list.values.iter().map(of_value).collect(),
        Kind::StructValue(fields) => of_struct(fields),
        Kind::NullValue(_) => Value::Null,
    }
}
