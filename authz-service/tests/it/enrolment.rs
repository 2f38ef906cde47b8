//! A workload that enrols over the wire, renews, and is refused what it must not have.

use std::time::Duration;

use tempfile::TempDir;
use tollgate_authz::ca::{CaConfig, CertificateAuthority};
use tollgate_identity::FreshKey;
use tollgate_identity::config::IdentityConfig;
use tollgate_identity::source::{Authority, AuthorityConfig, Source as _};
use tollgate_runtime::Service;
use tollgate_runtime::clock::Clock;

use crate::running::Running;

const ID: &str = "spiffe://test.example/ns/shop/sa/cart";

/// A service with an authority whose certificates live for `life`, and another handle on that authority.
async fn with_authority(life: Duration) -> (Running, CertificateAuthority) {
    let folder = TempDir::new().unwrap();
    let url = format!("sqlite://{}", folder.path().join("authz.db").display());
    let mut ca = CaConfig::new("test.example".parse().unwrap(), folder.path().join("wrapping.key"));
    ca.listen = ([127, 0, 0, 1], 0).into();
    ca.leaf_life = life;
    let config = ca.clone();
    let running = Running::on(folder, &url, |all| all.ca = Some(ca)).await;
    let ca = CertificateAuthority::open(config, running.store.clone(), Clock::system()).await.unwrap();
    (running, ca)
}

fn asking(running: &Running, token: &str) -> IdentityConfig {
    let file = running.folder.path().join("join.token");
    std::fs::write(&file, token).unwrap();
    IdentityConfig::Authority(AuthorityConfig {
        address: running.addresses.enrolment.unwrap().to_string(),
        join_token_file: file,
        spiffe_id: None,
        authority_id: None,
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workload_enrols_once_and_renews_by_itself() {
    let (running, ca) = with_authority(Duration::from_secs(6)).await;
    let token = ca.join_token(&ID.parse().unwrap(), "test").await.unwrap().expose();
    let service = Service::for_test("workload");
    let identity = asking(&running, &token).follow(&service).await.unwrap();
    let first = identity.material().credential.leaf.clone();
    assert_eq!(first.id.as_str(), ID);
    let mut rotations = identity.rotations();
    for _ in 0..2 {
        rotations.changed().await.unwrap();
    }
    let third = identity.material().credential.leaf.clone();
    assert!(third.id == first.id && third.serial != first.serial && third.not_after > first.not_after);
    let rows = running.store.certificates(0, 100).await.unwrap();
    let proofs: Vec<_> =
        rows.iter().filter(|row| row.spiffe_id == ID).map(|row| row.proof.as_str()).collect();
    assert_eq!(proofs.last(), Some(&"join-token"), "{proofs:?}");
    assert!(proofs[..proofs.len() - 1].iter().all(|proof| *proof == "renewal"), "{proofs:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_not_the_authority_gets_no_token() {
    let (running, _) = with_authority(Duration::from_secs(3600)).await;
    // A token that names another root: what answers on this port is not what the token was made by.
    let (_other, other) = with_authority(Duration::from_secs(3600)).await;
    let token = other.join_token(&ID.parse().unwrap(), "test").await.unwrap().expose();
    let IdentityConfig::Authority(config) = asking(&running, &token) else { unreachable!() };
    let refused = Authority::new(config, Clock::system()).next().await.unwrap_err();
    assert!(refused.to_string().contains("gives no certificate"), "{refused}");
    // The token was never shown, so its own authority still takes it.
    let key = FreshKey::generate(None).unwrap();
    assert!(other.enrol(&key.csr_der, &token).await.is_ok());
}
