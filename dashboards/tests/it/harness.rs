//! A dashboard on free ports, a browser that is signed in, and OTLP messages.

use std::time::Duration;

use serde_json::Value;
use tollgate_dashboard::{Addresses, App, Config};
use tollgate_proto::attributes as a;
use tollgate_proto::opentelemetry_proto::tonic::{
    collector::logs::v1::{ExportLogsServiceRequest, logs_service_client::LogsServiceClient},
    common::v1::{AnyValue, KeyValue, any_value},
    logs::v1::{LogRecord, ResourceLogs, ScopeLogs},
    resource::v1::Resource,
};
use tollgate_runtime::clock::Clock;
use tollgate_runtime::{App as _, Service};

pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

pub(crate) struct Dashboard {
    pub(crate) addresses: Addresses,
    pub(crate) service: Service,
    pub(crate) link: String,
    pub(crate) http: reqwest::Client,
    cookie: String,
    csrf: String,
    _dir: tempfile::TempDir,
}

pub(crate) async fn start() -> Dashboard {
    start_with(|_| {}).await
}

pub(crate) async fn start_with(change: impl FnOnce(&mut Config)) -> Dashboard {
    let dir = tempfile::tempdir().unwrap();
    let mut config = Config::default();
    config.store.dir = dir.path().join("telemetry");
    let any = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    (config.web.listen, config.otlp.grpc, config.otlp.http) = (any, any, any);
    change(&mut config);
    let service = Service::for_test("dashboard");
    let app = App::build(config, service.clone()).await.unwrap();
    let addresses = *app.addresses();
    let link = app.login_link().await.unwrap();
    service.tasks().spawn("app", async move { app.run().await });
    let mut dashboard = Dashboard {
        addresses,
        service,
        link: link.clone(),
        http: reqwest::Client::builder().build().unwrap(),
        cookie: String::new(),
        csrf: String::new(),
        _dir: dir,
    };
    let token = link.split("token=").nth(1).unwrap().to_owned();
    let answer = dashboard.login(&token).await;
    assert_eq!(answer.status(), 200);
    let cookie = answer.headers()["set-cookie"].to_str().unwrap().to_owned();
    assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"), "{cookie}");
    dashboard.cookie = cookie.split(';').next().unwrap().to_owned();
    dashboard.csrf = answer.json::<Value>().await.unwrap()["csrf"].as_str().unwrap().to_owned();
    dashboard
}

impl Dashboard {
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.addresses.web)
    }

    pub(crate) async fn login(&self, token: &str) -> reqwest::Response {
        let body = serde_json::json!({"token": token});
        self.http.post(self.url("/api/v1/auth/login")).json(&body).send().await.unwrap()
    }

    pub(crate) fn get(&self, path: &str) -> reqwest::RequestBuilder {
        self.http.get(self.url(&format!("/api/v1{path}"))).header("cookie", &self.cookie)
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> reqwest::RequestBuilder {
        let request = self.http.post(self.url(&format!("/api/v1{path}"))).json(body);
        request.header("cookie", &self.cookie).header("x-csrf-token", &self.csrf)
    }

    pub(crate) fn cookie(&self) -> &str {
        &self.cookie
    }

    /// GETs JSON that must be there.
    pub(crate) async fn json(&self, path: &str) -> Value {
        ok(self.get(path)).await
    }

    pub(crate) async fn search(&self, q: &str) -> Value {
        ok(self.post("/requests/search", &serde_json::json!({"q": q}))).await
    }

    pub(crate) async fn send(&self, records: Vec<LogRecord>) {
        let mut client =
            LogsServiceClient::connect(format!("http://{}", self.addresses.otlp_grpc)).await.unwrap();
        let answer = client.export(request(records)).await.unwrap().into_inner();
        assert_eq!(answer.partial_success, None);
    }
}

pub(crate) async fn ok(request: reqwest::RequestBuilder) -> Value {
    let answer = request.send().await.unwrap();
    let (status, body) = (answer.status(), answer.text().await.unwrap());
    assert_eq!(status, 200, "{body}");
    serde_json::from_str(&body).unwrap()
}

pub(crate) fn now_ns() -> u64 {
    Clock::system().unix_nanos()
}

pub(crate) fn text(key: &str, value: &str) -> KeyValue {
    let value = Some(AnyValue { value: Some(any_value::Value::StringValue(value.to_owned())) });
    KeyValue { key: key.to_owned(), value, ..Default::default() }
}

pub(crate) fn int(key: &str, value: i64) -> KeyValue {
    let value = Some(AnyValue { value: Some(any_value::Value::IntValue(value)) });
    KeyValue { key: key.to_owned(), value, ..Default::default() }
}

pub(crate) fn request(records: Vec<LogRecord>) -> ExportLogsServiceRequest {
    let attributes = vec![text(a::SERVICE_NAME, "ingress"), text(a::SERVICE_INSTANCE_ID, "i-1")];
    let scope_logs = vec![ScopeLogs { log_records: records, ..Default::default() }];
    let resource = Some(Resource { attributes, ..Default::default() });
    ExportLogsServiceRequest {
        resource_logs: vec![ResourceLogs { resource, scope_logs, ..Default::default() }],
    }
}

/// What a request was.
pub(crate) struct Story<'a> {
    pub(crate) id: &'a str,
    pub(crate) reporter: &'a str,
    pub(crate) status: i64,
    pub(crate) reason: &'a str,
    pub(crate) caller: &'a str,
    pub(crate) method: &'a str,
    pub(crate) path: &'a str,
    pub(crate) dest: &'a str,
    pub(crate) version: &'a str,
    pub(crate) duration_us: i64,
}

impl Default for Story<'_> {
    fn default() -> Self {
        Self {
            id: "r-1",
            reporter: "gateway",
            status: 200,
            reason: "ok",
            caller: "reader",
            method: "GET",
            path: "/policies/POL-1",
            dest: "policies",
            version: "1.0",
            duration_us: 6_200,
        }
    }
}

impl Story<'_> {
    pub(crate) fn record(&self) -> LogRecord {
        let mut attributes = vec![
            text(a::TOLLGATE_REQUEST_ID, self.id),
            text(a::TOLLGATE_REPORTER, self.reporter),
            text(a::TOLLGATE_REASON, self.reason),
            text(a::ENDUSER_ID, self.caller),
            text(a::HTTP_REQUEST_METHOD, self.method),
            text(a::URL_PATH, self.path),
            text(a::HTTP_ROUTE, "policies"),
            text(a::TOLLGATE_DESTINATION_WORKLOAD, self.dest),
            text(a::TOLLGATE_DESTINATION_NAMESPACE, "insurance"),
            text(a::TOLLGATE_DESTINATION_VERSION, self.version),
            int(a::HTTP_RESPONSE_STATUS_CODE, self.status),
            int(a::TOLLGATE_DURATION_US, self.duration_us),
            int(a::TOLLGATE_ACCEPT_US, 100),
            int(a::TOLLGATE_ROUTE_US, 10),
            int(a::TOLLGATE_AUTHZ_US, 900),
            int(a::TOLLGATE_AUTHZ_EPOCH, 412),
        ];
        if self.reason == "ok" {
            attributes.push(int(a::TOLLGATE_UPSTREAM_US, self.duration_us - 1_200));
        }
        LogRecord {
            time_unix_nano: now_ns() - 1_000_000_000,
            event_name: "tollgate.access".to_owned(),
            attributes,
            trace_id: vec![7; 16],
            span_id: vec![9; 8],
            body: Some(AnyValue { value: Some(any_value::Value::StringValue("one line".to_owned())) }),
            ..Default::default()
        }
    }
}
