//! The certificate authority on both databases: who gets a certificate, how often, and who does not.

use std::time::Duration;

use serde_json::json;
use tempfile::TempDir;
use tollgate_authz::ca::{CaConfig, CaError, CertificateAuthority};
use tollgate_authz::store::{Authorship, Store};
use tollgate_identity::bundle::End;
use tollgate_identity::signing::Profile;
use tollgate_identity::{FreshKey, SpiffeId, TrustBundles};
use tollgate_runtime::clock::{Clock, ManualClock};
use tollgate_runtime::config::Secret;
use tollgate_testkit::postgres::PostgresServer;

const ID: &str = "spiffe://test.example/ns/shop/sa/cart";
const SECOND: u64 = 1_000_000_000;
const START: u64 = 1_800_000_000;

struct Trial {
    ca: CertificateAuthority,
    store: Store,
    clock: Clock,
    time: ManualClock,
    config: CaConfig,
    _folder: TempDir,
}

impl Trial {
    async fn new(url: Option<&str>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url =
            url.map_or_else(|| format!("sqlite://{}", folder.path().join("a.db").display()), str::to_owned);
        let (clock, time) = Clock::manual(START * SECOND);
        let store = Store::open(&Secret::new(url), clock.clone()).await.unwrap();
        let config = CaConfig::new("test.example".parse().unwrap(), folder.path().join("wrapping.key"));
        let ca = CertificateAuthority::open(config.clone(), store.clone(), clock.clone()).await.unwrap();
        Self { ca, store, clock, time, config, _folder: folder }
    }

    async fn token(&self) -> String {
        self.ca.join_token(&id(), "test").await.unwrap().expose()
    }

    fn now(&self) -> i64 {
        self.clock.unix_seconds().cast_signed()
    }

    fn trusts(&self, certified: &tollgate_authz::ca::Certified) -> bool {
        let domain = "test.example".parse().unwrap();
        let trusted = TrustBundles::default().with(domain, self.ca.bundle()).unwrap();
        let provider = tollgate_identity::provider();
        trusted.verify(&certified.certificate, &[], End::Client, self.now(), &provider).is_ok()
    }
}

fn id() -> SpiffeId {
    ID.parse().unwrap()
}

fn csr() -> Vec<u8> {
    FreshKey::generate(None).unwrap().csr_der
}

async fn a_token_is_good_for_one_id_and_one_key(trial: &Trial) {
    let token = trial.token().await;
    let first = csr();
    let certified = trial.ca.enrol(&first, &token).await.unwrap();
    assert_eq!(certified.leaf.id, id());
    assert!(trial.trusts(&certified));
    assert_eq!(certified.roots, trial.ca.bundle());
    // The answer may have been lost: the same key gets the same certificate, for a minute.
    let again = trial.ca.enrol(&first, &token).await.unwrap();
    assert_eq!(again.leaf, certified.leaf);
    assert!(matches!(trial.ca.enrol(&csr(), &token).await, Err(CaError::UsedToken)), "another key");
    trial.time.advance(Duration::from_secs(60));
    assert!(matches!(trial.ca.enrol(&first, &token).await, Err(CaError::UsedToken)), "too late");

    let late = trial.token().await;
    trial.time.advance(Duration::from_secs(600));
    assert!(matches!(trial.ca.enrol(&csr(), &late).await, Err(CaError::ExpiredToken)));
    for unknown in ["", "tgj_x.y", &token.replace("tgj_", "tgj_A")] {
        assert!(matches!(trial.ca.enrol(&csr(), unknown).await, Err(CaError::UnknownToken)), "{unknown}");
    }
    let other: SpiffeId = "spiffe://other.example/ns/shop".parse().unwrap();
    assert!(matches!(trial.ca.join_token(&other, "test").await, Err(CaError::OtherDomain { .. })));
    // For another id than the token's: the token stays good.
    let token = trial.token().await;
    let admin = "spiffe://test.example/ns/shop/sa/admin".parse().unwrap();
    let greedy = FreshKey::generate(Some(&admin)).unwrap();
    assert!(matches!(trial.ca.enrol(&greedy.csr_der, &token).await, Err(CaError::Request(_))));
    assert!(trial.ca.enrol(&csr(), &token).await.is_ok());
}

async fn of_two_that_come_at_once_one_is_served(trial: &Trial) {
    let token = trial.token().await;
    let (one, two) = (csr(), csr());
    let (first, second) = tokio::join!(trial.ca.enrol(&one, &token), trial.ca.enrol(&two, &token));
    assert!(first.is_ok() != second.is_ok(), "{first:?} {second:?}");
    let rows = trial.store.certificates(trial.now(), 1000).await.unwrap();
    let serial = first.or(second).unwrap().leaf.serial;
    assert_eq!(rows.iter().filter(|row| row.serial == serial).count(), 1);
}

async fn a_certificate_is_renewed_until_its_attestation_is_old(trial: &Trial) {
    let first = trial.ca.enrol(&csr(), &trial.token().await).await.unwrap();
    trial.time.advance(Duration::from_secs(3 * 3600));
    let second = trial.ca.renew(&csr(), &first.leaf).await.unwrap();
    assert!(second.leaf.not_after > first.leaf.not_after && second.leaf.id == id());
    trial.time.advance(Duration::from_secs(4 * 3600));
    assert!(matches!(trial.ca.renew(&csr(), &first.leaf).await, Err(CaError::NotRenewable("it has ended"))));
    let mut stranger = second.leaf.clone();
    stranger.serial = "abc".to_owned();
    assert!(matches!(trial.ca.renew(&csr(), &stranger).await, Err(CaError::NotRenewable(_))));
    let mut leaf = second.leaf;
    for _ in 0..30 * 6 {
        match trial.ca.renew(&csr(), &leaf).await {
            Ok(next) => leaf = next.leaf,
            Err(error) => {
                assert!(error.to_string().contains("attestation is too old"), "{error}");
                return;
            }
        }
        trial.time.advance(Duration::from_secs(5 * 3600));
    }
    panic!("it was renewed for longer than its attestation allows");
}

async fn a_revoked_workload_gets_nothing(trial: &Trial) {
    let certified = trial.ca.enrol(&csr(), &trial.token().await).await.unwrap();
    let token = trial.token().await;
    let until = jiff::Timestamp::from_second(trial.now() + 3600).unwrap().to_string();
    let revocation = json!({"kind": "Revocation", "name": "cart-stolen", "workload": ID, "until": until});
    let documents = vec![serde_json::from_value(revocation).unwrap()];
    trial.store.apply(documents, Authorship::new("test", "stolen"), false, false).await.unwrap();
    for refused in [
        trial.ca.enrol(&csr(), &token).await,
        trial.ca.renew(&csr(), &certified.leaf).await,
        trial.ca.issue(&csr(), &id(), &Profile::default(), None, "test").await,
    ] {
        assert!(refused.unwrap_err().to_string().contains("cart-stolen"));
    }
    trial.time.advance(Duration::from_secs(3600));
    assert!(trial.ca.renew(&csr(), &certified.leaf).await.is_ok(), "the revocation has ended");
    // As other tools write serial numbers.
    let serial = format!("00:{}", certified.leaf.serial.to_uppercase());
    let until = jiff::Timestamp::from_second(trial.now() + 3600).unwrap().to_string();
    let revocation =
        json!({"kind": "Revocation", "name": "one-stolen", "certificate_serial": serial, "until": until});
    let documents = vec![serde_json::from_value(revocation).unwrap()];
    trial.store.apply(documents, Authorship::new("test", "stolen"), false, false).await.unwrap();
    let refused = trial.ca.renew(&csr(), &certified.leaf).await.unwrap_err().to_string();
    assert!(refused.contains("one-stolen"), "{refused}");
}

async fn a_rotation_refuses_nobody(trial: &Trial) {
    let old = trial.ca.issue(&csr(), &id(), &Profile::default(), None, "test").await.unwrap();
    let takes_over = trial.ca.rotate("test").await.unwrap();
    assert_eq!(trial.ca.bundle().len(), 2);
    let before = trial.ca.issue(&csr(), &id(), &Profile::default(), None, "test").await.unwrap();
    assert_eq!(before.leaf.issuer, old.leaf.issuer);
    trial.time.advance(Duration::from_secs((takes_over - trial.now()).unsigned_abs()));
    let after = trial.ca.issue(&csr(), &id(), &Profile::default(), None, "test").await.unwrap();
    assert!(trial.trusts(&after));
    trial.time.advance(trial.config.leaf_life - Duration::from_secs(1));
    assert_eq!(trial.ca.bundle().len(), 2, "what the old root signed last may still be valid");
    trial.time.advance(Duration::from_secs(1));
    assert_eq!(trial.ca.bundle().len(), 1);
    // Another replica finds the same roots; another wrapping key opens none of them.
    let same = CertificateAuthority::open(trial.config.clone(), trial.store.clone(), trial.clock.clone());
    assert_eq!(same.await.unwrap().bundle(), trial.ca.bundle());
    let folder = tempfile::tempdir().unwrap();
    let other = CaConfig { wrapping_key: folder.path().join("other.key"), ..trial.config.clone() };
    let error =
        CertificateAuthority::open(other, trial.store.clone(), trial.clock.clone()).await.unwrap_err();
    assert!(error.to_string().contains("wrapping key is another one"), "{error}");
}

/// What was signed is there before it is given out: for whom, by which proof and whose doing.
async fn whatever_is_signed_is_recorded(trial: &Trial) {
    let token = trial.ca.join_token(&id(), "alice").await.unwrap().expose();
    let first = trial.ca.enrol(&csr(), &token).await.unwrap();
    let second = trial.ca.renew(&csr(), &first.leaf).await.unwrap();
    let third = trial.ca.issue(&csr(), &id(), &Profile::default(), None, "bob").await.unwrap();
    for (leaf, proof, by) in [
        (&first.leaf, "join-token", "alice"),
        (&second.leaf, "renewal", "alice"),
        (&third.leaf, "data-folder", "bob"),
    ] {
        let row = trial.store.certificate(&leaf.serial).await.unwrap().unwrap();
        assert_eq!((&*row.proof, &*row.issued_by, &*row.spiffe_id), (proof, by, ID));
        assert_eq!((row.issued_at, row.not_after), (trial.now(), leaf.not_after));
    }
}

async fn all(trial: &Trial) {
    whatever_is_signed_is_recorded(trial).await;
    a_token_is_good_for_one_id_and_one_key(trial).await;
    of_two_that_come_at_once_one_is_served(trial).await;
    a_certificate_is_renewed_until_its_attestation_is_old(trial).await;
    a_revoked_workload_gets_nothing(trial).await;
    a_rotation_refuses_nobody(trial).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_sqlite() {
    all(&Trial::new(None).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_postgresql() {
    let server = PostgresServer::start();
    all(&Trial::new(Some(&server.create_database("ca"))).await).await;
}
