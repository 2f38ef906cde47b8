//! Who may ask over mTLS, and on whose behalf.

use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;
use tollgate_authz::ca::{CaConfig, CertificateAuthority, OwnSource};
use tollgate_identity::Identity;
use tollgate_identity::signing::Profile;
use tollgate_identity::tls::GrpcChannel;
use tollgate_proto::envoy_types::pb::envoy::service::auth::v3::attribute_context::{
    HttpRequest, Peer, Request,
};
use tollgate_proto::envoy_types::pb::envoy::service::auth::v3::authorization_client::AuthorizationClient;
use tollgate_proto::envoy_types::pb::envoy::service::auth::v3::{AttributeContext, CheckRequest};
use tollgate_proto::rollout::rollouts_client::RolloutsClient;
use tollgate_proto::rollout::{Plan, ReportRequest, ReportResponse, RolloutReport, Step};
use tonic::Code;

use crate::running::Running;

const DOMAIN: &str = "tollgate.demo";

fn id(name: &str) -> String {
    format!("spiffe://{DOMAIN}/ns/{name}")
}

struct Strict {
    running: Running,
    ca: CertificateAuthority,
}

impl Strict {
    async fn start() -> Self {
        let folder = TempDir::new().unwrap();
        let url = format!("sqlite://{}", folder.path().join("authz.db").display());
        let mut config = ca_config(folder.path());
        config.listen.set_port(0);
        let own = config.clone();
        let running = Running::on(folder, &url, |all| {
            all.ca = Some(config);
            all.listen.mtls = true;
        })
        .await;
        running.apply_demo().await;
        let clock = running.service.clock().clone();
        let ca = CertificateAuthority::open(own, running.store.clone(), clock).await.unwrap();
        Self { running, ca }
    }

    /// A workload with a certificate of the authority.
    async fn workload(&self, name: &str) -> Identity {
        let source = OwnSource::new(self.ca.clone(), id(name).parse().unwrap(), Profile::default());
        Identity::follow(Box::new(source), &self.running.service).await.unwrap()
    }

    /// A connection to the service, as this workload.
    fn channel(&self, asker: &Identity) -> GrpcChannel {
        let service = &self.running.service;
        let endpoint =
            format!("http://{}", self.running.addresses.grpc).parse::<tonic::transport::Uri>().unwrap();
        let expected = vec![id("tollgate-system/sa/authz").parse().unwrap()];
        GrpcChannel::mutual(endpoint.into(), asker.clone(), expected, service.clock().clone()).unwrap()
    }

    /// What the service answers it, when it reports a rollout of the policies.
    async fn report(&self, asker: &Identity) -> Result<ReportResponse, Code> {
        let plan = Plan {
            service: "insurance/policies".into(),
            name: "v1-1".into(),
            steps: vec![Step { weight_millionths: 100_000, hold_ms: None }],
            min_samples: 10,
            false_alarm_millionths: 1_000,
            ..Plan::default()
        };
        let report = RolloutReport { plan: Some(plan), ..RolloutReport::default() };
        let request = ReportRequest { proxy: "p".into(), rollouts: vec![report] };
        let answer = RolloutsClient::new(self.channel(asker).channel()).report(request).await;
        answer.map(tonic::Response::into_inner).map_err(|status| status.code())
    }

    /// What the service answers it, when it asks about `GET /policies` by the user `reader`.
    async fn ask(&self, asker: &Identity, source: &str) -> Result<i32, Code> {
        let channel = self.channel(asker);
        let token = self.running.token("reader", "policies:read");
        let headers = [("authorization".to_owned(), format!("Bearer {token}"))].into_iter().collect();
        let http = HttpRequest {
            method: "GET".into(),
            path: "/policies".into(),
            host: "policies.insurance".into(),
            headers,
            ..Default::default()
        };
        let attributes = AttributeContext {
            source: Some(Peer { principal: source.to_owned(), ..Default::default() }),
            request: Some(Request { http: Some(http), ..Default::default() }),
            ..Default::default()
        };
        let check = CheckRequest { attributes: Some(attributes) };
        let answer = AuthorizationClient::new(channel.channel()).check(check).await;
        answer.map(|answer| answer.into_inner().status.unwrap().code).map_err(|status| status.code())
    }

    async fn apply(&self, object: Value) {
        self.running.apply(vec![serde_json::from_value(object).unwrap()]).await;
    }
}

fn ca_config(folder: &Path) -> CaConfig {
    CaConfig::new(DOMAIN.parse().unwrap(), folder.join("wrapping.key"))
}

#[tokio::test]
async fn only_enforcers_are_answered_each_within_its_bounds() {
    let strict = Strict::start().await;
    let through = id("tollgate-system/sa/ingress");
    let ingress = &strict.workload("tollgate-system/sa/ingress").await;
    let sidecar = &strict.workload("insurance/sa/policies").await;
    let stranger = &strict.workload("insurance/sa/stranger").await;
    assert_eq!(strict.ask(ingress, "").await, Ok(0));
    // The sidecar: what comes from the ingress came from outside, what comes from a workload did not.
    assert_eq!(strict.ask(sidecar, &through).await, Ok(0));
    assert_eq!(strict.ask(sidecar, &id("insurance/sa/stranger")).await, Ok(7));
    assert_eq!(strict.ask(stranger, "").await, Err(Code::PermissionDenied));
    strict
        .apply(json!({"kind": "Enforcer", "name": "policies", "spiffe_id": id("insurance/sa/policies"),
        "point": "sidecar-in", "services": ["insurance/other"]}))
        .await;
    assert_eq!(strict.ask(sidecar, &through).await, Err(Code::PermissionDenied));
    // It keeps its name and becomes another workload.
    strict.apply(json!({"kind": "Enforcer", "name": "policies", "spiffe_id": id("insurance/sa/stranger"), "point": "ingress"})).await;
    assert_eq!(strict.ask(stranger, "").await, Ok(0));
    assert_eq!(strict.ask(sidecar, &through).await, Err(Code::PermissionDenied));
    // Revoked, it is not even heard.
    strict.apply(json!({"kind": "Revocation", "name": "stolen", "workload": through, "until": "2999-01-01T00:00:00Z"})).await;
    assert_eq!(strict.ask(ingress, "").await, Err(Code::PermissionDenied));

    let plain = format!("http://{}", strict.running.addresses.grpc).parse::<tonic::transport::Uri>().unwrap();
    let plain = GrpcChannel::plain(plain.into()).channel();
    assert!(AuthorizationClient::new(plain).check(CheckRequest::default()).await.is_err());
}

#[tokio::test]
async fn only_enforcers_report_rollouts_each_of_its_own_services() {
    let strict = Strict::start().await;
    let ingress = strict.workload("tollgate-system/sa/ingress").await;
    let stranger = strict.workload("insurance/sa/stranger").await;
    let heard = strict.report(&ingress).await.unwrap().rollouts.remove(0);
    assert_eq!((heard.refused.as_str(), heard.generation), ("", 1));
    assert_eq!(strict.report(&stranger).await, Err(Code::PermissionDenied));
    strict
        .apply(json!({"kind": "Enforcer", "name": "other", "spiffe_id": id("insurance/sa/stranger"),
        "point": "sidecar-in", "services": ["insurance/other"]}))
        .await;
    let refused = strict.report(&stranger).await.unwrap().rollouts.remove(0);
    assert_eq!(
        (refused.refused.as_str(), refused.generation),
        ("the enforcer may not ask about this service", 0)
    );
    // Revoked, it is not even heard.
    strict.apply(json!({"kind": "Revocation", "name": "stolen", "workload": id("tollgate-system/sa/ingress"), "until": "2999-01-01T00:00:00Z"})).await;
    assert_eq!(strict.report(&ingress).await, Err(Code::PermissionDenied));
}
