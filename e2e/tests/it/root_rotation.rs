//! The authority's root is replaced while the whole mesh serves, and nobody notices.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use http::StatusCode;
use tollgate_authz::Store;
use tollgate_authz::ca::{CaConfig, CertificateAuthority};
use tollgate_e2e::Demo;
use tollgate_runtime::clock::Clock;
use tollgate_runtime::config::{Env, Secret};

/// Long enough for a busy machine to renew in, short enough to see the end of the old root.
const LIFE: Duration = Duration::from_secs(8);
const OVERLAP: Duration = Duration::from_secs(16);
/// The old root is forgotten after two lives and one; workloads hear of it at their next renewal.
const PATIENCE: Duration = Duration::from_secs(120);

/// Which roots have signed the newest certificates of the mesh's workloads.
async fn signers(store: &Store, workloads: usize) -> BTreeSet<String> {
    let rows = store.newest_certificates("", 0, 100).await.unwrap();
    assert!(rows.len() >= workloads, "{rows:?}");
    rows.into_iter().map(|row| row.root).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_request_fails_while_the_authority_changes_its_root() {
    let sets = ["authz.ca.leaf_life=8s", "authz.ca.overlap=16s"];
    let demo = Arc::new(Demo::start_as(Env::empty(), &sets).await);
    let url = Secret::new(format!("sqlite://{}", demo.data().join("authz.db").display()));
    let store = Store::open(&url, Clock::system()).await.unwrap();
    let mut config = CaConfig::new("tollgate.demo".parse().unwrap(), demo.data().join("ca/wrapping.key"));
    (config.leaf_life, config.overlap) = (LIFE, OVERLAP);
    // As `tollgate ca rotate` does it: in another process than the authority's.
    let ca = CertificateAuthority::open(config, store.clone(), Clock::system()).await.unwrap();

    let (done, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let (demo_of_client, done_of_client, counted) = (Arc::clone(&demo), Arc::clone(&done), Arc::clone(&sent));
    let client = tokio::spawn(async move {
        let token = demo_of_client.token("reader", &["policies:read"]);
        while !done_of_client.load(Ordering::Relaxed) {
            let answer = demo_of_client.get("/policies/POL-1", Some(&token)).await;
            let so_far = counted.fetch_add(1, Ordering::Relaxed);
            assert_eq!(answer.status, StatusCode::OK, "after {so_far} requests: {}", answer.body);
            assert_ne!(answer.header("x-ratelimit-limit"), "", "the rate limit service was asked");
            // Below the demo's limit of 20 a second.
            tokio::time::sleep(Duration::from_millis(70)).await;
        }
    });

    let first = signers(&store, 5).await;
    assert_eq!(first.len(), 1);
    ca.rotate("e2e").await.unwrap();
    assert_eq!(ca.bundle().len(), 2, "both are trusted");
    let rotated = async {
        loop {
            let now = signers(&store, 5).await;
            // All have certificates of the next root, and the first is trusted no more.
            if now.len() == 1 && now != first && ca.bundle().len() == 1 {
                break;
            }
            assert!(!client.is_finished(), "a request failed");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    tokio::time::timeout(PATIENCE, rotated).await.expect("the next root signs for everybody in time");
    // Everybody renews once more, so that nobody trusts the first root.
    let bound = store.newest_certificates("", 0, 100).await.unwrap();
    let renewed = async {
        loop {
            let now = store.newest_certificates("", 0, 100).await.unwrap();
            if bound.iter().zip(&now).all(|(before, after)| before.serial != after.serial) {
                break;
            }
            assert!(!client.is_finished(), "a request failed");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    tokio::time::timeout(PATIENCE, renewed).await.expect("everybody renews in time");
    done.store(true, Ordering::Relaxed);
    client.await.unwrap();
    assert!(sent.load(Ordering::Relaxed) > 50);
    store.close().await;
    Arc::into_inner(demo).expect("the client is gone").stop().await;
}
