//! The admin API over TLS: whom it takes, and what a certificate is worth there.

use std::path::Path;

use reqwest::{Certificate, Client, Identity, Method};
use serde_json::{Value, json};
use tempfile::TempDir;
use tollgate_identity::config::IdentityConfig;
use tollgate_identity::source::FilesConfig;
use tollgate_identity::tls::{DoorTls, Plaintext};
use tollgate_testkit::authority::{Authority, Signed, workload};

use crate::running::Running;

const AUTHZ: &str = "spiffe://test.example/ns/tollgate-system/sa/authz";
const ALICE: &str = "spiffe://test.example/ns/ops/sa/alice";
const BOB: &str = "spiffe://test.example/ns/ops/sa/bob";

struct Https {
    running: Running,
    root: Authority,
}

/// The service's own identity, from files; clients find it by its address.
pub(crate) fn identity(root: &Authority, folder: &Path) -> IdentityConfig {
    let mut params = workload(AUTHZ);
    params.subject_alt_names.push(rcgen::SanType::IpAddress([127, 0, 0, 1].into()));
    let signed = root.sign(params);
    let write = |name: &str, text: &str| {
        let file = folder.join(name);
        std::fs::write(&file, text).unwrap();
        file
    };
    IdentityConfig::Files(FilesConfig {
        certificate: write("tls.crt", &signed.certificate_pem),
        key: write("tls.key", &signed.key_pem),
        bundle: write("ca.crt", &root.root_pem()),
        federated: std::collections::BTreeMap::default(),
        aliases: Vec::new(),
    })
}

impl Https {
    async fn start(tls: DoorTls) -> Self {
        let (root, folder) = (Authority::new("root"), TempDir::new().unwrap());
        let url = format!("sqlite://{}", folder.path().join("authz.db").display());
        let identity = identity(&root, folder.path());
        let running = Running::on(folder, &url, |config| {
            config.identity = Some(identity);
            config.listen.http_tls = Some(tls);
        })
        .await;
        Self { running, root }
    }

    fn client(&self, shown: Option<&Signed>) -> Client {
        let root = Certificate::from_pem(self.root.root_pem().as_bytes()).unwrap();
        let mut builder = Client::builder().tls_certs_only([root]);
        if let Some(signed) = shown {
            let pem = format!("{}\n{}", signed.certificate_pem, signed.key_pem);
            builder = builder.identity(Identity::from_pem(pem.as_bytes()).unwrap());
        }
        builder.build().unwrap()
    }

    fn url(&self, path: &str) -> String {
        format!("https://{}{path}", self.running.addresses.http)
    }

    /// Makes the first administrator; answers the token.
    async fn administrator(&self) -> String {
        let token = std::fs::read_to_string(self.running.bootstrap_file()).unwrap();
        let request = self.client(None).post(self.url("/v1/bootstrap")).bearer_auth(token.trim());
        let answer: Value =
            request.json(&json!({"name": "root"})).send().await.unwrap().json().await.unwrap();
        answer["token"].as_str().unwrap().to_owned()
    }

    async fn status(&self, client: &Client, token: Option<&str>) -> (u16, Value) {
        let mut request = client.get(self.url("/v1/status"));
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    }

    async fn apply(&self, object: Value) {
        self.running.apply(vec![serde_json::from_value(object).unwrap()]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workload_administers_by_its_certificate_as_far_as_policy_says() {
    let https = Https::start(DoorTls::default()).await;
    let root = https.administrator().await;
    let (alice, bob) = (https.root.workload(ALICE), https.root.workload(BOB));
    let (as_alice, as_bob, as_nobody) =
        (https.client(Some(&alice)), https.client(Some(&bob)), https.client(None));
    assert_eq!(https.status(&as_nobody, Some(&root)).await.1["caller"], "tollgate-admin/root");
    assert_eq!(https.status(&as_alice, None).await.0, 401);
    https
        .apply(json!({"kind": "Binding", "namespace": "tollgate-system", "name": "alice", "role": "admin",
            "who": {"workload": ALICE}}))
        .await;
    let (status, body) = https.status(&as_alice, None).await;
    assert_eq!((status, body["caller"].as_str()), (200, Some(ALICE)));
    assert_eq!(https.status(&as_bob, None).await.0, 401);
    assert_eq!(https.status(&as_nobody, None).await.0, 401);
    // A token that is no good stays a 401, whatever certificate comes with it.
    assert_eq!(https.status(&as_alice, Some("tga_wrong")).await.0, 401);

    // What she does is recorded as hers.
    let service = json!({"callers": ["external"]});
    let put =
        as_alice.put(https.url("/v1/namespaces/shop/services/cart")).json(&service).send().await.unwrap();
    assert!(put.status().is_success(), "{}", put.text().await.unwrap());
    let changes: Value = as_alice.get(https.url("/v1/changes")).send().await.unwrap().json().await.unwrap();
    assert!(changes.to_string().contains(&format!("\"author\":\"{ALICE}\"")), "{changes}");

    // Revoked, the certificate is worth nothing at the next request, on the same connection.
    let serial = tollgate_identity::Leaf::read(&alice.certificate).unwrap().serial;
    https
        .apply(json!({"kind": "Revocation", "name": "lost", "certificate_serial": serial, "until": "2999-01-01T00:00:00Z"}))
        .await;
    assert_eq!(https.status(&as_alice, None).await.0, 403);
    // Another one of hers is not that one.
    assert_eq!(https.status(&https.client(Some(&https.root.workload(ALICE))), None).await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn whose_certificate_is_not_believed_does_not_come_in_and_plaintext_is_told_so() {
    let https = Https::start(DoorTls::default()).await;
    let stranger = https.client(Some(&Authority::new("root").workload(ALICE)));
    assert!(stranger.get(https.url("/healthz")).send().await.is_err());
    assert_eq!(https.client(None).get(https.url("/healthz")).send().await.unwrap().status(), 200);
    let plain = https.running.send(Method::GET, "/healthz", "", None).await;
    assert_eq!(plain.status(), 400);
    assert!(plain.text().await.unwrap().contains("https://"));

    // Where it is allowed, this machine may do without.
    let both = Https::start(DoorTls { plaintext: Plaintext::Loopback, ..DoorTls::default() }).await;
    assert_eq!(both.running.send(Method::GET, "/healthz", "", None).await.status(), 200);
    assert_eq!(both.client(None).get(both.url("/healthz")).send().await.unwrap().status(), 200);
    // AuthZEN tells where it was asked.
    let root = both.administrator().await;
    for url in [both.url(""), format!("http://{}", both.running.addresses.http)] {
        let asked = both.client(None).get(format!("{url}/.well-known/authzen-configuration"));
        let answer: Value = asked.bearer_auth(&root).send().await.unwrap().json().await.unwrap();
        assert_eq!(answer["policy_decision_point"], json!(url));
    }
}
