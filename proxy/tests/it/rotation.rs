//! Certificates and roots change under load, and nobody notices.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;
use tollgate_testkit::authority::Authority;

use crate::harness::{Call, Setup};
use crate::pki::{PROXY, Pki, short};

const INGRESS: &str = "spiffe://test.example/ns/shop/sa/ingress";
/// A certificate's life, how often a new one comes, and how long it goes on; longer in `make soak`.
const LIFE: u64 = if cfg!(feature = "soak") { 20 } else { 8 };
const EVERY: Duration = Duration::from_secs(if cfg!(feature = "soak") { 8 } else { 3 });
const LASTS: Duration = Duration::from_secs(if cfg!(feature = "soak") { 300 } else { 30 });

fn renew(pki: &Pki, signer: &Authority, roots: &str) {
    for (name, id) in [("sidecar", PROXY), ("ingress", INGRESS)] {
        pki.keep(name, &signer.sign(short(id, LIFE)), roots);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_fails_while_certificates_and_the_root_rotate() {
    let pki = Pki::new();
    let tops = [("sidecar", PROXY), ("ingress", INGRESS)].map(|(name, id)| pki.identity(name, id));
    let next = Authority::new("next root");
    let both = pki.root.root_pem() + &next.root_pem();
    renew(&pki, &pki.root, &pki.root.root_pem());
    let sidecar =
        Setup { top: &tops[0], listener: "role: sidecar, mtls: strict", ..Setup::default() }.start().await;
    let mut meshes = Vec::new();
    for protocol in ["h1", "h2"] {
        let cluster = format!("protocol: {protocol}, tls: {{spiffe_ids: ['{PROXY}']}}");
        let listener = "limit_by_address: {per_second: 0}";
        let setup = Setup {
            top: &tops[1],
            cluster: &cluster,
            listener,
            upstream: Some(sidecar.address),
            ..Setup::default()
        };
        meshes.push(setup.start().await);
    }
    let end = Instant::now() + LASTS;
    let sent = Arc::new(AtomicUsize::new(0));
    let mut clients = JoinSet::new();
    for address in meshes.iter().flat_map(|mesh| [mesh.address; 2]) {
        let sent = Arc::clone(&sent);
        clients.spawn(async move {
            while Instant::now() < end {
                // On a machine that pauses, half a second is soon over.
                let answer = Call::new(address, "GET", "/patient").send().await;
                assert_eq!(
                    answer.status,
                    200,
                    "{} after {} requests",
                    answer.body,
                    sent.load(Ordering::Relaxed)
                );
                sent.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
    }
    // The next root is trusted first and signs then; at last the old one is forgotten.
    let steps =
        [(&pki.root, &both), (&pki.root, &both), (&next, &both), (&next, &both), (&next, &next.root_pem())];
    let mut steps = steps.into_iter();
    while Instant::now() + EVERY < end {
        tokio::time::sleep(EVERY).await;
        match steps.next() {
            Some((signer, roots)) => renew(&pki, signer, roots),
            None => renew(&pki, &next, &next.root_pem()),
        }
    }
    while let Some(client) = clients.join_next().await {
        client.unwrap();
    }
    assert!(sent.load(Ordering::Relaxed) > 100);
}
