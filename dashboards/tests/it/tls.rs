//! The page and OTLP/HTTP over TLS: who is asked for a certificate, and whose is taken.

use std::path::Path;

use reqwest::{Certificate, Client, Identity};
use serde_json::json;
use tollgate_dashboard::{Addresses, App, Config};
use tollgate_identity::config::IdentityConfig;
use tollgate_identity::source::FilesConfig;
use tollgate_identity::tls::{DoorTls, Plaintext};
use tollgate_runtime::{App as _, Service};
use tollgate_testkit::authority::{Authority, Signed, workload};

pub(crate) const DASHBOARD: &str = "spiffe://test.example/ns/tollgate-system/sa/dashboard";
pub(crate) const REPORTER: &str = "spiffe://test.example/ns/shop/sa/reporter";

pub(crate) struct Secure {
    pub(crate) addresses: Addresses,
    pub(crate) token: String,
    pub(crate) root: Authority,
    _service: Service,
    _dir: tempfile::TempDir,
}

fn identity(root: &Authority, folder: &Path) -> IdentityConfig {
    let mut params = workload(DASHBOARD);
    params.subject_alt_names.push(rcgen::SanType::IpAddress([127, 0, 0, 1].into()));
    files(root, &root.sign(params), folder)
}

/// Writes a certificate, its key and its root, as cert-manager does.
pub(crate) fn files(root: &Authority, signed: &Signed, folder: &Path) -> IdentityConfig {
    let write = |name: &str, text: &str| {
        let (file, beside) = (folder.join(name), folder.join(format!("{name}.new")));
        std::fs::write(&beside, text).unwrap();
        std::fs::rename(beside, &file).unwrap();
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

impl Secure {
    pub(crate) async fn start(change: impl FnOnce(&mut Config)) -> Self {
        let (dir, root) = (tempfile::tempdir().unwrap(), Authority::new("root"));
        let mut config = Config::default();
        config.store.dir = dir.path().join("telemetry");
        config.identity = Some(identity(&root, dir.path()));
        let any = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
        (config.web.listen, config.otlp.grpc, config.otlp.http) = (any, any, any);
        (config.web.tls, config.otlp.http_tls) = (Some(DoorTls::default()), Some(DoorTls::default()));
        change(&mut config);
        let service = Service::for_test("dashboard");
        let app = App::build(config, service.clone()).await.unwrap();
        let addresses = *app.addresses();
        let link = app.login_link().await.unwrap();
        assert!(link.starts_with("https://"), "{link}");
        service.tasks().spawn("app", async move { app.run().await });
        let token = link.split("token=").nth(1).unwrap().to_owned();
        Self { addresses, token, root, _service: service, _dir: dir }
    }

    pub(crate) fn client(&self, shown: Option<&Signed>) -> Client {
        let root = Certificate::from_pem(self.root.root_pem().as_bytes()).unwrap();
        let mut builder = Client::builder().tls_certs_only([root]);
        if let Some(signed) = shown {
            let pem = format!("{}\n{}", signed.certificate_pem, signed.key_pem);
            builder = builder.identity(Identity::from_pem(pem.as_bytes()).unwrap());
        }
        builder.build().unwrap()
    }

    /// What a report without records is answered; nothing where the handshake is refused.
    async fn report(&self, shown: Option<&Signed>) -> Option<u16> {
        let url = format!("https://{}/v1/logs", self.addresses.otlp_http);
        let answer = self.client(shown).post(url).json(&json!({"resourceLogs": []})).send().await.ok()?;
        Some(answer.status().as_u16())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_signs_in_over_tls_and_its_cookie_stays_there() {
    let secure = Secure::start(|_| {}).await;
    let page = format!("https://{}", secure.addresses.web);
    // No certificate is asked for, and one of nobody's is not looked at.
    let stranger = Authority::new("stranger").workload(REPORTER);
    assert_eq!(secure.client(Some(&stranger)).get(&page).send().await.unwrap().status(), 200);
    let login = secure.client(None).post(format!("{page}/api/v1/auth/login"));
    let answer = login.json(&json!({"token": secure.token})).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    let cookie = answer.headers()["set-cookie"].to_str().unwrap();
    assert!(cookie.contains("; Secure;") && cookie.contains("HttpOnly"), "{cookie}");
    let plain = reqwest::get(format!("http://{}/", secure.addresses.web)).await.unwrap();
    assert_eq!(plain.status(), 400);
    assert!(plain.text().await.unwrap().contains("https://"));
}

#[tokio::test(flavor = "multi_thread")]
async fn reports_by_http_come_from_the_callers_that_are_named() {
    let secure = Secure::start(|config| config.otlp.callers = vec![REPORTER.parse().unwrap()]).await;
    let reporter = secure.root.workload(REPORTER);
    let other = secure.root.workload("spiffe://test.example/ns/shop/sa/other");
    assert_eq!(secure.report(Some(&reporter)).await, Some(200));
    assert_eq!(secure.report(Some(&other)).await, Some(403));
    assert_eq!(secure.report(None).await, None);
    assert_eq!(secure.report(Some(&Authority::new("root").workload(REPORTER))).await, None);

    let both = Secure::start(|config| {
        config.otlp.http_tls = Some(DoorTls { plaintext: Plaintext::Loopback, ..DoorTls::default() });
    })
    .await;
    let url = format!("http://{}/v1/logs", both.addresses.otlp_http);
    let plain = Client::new().post(url).json(&json!({"resourceLogs": []})).send().await.unwrap();
    assert_eq!(plain.status(), 200);
    assert_eq!(both.report(Some(&both.root.workload(REPORTER))).await, Some(200));
}

#[tokio::test]
async fn off_loopback_there_is_no_plaintext() {
    let everywhere = "0.0.0.0:0".parse().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let mut config = Config::default();
    config.store.dir = dir.path().to_owned();
    config.web.listen = everywhere;
    let refused = App::build(config.clone(), Service::for_test("dashboard")).await.unwrap_err();
    assert!(format!("{refused:#}").contains("write a section `web.tls`"), "{refused:#}");
    config.web.listen = "127.0.0.1:0".parse().unwrap();
    config.otlp.grpc = config.web.listen;
    config.otlp.http = everywhere;
    let refused = App::build(config, Service::for_test("dashboard")).await.unwrap_err();
    assert!(format!("{refused:#}").contains("write a section `otlp.http_tls`"), "{refused:#}");
}
