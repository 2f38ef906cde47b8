//! What `tollgate demo` shows on a running mesh is seen, and a mesh that does otherwise is told apart.

use tollgate::demo::patterns::{self, Pattern};
use tollgate_e2e::Demo;
use tollgate_runtime::config::Env;

#[tokio::test(flavor = "multi_thread")]
async fn every_pattern_is_seen_on_the_demo_mesh() {
    let canary =
        ["ingress.routes.1.backends=[{cluster: policies, weight: 90}, {cluster: policies-1.1, weight: 10}]"];
    let demo = Demo::start_as(Env::empty(), &canary).await;
    for pattern in Pattern::ALL {
        let told = patterns::tell(demo.data(), pattern, &Env::empty()).await.unwrap();
        println!("{pattern:?}: {}", told.saw);
        assert!(told.seen, "{pattern:?}: {told:#?}");
    }
    demo.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pattern_that_is_not_there_is_not_seen() {
    let without = [
        "quotes-sidecar.routes.4.request_mirror=null",
        "ingress.routes.1.overrides=[]",
        "egress.routes.0.matches=[{path: {type: Exact, value: /elsewhere}}]",
        // As many failures as there will be are none too many.
        "ingress.routes.4.rollout.success={tolerance: 50}",
    ];
    let demo = Demo::start_as(Env::empty(), &without).await;
    for pattern in [Pattern::Canary, Pattern::Rollback, Pattern::Mirror, Pattern::Egress] {
        let told = patterns::tell(demo.data(), pattern, &Env::empty()).await.unwrap();
        assert!(!told.seen, "{pattern:?}: {told:#?}");
    }
    demo.stop().await;
}
