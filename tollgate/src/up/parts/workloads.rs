//! The workloads of the demo mesh: applications, each behind a sidecar of its own, and the ingress before them all.
//!
//! ```text
//!                      ┌─ 90 % ──> policies 1.0 8101 ──> 9001, 9002
//!                      ├─ 10 % ──> policies 1.1 8104 ──> 9003
//! ingress 8080, 8443 ──┼─────────> quotes       8102 ──> 9011 ──> 8112 ──┬──> policies, payments
//!                      └─────────> payments     8103 ──> 9021            └──> egress 8190 ──TLS──> credit-bureau 9443
//! ```
//!
//! Wherever two proxies meet they speak mTLS.

use std::net::SocketAddr;

use anyhow::Context as _;
use tokio::net::TcpListener;
use tollgate_runtime::net;

use super::{DOMAIN, Parts, endpoint, ingress_sets};
use crate::demo::apps::{self, App};
use crate::demo::partner;

const INGRESS: (&str, &str) = ("config/ingress.yaml", include_str!("../../../../config/ingress.yaml"));
const POLICIES: (&str, &str) = ("config/sidecar.yaml", include_str!("../../../../config/sidecar.yaml"));
const QUOTES: (&str, &str) =
    ("config/sidecar-quotes.yaml", include_str!("../../../../config/sidecar-quotes.yaml"));
const PAYMENTS: (&str, &str) =
    ("config/sidecar-payments.yaml", include_str!("../../../../config/sidecar-payments.yaml"));
const EGRESS: (&str, &str) = ("config/egress.yaml", include_str!("../../../../config/egress.yaml"));

/// What proxies ask and report to.
#[derive(Debug, Clone, Copy)]
pub(in crate::up) struct Services {
    pub(in crate::up) otlp: SocketAddr,
    pub(in crate::up) authz: SocketAddr,
    pub(in crate::up) ratelimit: SocketAddr,
}

/// Where the sidecars listen, and instances of applications.
#[derive(Debug, Clone, Copy)]
pub(in crate::up) struct Workloads {
    pub(in crate::up) policies: SocketAddr,
    pub(in crate::up) policies_next: SocketAddr,
    /// Instances of `policies` 1.0, and of 1.1.
    pub(in crate::up) instances: [SocketAddr; 2],
    pub(in crate::up) instance_next: SocketAddr,
    pub(in crate::up) quotes: SocketAddr,
    /// For the application `quotes` alone.
    pub(in crate::up) quotes_outbound: SocketAddr,
    pub(in crate::up) payments: SocketAddr,
    pub(in crate::up) egress: SocketAddr,
}

impl Parts {
    /// The applications and their sidecars.
    pub(in crate::up) async fn workloads(&mut self, services: Services) -> anyhow::Result<Workloads> {
        let (one, two) = (self.bind_app(9001)?, self.bind_app(9002)?);
        let instances = [one.local_addr()?, two.local_addr()?];
        let sets = vec![
            format!("listeners.0.bind={}", self.port(8101)),
            endpoints(0, &instances),
            // A person who watches `tollgate demo` sees an instance come back, and a breaker open.
            "clusters.0.outlier_detection={interval: 1s, base_ejection_time: 10s, jitter: 1s, \
             failure_percentage: {request_volume: 20}}"
                .to_owned(),
            "clusters.0.breaker={requests: 64}".to_owned(),
        ];
        let policies = self.sidecar("policies-sidecar", POLICIES, "policies", sets, services).await?;
        let policies = nth(&policies, 0)?;

        let next = self.bind_app(9003)?;
        let instance_next = next.local_addr()?;
        let sets = vec![
            "name=policies-next-sidecar".to_owned(),
            "process.listen=127.0.0.1:7115".to_owned(),
            format!("listeners.0.bind={}", self.port(8104)),
            endpoints(0, &[instance_next]),
            "clusters.0.version='1.1'".to_owned(),
        ];
        let policies_next =
            self.sidecar("policies-next-sidecar", POLICIES, "policies", sets, services).await?;
        let policies_next = nth(&policies_next, 0)?;

        let app = self.bind_app(9021)?;
        let sets = vec![format!("listeners.0.bind={}", self.port(8103)), endpoints(0, &[app.local_addr()?])];
        let payments = self.sidecar("payments-sidecar", PAYMENTS, "payments", sets, services).await?;
        let payments = nth(&payments, 0)?;
        apps::serve(self.host(), app, App::Payments, "1.0")?;

        let egress = self.egress(services).await.context("the egress gateway")?;

        let app = self.bind_app(9011)?;
        let sets = vec![
            format!("listeners.0.bind={}", self.port(8102)),
            format!("listeners.1.bind={}", self.port(8112)),
            endpoints(0, &[app.local_addr()?]),
            endpoints(1, &[policies]),
            mutual(1, "policies"),
            endpoints(2, &[payments]),
            mutual(2, "payments"),
            endpoints(3, &[egress]),
            format!("clusters.3.tls={{spiffe_ids: ['spiffe://{DOMAIN}/ns/tollgate-system/sa/egress']}}"),
            // Whoever says so has the new version see a copy.
            format!("clusters.4={{name: policies-1.1, version: '1.1', endpoints: {{static: ['{policies_next}']}}}}"),
            mutual(4, "policies"),
            "routes.4={name: to-policies-shadowed, listeners: [outbound], hostnames: [policies.insurance], \
             service: insurance/policies, matches: [{headers: [{name: x-shadow, value: 'true'}]}], authz: off, \
             backends: [{cluster: policies}], request_mirror: {cluster: policies-1.1, max_in_flight: 100}}"
                .to_owned(),
        ];
        let quotes = self.sidecar("quotes-sidecar", QUOTES, "quotes", sets, services).await?;
        let (quotes, quotes_outbound) = (nth(&quotes, 0)?, nth(&quotes, 1)?);
        apps::serve(self.host(), app, App::Quotes(quotes_outbound), "1.0")?;
        for instance in [one, two] {
            apps::serve(self.host(), instance, App::Policies, "1.0")?;
        }
        apps::serve(self.host(), next, App::Policies, "1.1")?;
        Ok(Workloads {
            policies,
            policies_next,
            instances,
            instance_next,
            quotes,
            quotes_outbound,
            payments,
            egress,
        })
    }

    /// The way out, and the partner at its end: a server that is none of the mesh's workloads.
    async fn egress(&mut self, services: Services) -> anyhow::Result<SocketAddr> {
        let (partner, root) = partner::serve(self.host(), self.port(9443), &self.options.data)?;
        let sets = vec![
            self.identity_set("tollgate-system", "egress").await?,
            format!("listeners.0.bind={}", self.port(8190)),
            "listeners.0.mtls=strict".to_owned(),
            format!("authz.address=https://{}", services.authz),
            // No name server knows the demo's partner, nor any public authority its certificate.
            format!("clusters.0.endpoints={{static: ['{partner}']}}"),
            format!("clusters.0.tls.ca={}", root.display()),
            endpoint(services.otlp),
        ];
        nth(&self.proxy("egress", EGRESS, sets).await?, 0)
    }

    fn bind_app(&self, port: u16) -> anyhow::Result<TcpListener> {
        Ok(net::bind(self.port(port), "demo application")?)
    }

    /// A sidecar: its inbound listener takes workloads with a certificate, and authz is asked about each request.
    async fn sidecar(
        &mut self,
        name: &'static str,
        file: (&str, &str),
        workload: &str,
        mut sets: Vec<String>,
        services: Services,
    ) -> anyhow::Result<Vec<(String, SocketAddr)>> {
        sets.extend([
            self.identity_set("insurance", workload).await?,
            "listeners.0.mtls=strict".to_owned(),
            format!("authz.address=https://{}", services.authz),
            endpoint(services.otlp),
        ]);
        self.proxy(name, file, sets).await.with_context(|| format!("the sidecar of {workload}"))
    }

    pub(in crate::up) async fn ingress(
        &mut self,
        services: Services,
        workloads: Workloads,
    ) -> anyhow::Result<(SocketAddr, SocketAddr)> {
        let Services { otlp, authz, ratelimit } = services;
        let mut sets = ingress_sets(self.port(8080), authz, ratelimit, workloads.policies);
        let mtls = self.port(8443);
        sets.extend([
            self.identity_set("tollgate-system", "ingress").await?,
            format!("authz.address=https://{authz}"),
            format!("rate_limit.address=https://{ratelimit}"),
            mutual(0, "policies"),
            "clusters.0.version='1.0'".to_owned(),
            endpoints(1, &[workloads.quotes]),
            mutual(1, "quotes"),
            endpoints(2, &[workloads.payments]),
            mutual(2, "payments"),
            format!(
                "clusters.3={{name: policies-1.1, version: '1.1', endpoints: {{static: ['{}']}}}}",
                workloads.policies_next
            ),
            mutual(3, "policies"),
            "routes.1.backends=[{cluster: policies, weight: 90}, {cluster: policies-1.1, weight: 10}]"
                .to_owned(),
            "routes.1.overrides=[{cluster: policies-1.1, headers: [{name: x-preview, value: 'true'}]}]"
                .to_owned(),
            // For those who ask for it, a canary that moves by itself: `tollgate demo rollback` has it fail.
            "routes.4={name: policies-rollout, service: insurance/policies, timeout: 15s, \
             matches: [{path: {type: PathTemplate, value: '/policies/{id}'}, \
             headers: [{name: x-rollout, value: 'true'}]}], \
             backends: [{cluster: policies}, {cluster: policies-1.1}], \
             descriptors: [[{key: subject, value: '{token.subject}'}]], \
             rollout: {name: policies-1-1, canary: policies-1.1, steps: [{weight: 30}], latency: null, \
             report_interval: 1s}}"
                .to_owned(),
            format!("listeners.1={{name: ingress-mtls, bind: '{mtls}', role: ingress, mtls: strict}}"),
            endpoint(otlp),
        ]);
        let ready: Vec<String> = self
            .processes()
            .iter()
            .map(|(_, address)| format!("\"http://{address}/ready\""))
            .chain(["self".to_owned()])
            .collect();
        sets.push(format!("routes.0.direct_response.when_ready=[{}]", ready.join(", ")));
        let listeners = self.proxy("ingress", INGRESS, sets).await?;
        Ok((nth(&listeners, 0)?, nth(&listeners, 1)?))
    }
}

fn nth(listeners: &[(String, SocketAddr)], index: usize) -> anyhow::Result<SocketAddr> {
    let (_, address) = listeners.get(index).context("the proxy has fewer listeners than its file")?;
    Ok(*address)
}

/// `--set` for the endpoints of a cluster.
fn endpoints(cluster: usize, addresses: &[SocketAddr]) -> String {
    let addresses: Vec<String> = addresses.iter().map(|address| format!("\"{address}\"")).collect();
    format!("clusters.{cluster}.endpoints.static=[{}]", addresses.join(", "))
}

/// `--set` for a cluster that is a workload of the demo.
fn mutual(cluster: usize, workload: &str) -> String {
    format!("clusters.{cluster}.tls={{spiffe_ids: ['spiffe://{DOMAIN}/ns/insurance/sa/{workload}']}}")
}
