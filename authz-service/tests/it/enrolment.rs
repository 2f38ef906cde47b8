//! A workload that enrols over the wire, renews, and is refused what it must not have.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;
use tollgate_authz::ca::{CaConfig, CertificateAuthority};
use tollgate_identity::FreshKey;
use tollgate_identity::config::IdentityConfig;
use tollgate_identity::signing::Profile;
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
    let address = running.addresses.enrolment.unwrap().to_string();
    IdentityConfig::Authority(AuthorityConfig::by_join_token(address, file))
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

/// Whoever asks and asks is told to come later, before anything is looked at; others are served meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_asks_too_often_waits() {
    let (running, ca) = with_authority(Duration::from_secs(3600)).await;
    let wrong = ca.join_token(&ID.parse().unwrap(), "test").await.unwrap().expose().replace("tgj_", "tgj_A");
    let IdentityConfig::Authority(config) = asking(&running, &wrong) else { unreachable!() };
    // More at once than come back while they are served, however slow that is.
    let asked = (0..80).map(|_| {
        let config = config.clone();
        async move { Authority::new(config, Clock::system()).next().await.unwrap_err().to_string() }
    });
    let refusals = futures_util::future::join_all(asked).await;
    let (busy, looked_at): (Vec<_>, Vec<_>) = refusals.iter().partition(|one| one.contains("asks too often"));
    assert!(!busy.is_empty() && looked_at.len() >= 20, "{refusals:?}");
    assert!(looked_at.iter().all(|one| one.contains("is not one of ours")), "{looked_at:?}");
}

async fn certificates(running: &Running, query: &str, token: &str) -> Value {
    let path = format!("/v1/certificates{query}");
    let answer = running.send(Method::GET, &path, token, None).await;
    assert_eq!(answer.status(), 200, "{path}");
    answer.json().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_see_every_workload_with_its_newest_certificate() {
    let (clock, time) = Clock::manual(1_800_000_000_000_000_000);
    let folder = TempDir::new().unwrap();
    let url = format!("sqlite://{}", folder.path().join("authz.db").display());
    let mut config = CaConfig::new("test.example".parse().unwrap(), folder.path().join("wrapping.key"));
    config.listen = ([127, 0, 0, 1], 0).into();
    let settings = config.clone();
    let running = Running::at(clock.clone(), folder, &url, |all| all.ca = Some(settings)).await;
    let ca = CertificateAuthority::open(config, running.store.clone(), clock).await.unwrap();
    let csr = || FreshKey::generate(None).unwrap().csr_der;
    let of = |name: &str| format!("spiffe://test.example/ns/shop/sa/{name}");

    let token = ca.join_token(&ID.parse().unwrap(), "test").await.unwrap().expose();
    let first = ca.enrol(&csr(), &token).await.unwrap();
    time.advance(Duration::from_secs(60));
    let second = ca.renew(&csr(), &first.leaf).await.unwrap();
    let hour = Some(Duration::from_secs(3600));
    ca.issue(&csr(), &of("batch").parse().unwrap(), &Profile::default(), hour, "test").await.unwrap();

    let root = running.administrator("root").await;
    let all = certificates(&running, "", &root).await;
    let ids: Vec<_> =
        all["items"].as_array().unwrap().iter().map(|one| one["spiffe_id"].as_str().unwrap()).collect();
    assert_eq!(
        ids,
        ["spiffe://test.example/ns/shop/sa/batch", ID, "spiffe://test.example/ns/tollgate-system/sa/authz"]
    );
    let cart = &all["items"][1];
    let expected = json!({
        "spiffe_id": ID, "serial": second.leaf.serial, "issuer": second.leaf.issuer, "root": cart["root"],
        "proof": "renewal", "issued_by": "test", "rotated_at": 1_800_000_060, "attested_at": 1_800_000_000,
        "expires_at": second.leaf.not_after, "revoked": false,
    });
    assert_eq!(*cart, expected);
    assert!(second.leaf.issuer.contains("Tollgate root of test.example"), "{}", second.leaf.issuer);

    // Pages join to the whole.
    let page = certificates(&running, "?limit=2", &root).await;
    assert_eq!((page["items"].as_array().unwrap().len(), &page["next"]), (2, &json!(ID)));
    let rest = certificates(&running, &format!("?limit=2&cursor={ID}"), &root).await;
    assert_eq!((&rest["items"][0], &rest["next"]), (&all["items"][2], &Value::Null));

    // What ended is shown to who asks for it; what is revoked says so.
    let revocation = json!({"kind": "Revocation", "name": "cart", "certificate_serial": second.leaf.serial,
        "until": "2100-01-01T00:00:00Z"});
    running.apply(vec![serde_json::from_value(revocation).unwrap()]).await;
    time.advance(Duration::from_secs(3600));
    let now = certificates(&running, "", &root).await;
    assert_eq!(
        (now["items"][0]["spiffe_id"].as_str(), now["items"][0]["revoked"].as_bool()),
        (Some(ID), Some(true))
    );
    let ended = certificates(&running, "?ended=true", &root).await;
    assert_eq!(ended["items"][0]["spiffe_id"], json!(of("batch")));

    // It is for those who may.
    assert_eq!(running.send(Method::GET, "/v1/certificates", "", None).await.status(), 401);
}
