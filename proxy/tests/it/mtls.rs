//! Who may come in at a listener with TLS, and what is told about them.

use std::time::Duration;

use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, SanType};
use rustls::version::{TLS12, TLS13};
use tollgate_proto::attributes as a;
use tollgate_testkit::authority::{Authority, now, uri, workload};
use tollgate_testkit::fake_authz::header;
use tollgate_testkit::fake_collector::attribute;

use crate::harness::{Mesh, PATIENCE, Setup, Tls, observed, raw};
use crate::pki::{CLIENT, PROXY, Pki, client, quoted, short};

const ROUTES: &str = r#"
routes:
  - name: for-client
    matches: [{path: {type: PathPrefix, value: /peer}, peer: {value: "spiffe://test.example/ns/shop/sa/client"}}]
    authz: off
    backends: [{cluster: app}]
    descriptors: [[{key: peer, value: "{peer.id}"}]]
  - name: for-partner
    matches: [{path: {type: PathPrefix, value: /peer}, peer: {type: RegularExpression, value: "[a-z]+[.]partner[.]example"}}]
    authz: off
    direct_response: {status: 200, body: "partner"}
  - name: asked
    service: insurance/policies
    matches: [{path: {type: PathPrefix, value: /policies}}]
    backends: [{cluster: app}]
  - name: open
    matches: [{path: {type: PathPrefix, value: /open}}]
    authz: off
    backends: [{cluster: app}]
"#;

async fn mesh(top: &str, listener: &str) -> Mesh {
    Setup { top, listener, routes: Some(ROUTES), ..Setup::default() }.start().await
}

#[tokio::test]
async fn a_workload_is_known_by_its_certificate_everywhere() {
    let pki = Pki::new();
    let top = pki.identity("proxy", PROXY);
    let listener = "role: sidecar, mtls: strict";
    let (mesh, collector) =
        observed(Setup { top: &top, listener, routes: Some(ROUTES), ..Setup::default() }).await;
    let signed = pki.workload(CLIENT);
    let tls = pki.client(&signed);
    let said = mesh.get("/policies").bearer("reader").over(&tls);
    let answer = said.header("x-forwarded-client-cert", "By=me;URI=spiffe://test.example/root").send().await;
    assert_eq!(answer.status, 200);

    let question = &mesh.authz.questions()[0];
    let attributes = question.attributes.as_ref().unwrap();
    let source = attributes.source.as_ref().unwrap();
    assert_eq!(source.principal, CLIENT);
    assert!(source.certificate.starts_with("-----BEGIN%20CERTIFICATE-----%0AMI"), "{}", source.certificate);
    assert_eq!(attributes.destination.as_ref().unwrap().principal, PROXY);
    assert_eq!(header(question, ":scheme"), Some("https"));
    let forwarded = mesh.app.seen()[0].headers["x-forwarded-client-cert"].to_str().unwrap().to_owned();
    assert!(forwarded.starts_with(&format!("By={PROXY};Hash=")), "{forwarded}");
    assert!(forwarded.ends_with(&format!(";URI={CLIENT}")), "{forwarded}");
    assert!(!forwarded.contains("By=me"), "{forwarded}");

    let record = &collector.access_records(1).await[0];
    for (key, expected) in [
        (a::TOLLGATE_SOURCE_PRINCIPAL, CLIENT),
        (a::TOLLGATE_SOURCE_WORKLOAD, "client"),
        (a::TOLLGATE_SOURCE_NAMESPACE, "shop"),
        (a::TOLLGATE_DESTINATION_PRINCIPAL, PROXY),
        (a::TOLLGATE_CONNECTION_SECURITY_POLICY, "mutual_tls"),
        (a::URL_SCHEME, "https"),
        (a::TLS_PROTOCOL_VERSION, "1.3"),
        (a::TLS_CLIENT_SUBJECT, "CN=workload"),
        (a::TLS_CLIENT_ISSUER, "CN=root"),
    ] {
        assert_eq!(attribute(record, key).as_deref(), Some(expected), "{key}");
    }
    assert!(attribute(record, a::TLS_CIPHER).unwrap().starts_with("TLS_AES"));
    assert!(attribute(record, a::TLS_CLIENT_NOT_AFTER).unwrap().ends_with('Z'));

    assert_eq!(mesh.get("/peer").over(&tls).send().await.status, 200);
    let descriptor = &mesh.limiter.questions()[0].descriptors[0].entries[0];
    assert_eq!((&*descriptor.key, &*descriptor.value), ("peer", CLIENT));
    let other = pki.client(&pki.workload("spiffe://test.example/ns/shop/sa/other"));
    assert_eq!(mesh.get("/peer").over(&other).send().await.status, 404);
}

#[tokio::test]
async fn workloads_of_a_renamed_mesh_and_of_a_partners_are_told_apart() {
    let (pki, partner) = (Pki::new(), Authority::new("partner"));
    let theirs = pki.write("partner.ca", &partner.root_pem());
    let more = format!(", federated: {{partner.example: {}}}, aliases: [old.example]}}}}", quoted(&theirs));
    let top = pki.identity("proxy", PROXY).replace("}}", &more);
    let routes = r#"
routes:
  - name: by-new-name
    matches: [{path: {value: /new}, peer: {value: "spiffe://test.example/ns/shop/sa/client"}}]
    authz: off
    backends: [{cluster: app}]
  - name: by-old-name
    matches: [{path: {value: /old}, peer: {value: "spiffe://old.example/ns/shop/sa/client"}}]
    authz: off
    backends: [{cluster: app}]
  - name: partner
    matches: [{path: {value: /partner}, peer: {value: "spiffe://partner.example/ns/shop/sa/client"}}]
    authz: off
    backends: [{cluster: app}]
"#;
    let listener = "role: sidecar, mtls: strict";
    let mesh = Setup { top: &top, listener, routes: Some(routes), ..Setup::default() }.start().await;
    let (old, foreign) =
        (CLIENT.replace("test.example", "old.example"), CLIENT.replace("test.example", "partner.example"));
    for (shown, passes) in [
        (pki.workload(CLIENT), ["/new", "/old"].as_slice()),
        (pki.workload(&old), &["/new", "/old"]),
        (partner.workload(&foreign), &["/partner"]),
    ] {
        for path in ["/new", "/old", "/partner"] {
            let status = mesh.get(path).over(&pki.client(&shown)).send().await.status;
            assert_eq!(status == 200, passes.contains(&path), "{path} {status}");
        }
    }
    let said =
        |at: usize| mesh.app.seen()[at].headers["x-forwarded-client-cert"].to_str().unwrap().to_owned();
    assert!(said(2).ends_with(&format!(";URI={CLIENT}")), "{}", said(2));
    assert!(said(4).ends_with(&format!(";URI={foreign}")), "{}", said(4));
    // Neither root signs for the other's workloads.
    for stolen in [partner.workload(CLIENT), partner.workload(&old), pki.workload(&foreign)] {
        assert!(mesh.get("/new").over(&pki.client(&stolen)).try_send().await.is_err());
    }
}

#[tokio::test]
async fn whose_certificate_is_not_believed_stays_outside() {
    let pki = Pki::new();
    let mesh = mesh(&pki.identity("proxy", PROXY), "role: sidecar, mtls: strict").await;
    let changed = |change: fn(&mut CertificateParams)| {
        let mut params = workload(CLIENT);
        change(&mut params);
        params
    };
    let names = |names: Vec<SanType>| {
        let mut params = workload(CLIENT);
        params.subject_alt_names = names;
        params
    };
    let long = format!("spiffe://test.example/{}", "x".repeat(2048));
    for (what, params, alert) in [
        (
            "expired",
            changed(|one| one.not_after = (now() - Duration::from_secs(1)).into()),
            "CertificateExpired",
        ),
        (
            "not yet valid",
            changed(|one| one.not_before = (now() + Duration::from_secs(60)).into()),
            "CertificateExpired",
        ),
        (
            "for servers only",
            changed(|one| one.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]),
            "UnsupportedCertificate",
        ),
        ("another trust domain", names(vec![uri("spiffe://other.example/x")]), "UnknownCA"),
        ("two URIs", names(vec![uri(CLIENT), uri(PROXY)]), "AccessDenied"),
        ("upper case", names(vec![uri("spiffe://Test.example/x")]), "AccessDenied"),
        ("too long", names(vec![uri(&long)]), "AccessDenied"),
        ("a common name alone", names(Vec::new()), "AccessDenied"),
    ] {
        let tls = pki.client(&pki.root.sign(params));
        let text = refusal(&mesh, &tls).await;
        assert!(text.contains(alert), "{what}: {text}");
    }
    let stranger = pki.client(&Authority::new("root").workload(CLIENT));
    let error = refusal(&mesh, &stranger).await;
    assert!(error.contains("UnknownCA") || error.contains("DecryptError"), "{error}");
    let nothing = refusal(&mesh, &pki.anonymous()).await;
    assert!(nothing.contains("CertificateRequired"), "{nothing}");
    let old = client(&pki.root, Some(&pki.workload(CLIENT)), &[&TLS12], &[]);
    let error = refusal(&mesh, &old).await;
    assert!(error.contains("ProtocolVersion"), "{error}");
    assert!(mesh.app.seen().is_empty());
    assert_eq!(mesh.get("/open").over(&pki.client(&pki.workload(CLIENT))).send().await.status, 200);
}

/// Why a handshake failed. Who is still sending when the connection is closed may not see it, and asks again.
async fn refusal(mesh: &Mesh, tls: &Tls) -> String {
    loop {
        let error = chain(&*mesh.get("/open").over(tls).try_send().await.unwrap_err());
        if !error.contains("BrokenPipe") && !error.contains("ConnectionReset") {
            return error;
        }
    }
}

fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(one) = cause {
        text.push_str(&format!(": {one} {one:?}"));
        cause = one.source();
    }
    format!("{text} {error:?}")
}

#[tokio::test]
async fn plaintext_to_a_strict_port_is_refused_and_recorded() {
    let pki = Pki::new();
    let top = pki.identity("proxy", PROXY);
    let setup = Setup { top: &top, listener: "mtls: strict", routes: Some(ROUTES), ..Setup::default() };
    let (mesh, collector) = observed(setup).await;
    let heard = raw(mesh.address, b"GET /open HTTP/1.1\r\nhost: a\r\n\r\n", PATIENCE).await;
    assert!(
        heard.starts_with("HTTP/1.1 400 ") && heard.ends_with("{\"reason\":\"mtls_required\"}\n"),
        "{heard}"
    );
    let record = &collector.access_records(1).await[0];
    assert_eq!(attribute(record, a::TOLLGATE_REASON).as_deref(), Some("mtls_required"));
    assert!(mesh.app.seen().is_empty());
}

#[tokio::test]
async fn a_permissive_port_takes_all_and_tells_them_apart() {
    let pki = Pki::new();
    let top = pki.identity("proxy", PROXY);
    let setup = Setup { top: &top, listener: "mtls: permissive", routes: Some(ROUTES), ..Setup::default() };
    let (mesh, collector) = observed(setup).await;
    let known = pki.client(&pki.workload(CLIENT));
    assert_eq!(mesh.get("/open").send().await.status, 200);
    assert_eq!(mesh.get("/open").over(&pki.anonymous()).send().await.status, 200);
    assert_eq!(mesh.get("/open").over(&known).send().await.status, 200);
    let mut policies: Vec<_> = collector
        .access_records(3)
        .await
        .iter()
        .filter_map(|record| attribute(record, a::TOLLGATE_CONNECTION_SECURITY_POLICY))
        .collect();
    policies.sort();
    assert_eq!(policies, ["mutual_tls", "none", "tls"]);
    // A certificate that is shown and not believed is no better than on a strict port.
    let stranger = pki.client(&Authority::new("root").workload(CLIENT));
    assert!(mesh.get("/open").over(&stranger).try_send().await.is_err());
}

#[tokio::test]
async fn certificates_by_server_name_and_older_versions_where_configured() {
    let pki = Pki::new();
    let named = |name: &str| {
        let mut params = workload(CLIENT);
        params.subject_alt_names = vec![SanType::DnsName(name.try_into().unwrap())];
        pki.root.sign(params)
    };
    let mut certificates = String::new();
    for (file, name) in [("a", "a.example"), ("any", "*.b.example")] {
        let signed = named(name);
        let crt = pki.write(&format!("{file}.crt"), &signed.certificate_pem);
        let key = pki.write(&format!("{file}.key"), &signed.key_pem);
        certificates += &format!("{{certificate: {}, key: {}}},", quoted(&crt), quoted(&key));
    }
    let listener = format!("tls: {{min_version: '1.2', certificates: [{certificates}]}}");
    let mesh = mesh("", &listener).await;
    for (name, fits) in [("a.example", true), ("x.b.example", true), ("c.example", false)] {
        for version in [&TLS12, &TLS13] {
            let (config, _) = client(&pki.root, None, &[version], &[]);
            let answer = mesh.get("/open").over(&(config, name)).try_send().await;
            assert_eq!(answer.is_ok(), fits, "{name} {version:?}: {answer:?}");
        }
    }
    let (config, _) = client(&pki.root, None, &[&TLS13], &[b"h2"]);
    assert_eq!(mesh.get("/open").http2().over(&(config, "a.example")).send().await.status, 200);
    // A new certificate is shown from the next handshake on; a file that is damaged is not.
    let new = named("c.example");
    pki.write("a.crt", "no certificate");
    pki.write("a.key", &new.key_pem);
    pki.write("a.crt", &new.certificate_pem);
    let (config, _) = client(&pki.root, None, &[&TLS13], &[]);
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while mesh.get("/open").over(&(config.clone(), "c.example")).try_send().await.is_err() {
        assert!(tokio::time::Instant::now() < deadline, "the new certificate is not shown");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn a_companys_own_clients_are_believed_but_no_workloads() {
    let (pki, company) = (Pki::new(), Authority::new("company"));
    let file = pki.write("company.ca", &company.root_pem());
    let top = pki.identity("proxy", PROXY);
    let mesh = mesh(&top, &format!("mtls: strict, client_ca: {}", quoted(&file))).await;
    let mut params = workload(CLIENT);
    params.subject_alt_names = vec![SanType::DnsName("app.partner.example".try_into().unwrap())];
    let partner = pki.client(&company.sign(params));
    assert_eq!(mesh.get("/peer").over(&partner).send().await.body, "partner");
    assert_eq!(mesh.get("/policies").bearer("reader").over(&partner).send().await.status, 200);
    let question = &mesh.authz.questions()[0];
    let source = question.attributes.as_ref().unwrap().source.as_ref().unwrap();
    assert!(source.principal.is_empty() && !source.certificate.is_empty());
    let forwarded = mesh.app.seen().last().unwrap().headers["x-forwarded-client-cert"].clone();
    assert!(forwarded.to_str().unwrap().ends_with(";DNS=\"app.partner.example\""), "{forwarded:?}");
    // Neither may it sign for our workloads, nor may they come here.
    for shown in [company.workload(CLIENT), pki.workload(CLIENT)] {
        assert!(mesh.get("/open").over(&pki.client(&shown)).try_send().await.is_err());
    }
}

#[tokio::test]
async fn a_connection_says_that_it_ends_before_its_peers_certificate_does() {
    use http_body_util::{BodyExt as _, Empty};
    use hyper_util::rt::TokioIo;

    let pki = Pki::new();
    let mesh = mesh(&pki.identity("proxy", PROXY), "role: sidecar, mtls: strict").await;
    let (config, name) = pki.client(&pki.root.sign(short(CLIENT, 6)));
    let end = tokio::time::Instant::now() + Duration::from_secs(6);
    let stream = tokio::net::TcpStream::connect(mesh.address).await.unwrap();
    let name = rustls::pki_types::ServerName::try_from(name).unwrap();
    let stream = tokio_rustls::TlsConnector::from(config).connect(name, stream).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    let mut driving = tokio::task::JoinSet::new();
    driving.spawn(connection);
    let mut answers = 0;
    loop {
        let request = http::Request::get("/open").header("host", "a").body(Empty::<bytes::Bytes>::new());
        sender.ready().await.unwrap();
        let answer = sender.send_request(request.unwrap()).await.unwrap();
        assert_eq!(answer.status(), 200);
        answers += 1;
        let was_last = answer.headers().get("connection").is_some_and(|value| value == "close");
        answer.into_body().collect().await.unwrap();
        if was_last {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(answers > 1 && tokio::time::Instant::now() < end, "{answers}");
    driving.join_next().await.unwrap().unwrap().unwrap();

    // Whatever is under way at the end is cut.
    let (config, name) = pki.client(&pki.root.sign(short(CLIENT, 3)));
    let slow = mesh.get("/open").header("x-behave", "delay:60000").over(&(config, name)).try_send();
    let error =
        tokio::time::timeout(Duration::from_secs(20), slow).await.expect("it ends with the certificate");
    assert!(error.is_err(), "{error:?}");
}
