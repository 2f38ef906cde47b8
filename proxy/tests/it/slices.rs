//! Traffic goes to the pods that Kubernetes tells of.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use tempfile::TempDir;
use tollgate_testkit::echo_app::EchoApp;
use tollgate_testkit::kubernetes_api::{Condition, KubernetesApi, Lists, endpoint, slice};

use crate::harness::{Mesh, Setup};
use crate::pki::quoted;

/// A cluster's API, pods, and a proxy that follows `shop/orders`.
struct Story {
    api: KubernetesApi,
    pods: Vec<EchoApp>,
    mesh: Mesh,
    _mounted: TempDir,
}

impl Story {
    /// `cluster`: further keys, each with a comma before it.
    async fn start(pods: usize, cluster: &str) -> Self {
        let (api, mounted) = (KubernetesApi::start().await, tempfile::tempdir().unwrap());
        api.mount(mounted.path(), "shop");
        let mut apps = Vec::new();
        for _ in 0..pods {
            apps.push(EchoApp::start().await);
        }
        let clusters = format!(
            ", {{name: orders, endpoints: {{endpoint_slices: {{service: orders, port: http, api: '{}', ca_file: {}, token_file: {}}}}}{cluster}}}",
            api.url(),
            quoted(&mounted.path().join("ca.crt")),
            quoted(&mounted.path().join("token")),
        );
        let routes = "routes: [{name: a, matches: [{}], authz: off, backends: [{cluster: orders}]}]";
        let listener = "limit_by_address: {per_second: 0}";
        let mesh =
            Setup { listener, routes: Some(routes), clusters: &clusters, ..Setup::default() }.start().await;
        Self { api, pods: apps, mesh, _mounted: mounted }
    }

    fn address(&self, pod: usize) -> SocketAddr {
        self.pods[pod].address()
    }

    /// Pods of this machine differ by their ports, so each has a slice of its own.
    fn set(&self, pod: usize, condition: Condition, zone: Option<&str>) {
        let at = self.address(pod);
        let endpoints = [endpoint(at.ip(), condition, zone)];
        self.api.put(slice("shop", "orders", &format!("orders-{pod}"), at.port(), &endpoints));
    }

    /// Waits until the proxy has these pods and no others, and sees that they get the requests.
    async fn serves(&self, pods: &[usize]) {
        let expected: BTreeSet<_> = pods.iter().map(|pod| self.address(*pod).to_string()).collect();
        let has = |cluster: &serde_json::Value| {
            let endpoints = cluster["endpoints"].as_array().unwrap();
            endpoints.iter().map(|one| one["address"].as_str().unwrap().to_owned()).collect::<BTreeSet<_>>()
        };
        self.mesh.until("orders", &format!("{expected:?}"), |cluster| has(cluster) == expected).await;
        let counts = || self.pods.iter().map(|app| app.seen().len()).collect::<Vec<_>>();
        let before = counts();
        for _ in 0..40 {
            let answer = self.mesh.get("/a").send().await;
            assert_eq!(answer.status, if pods.is_empty() { 503 } else { 200 }, "{}", answer.body);
        }
        let after = counts();
        let got: Vec<_> = (0..self.pods.len()).filter(|pod| after[*pod] > before[*pod]).collect();
        assert_eq!(got, pods, "{before:?} {after:?}");
    }

    /// Waits until the proxy says this of the Service.
    async fn says(&self, words: &str) {
        let said = |cluster: &serde_json::Value| {
            cluster["discovery_error"].as_str().is_some_and(|error| error.contains(words))
        };
        self.mesh.until("orders", words, said).await;
    }

    async fn has_no_complaint(&self) {
        self.mesh.until("orders", "no complaint", |cluster| cluster["discovery_error"].is_null()).await;
    }
}

#[tokio::test]
async fn traffic_follows_the_pods_of_a_service() {
    let story = Story::start(4, ", balance: round_robin").await;
    story.says("there is no EndpointSlice of a Service `shop/orders`").await;
    story.serves(&[]).await;
    story.set(0, Condition::Ready, None);
    story.set(1, Condition::NotReady, None);
    story.serves(&[0]).await;
    story.has_no_complaint().await;
    // One gets ready, and two come.
    (1..4).for_each(|pod| story.set(pod, Condition::Ready, None));
    story.serves(&[0, 1, 2, 3]).await;
    // One ends, one is gone, one has trouble.
    story.set(0, Condition::Ending, None);
    story.api.delete("shop", "orders-1");
    story.set(2, Condition::NotReady, None);
    story.serves(&[3]).await;
    // The last one goes: the one that ends still serves.
    story.api.delete("shop", "orders-3");
    story.serves(&[0]).await;
    story.says("those that end and still serve are used").await;
    story.api.delete("shop", "orders-0");
    story.serves(&[]).await;
    story.says("none of the 1 pods of `shop/orders` is ready").await;
    story.set(2, Condition::Ready, None);
    story.serves(&[2]).await;
    story.has_no_complaint().await;
}

#[tokio::test]
async fn while_kubernetes_is_away_the_last_pods_serve() {
    let story = Story::start(2, "").await;
    story.set(0, Condition::Ready, None);
    story.serves(&[0]).await;
    story.api.away(true);
    story.says("the Kubernetes API cannot be reached").await;
    story.set(1, Condition::Ready, None);
    story.serves(&[0]).await;
    story.api.away(false);
    story.serves(&[0, 1]).await;
    story.has_no_complaint().await;

    // It is there, and has forgotten where we were; and then it lists nonsense, without end.
    story.api.lists(Lists::Endless);
    story.api.forget();
    story.api.end_watches();
    story.says("an answer of the Kubernetes API is longer than 8388608 bytes").await;
    story.serves(&[0, 1]).await;
    story.api.lists(Lists::Say("{}".to_owned()));
    story.says("cannot be read").await;
    story.serves(&[0, 1]).await;
    story.api.delete("shop", "orders-0");
    story.api.lists(Lists::Honest);
    story.serves(&[1]).await;
    story.has_no_complaint().await;
}

#[tokio::test]
async fn zones_are_localities() {
    let localities = ", localities: [{name: near, weight: 1}, {name: far, weight: 0}]";
    let story = Story::start(3, localities).await;
    story.set(0, Condition::Ready, Some("near"));
    story.set(1, Condition::Ready, Some("far"));
    story.mesh.until("orders", "two", |cluster| cluster["usable"] == 2).await;
    story.has_no_complaint().await;
    for _ in 0..20 {
        assert_eq!(story.mesh.get("/a").send().await.status, 200);
    }
    assert_eq!((story.pods[0].seen().len(), story.pods[1].seen().len()), (20, 0));
    story.set(2, Condition::Ready, Some("elsewhere"));
    story.says("is in zone `elsewhere`, which is no locality of the cluster").await;
}
