//! The workloads of the demo mesh: applications, each behind a sidecar of its own, and the ingress before them all.
//!
//! ```text
//!                      ┌──> policies 8101 ──> 9001, 9002
//! ingress 8080, 8443 ──┼──> quotes   8102 ──> 9011 ──> 8112 ──> policies, payments
//!                      └──> payments 8103 ──> 9021              (mTLS wherever two proxies meet)
//! ```

use std::net::SocketAddr;

use anyhow::Context as _;
use tokio::net::TcpListener;
use tollgate_runtime::net;

use super::{DOMAIN, Parts, endpoint, ingress_sets};
use crate::demo::apps::{self, App};

const INGRESS: (&str, &str) = ("config/ingress.yaml", include_str!("../../../../config/ingress.yaml"));
const POLICIES: (&str, &str) = ("config/sidecar.yaml", include_str!("../../../../config/sidecar.yaml"));
const QUOTES: (&str, &str) =
    ("config/sidecar-quotes.yaml", include_str!("../../../../config/sidecar-quotes.yaml"));
const PAYMENTS: (&str, &str) =
    ("config/sidecar-payments.yaml", include_str!("../../../../config/sidecar-payments.yaml"));

/// What proxies ask and report to.
#[derive(Debug, Clone, Copy)]
pub(in crate::up) struct Services {
    pub(in crate::up) otlp: SocketAddr,
    pub(in crate::up) authz: SocketAddr,
    pub(in crate::up) ratelimit: SocketAddr,
}

/// Where the sidecars listen.
#[derive(Debug, Clone, Copy)]
pub(in crate::up) struct Workloads {
    pub(in crate::up) policies: SocketAddr,
    pub(in crate::up) quotes: SocketAddr,
    /// For the application `quotes` alone.
    pub(in crate::up) quotes_outbound: SocketAddr,
    pub(in crate::up) payments: SocketAddr,
}

impl Parts {
    /// The applications and their sidecars.
    pub(in crate::up) async fn workloads(&mut self, services: Services) -> anyhow::Result<Workloads> {
        let (one, two) = (self.bind_app(9001)?, self.bind_app(9002)?);
        let sets = vec![
            format!("listeners.0.bind={}", self.port(8101)),
            endpoints(0, &[one.local_addr()?, two.local_addr()?]),
        ];
        let policies = self.sidecar("policies-sidecar", POLICIES, "policies", sets, services).await?;
        let policies = nth(&policies, 0)?;

        let app = self.bind_app(9021)?;
        let sets = vec![format!("listeners.0.bind={}", self.port(8103)), endpoints(0, &[app.local_addr()?])];
        let payments = self.sidecar("payments-sidecar", PAYMENTS, "payments", sets, services).await?;
        let payments = nth(&payments, 0)?;
        apps::serve(self.host(), app, App::Payments, "1.0")?;

        let app = self.bind_app(9011)?;
        let sets = vec![
            format!("listeners.0.bind={}", self.port(8102)),
            format!("listeners.1.bind={}", self.port(8112)),
            endpoints(0, &[app.local_addr()?]),
            endpoints(1, &[policies]),
            mutual(1, "policies"),
            endpoints(2, &[payments]),
            mutual(2, "payments"),
        ];
        let quotes = self.sidecar("quotes-sidecar", QUOTES, "quotes", sets, services).await?;
        let (quotes, quotes_outbound) = (nth(&quotes, 0)?, nth(&quotes, 1)?);
        apps::serve(self.host(), app, App::Quotes(quotes_outbound), "1.0")?;
        for instance in [one, two] {
            apps::serve(self.host(), instance, App::Policies, "1.0")?;
        }
        Ok(Workloads { policies, quotes, quotes_outbound, payments })
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
            endpoints(1, &[workloads.quotes]),
            mutual(1, "quotes"),
            endpoints(2, &[workloads.payments]),
            mutual(2, "payments"),
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
