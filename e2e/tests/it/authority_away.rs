//! The authority is away for longer than half a certificate's life: proxies serve on, and come back by themselves.

use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;
use tollgate_authz::Store;
use tollgate_authz::ca::{CaConfig, CertificateAuthority};
use tollgate_e2e::eventually;
use tollgate_identity::SpiffeId;
use tollgate_identity::signing::Profile;
use tollgate_runtime::clock::Clock;
use tollgate_runtime::config::Secret;
use tollgate_testkit::ports::free_addresses;

use crate::parts::{Part, listening};

const PROXY: &str = "spiffe://tollgate.demo/ns/insurance/sa/edge";
const CLIENT: &str = "spiffe://tollgate.demo/ns/insurance/sa/client";
/// Half of it passes while the authority is away; the rest is more than the longest wait between two attempts by then.
const LIFE: Duration = Duration::from_secs(40);

/// A client with a new certificate, and so with a new connection.
async fn client(ca: &CertificateAuthority, folder: &Path) -> reqwest::Client {
    let id: SpiffeId = CLIENT.parse().unwrap();
    tollgate::ca::issue(ca, &id, &Profile::default(), (None, "test"), folder).await.unwrap();
    let read = |name: &str| std::fs::read(folder.join(name)).unwrap();
    reqwest::Client::builder()
        .timeout(Duration::from_secs(10))
        .tls_certs_only([reqwest::Certificate::from_pem(&read("ca.crt")).unwrap()])
        .identity(reqwest::Identity::from_pem(&[read("tls.crt"), read("tls.key")].concat()).unwrap())
        .build()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_serves_while_the_authority_is_away_and_renews_once_it_is_back() {
    let folder = TempDir::new().unwrap();
    let data = folder.path();
    let [grpc, http, enrolment, ingress] = free_addresses();
    let (database, wrapping) =
        (format!("sqlite://{}", data.join("authz.db").display()), data.join("wrapping.key"));
    let mut authority = Part::start(
        "authz",
        "authz",
        &[
            format!("database.url={database}"),
            format!("listen.grpc={grpc}"),
            format!("listen.http={http}"),
            format!("bootstrap.token_file={}", data.join("bootstrap-admin.token").display()),
            "telemetry.endpoint=null".to_owned(),
            "ca.trust_domain=tollgate.demo".to_owned(),
            format!("ca.listen={enrolment}"),
            format!("ca.wrapping_key={}", wrapping.display()),
            format!("ca.leaf_life={}s", LIFE.as_secs()),
            format!("ca.names={{\"{PROXY}\": [localhost]}}"),
        ],
    );
    listening(enrolment).await;
    let store = Store::open(&Secret::new(&database), Clock::system()).await.unwrap();
    let mut config = CaConfig::new("tollgate.demo".parse().unwrap(), wrapping);
    config.leaf_life = LIFE;
    let ca = CertificateAuthority::open(config, store.clone(), Clock::system()).await.unwrap();
    let token = ca.join_token(&PROXY.parse().unwrap(), "e2e").await.unwrap();
    let token_file = data.join("join.token");
    std::fs::write(&token_file, token.expose()).unwrap();
    let _proxy = Part::start(
        "proxy",
        "ingress",
        &[
            format!(
                "identity={{authority: {{address: '{enrolment}', join_token_file: '{}'}}}}",
                token_file.display()
            ),
            format!("listeners.0.bind={ingress}"),
            "listeners.0.mtls=strict".to_owned(),
            "routes.0.direct_response.when_ready=[self]".to_owned(),
            "telemetry.endpoint=null".to_owned(),
        ],
    );
    listening(ingress).await;
    let url = format!("https://localhost:{}/healthz", ingress.port());
    let serves = async || {
        let answer = client(&ca, &data.join("client")).await.get(&url).send().await;
        answer.is_ok_and(|answer| answer.status() == 200)
    };
    eventually("the proxy serves", serves).await;
    let newest = async || {
        let rows = store.newest_certificates("", 0, 100).await.unwrap();
        rows.into_iter().find(|row| row.spiffe_id == PROXY).unwrap()
    };
    let first = newest().await;

    authority.kill();
    let clock = Clock::system();
    // Renewal is due by six tenths of its life.
    let due = first.issued_at + (first.not_after - first.issued_at) * 6 / 10 + 1;
    while clock.unix_seconds().cast_signed() < due {
        assert!(serves().await, "the proxy does not serve");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert_eq!(newest().await.serial, first.serial, "nobody was there to renew it");
    authority.restart();
    eventually("the proxy has its next certificate", async || newest().await.serial != first.serial).await;
    let second = newest().await;
    assert_eq!((second.proof.as_str(), second.attested_at), ("renewal", first.attested_at));
    // Past the end of the first it is the second that serves.
    while clock.unix_seconds().cast_signed() <= first.not_after {
        assert!(serves().await, "the proxy does not serve");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert!(serves().await, "the proxy does not serve past the end of its first certificate");
    store.close().await;
}
