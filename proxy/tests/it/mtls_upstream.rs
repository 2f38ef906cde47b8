//! TLS towards upstreams: who must answer, and who we are towards them.

use rcgen::SanType;
use tollgate_testkit::authority::{Authority, workload};

use crate::harness::{Mesh, Setup};
use crate::pki::{CLIENT, PROXY, Pki, quoted};

const INGRESS: &str = "spiffe://test.example/ns/shop/sa/ingress";

/// A sidecar that takes workloads only.
async fn sidecar(pki: &Pki) -> Mesh {
    let top = pki.identity("sidecar", PROXY);
    Setup { top: &top, listener: "role: sidecar, mtls: strict", ..Setup::default() }.start().await
}

async fn towards(pki: &Pki, sidecar: &Mesh, cluster: &str) -> Mesh {
    let top = pki.identity("ingress", INGRESS);
    Setup { top: &top, cluster, upstream: Some(sidecar.address), ..Setup::default() }.start().await
}

#[tokio::test]
async fn both_proxies_prove_who_they_are() {
    let pki = Pki::new();
    let sidecar = sidecar(&pki).await;
    for protocol in ["H1", "H2"] {
        let protocol = protocol.to_lowercase();
        let cluster = format!("protocol: {protocol}, tls: {{spiffe_ids: ['{PROXY}']}}");
        let ingress = towards(&pki, &sidecar, &cluster).await;
        for _ in 0..3 {
            assert_eq!(ingress.get("/open").send().await.status, 200, "{protocol}");
        }
    }
    let forwarded = sidecar.app.seen()[0].headers["x-forwarded-client-cert"].to_str().unwrap().to_owned();
    assert!(forwarded.ends_with(&format!(";URI={INGRESS}")), "{forwarded}");
}

#[tokio::test]
async fn another_workload_at_the_address_gets_nothing() {
    let pki = Pki::new();
    let sidecar = sidecar(&pki).await;
    // Both clusters lead to one address; each has connections of its own.
    let clusters = format!(
        ", {{name: other, endpoints: {{static: ['{}']}}, tls: {{spiffe_ids: ['{CLIENT}']}}}}",
        sidecar.address
    );
    let routes = "routes:\n  - {name: right, matches: [{path: {value: /right}}], authz: off, backends: [{cluster: app}]}\n  \
                  - {name: wrong, matches: [{path: {value: /wrong}}], authz: off, backends: [{cluster: other}]}\n";
    let top = pki.identity("ingress", INGRESS);
    let ingress = Setup {
        top: &top,
        cluster: "tls: {spiffe_ids: ['spiffe://test.example/ns/shop/*']}",
        clusters: &clusters,
        upstream: Some(sidecar.address),
        routes: Some(routes),
        ..Setup::default()
    };
    let ingress = ingress.start().await;
    for _ in 0..3 {
        let right = ingress.get("/right").send().await;
        assert_eq!((right.status.as_u16(), &*right.reason()), (404, "no_route"), "it got there");
        let wrong = ingress.get("/wrong").send().await;
        assert_eq!((wrong.status.as_u16(), &*wrong.reason()), (502, "upstream_connect"));
    }
}

#[tokio::test]
async fn servers_outside_are_known_by_name() {
    let (pki, public) = (Pki::new(), Authority::new("public"));
    let mut params = workload(CLIENT);
    let dns = |name: &str| SanType::DnsName(name.try_into().unwrap());
    params.subject_alt_names = vec![dns("api.partner.example"), dns("partner.example")];
    let signed = public.sign(params);
    let (crt, key) = (pki.write("p.crt", &signed.certificate_pem), pki.write("p.key", &signed.key_pem));
    let listener = format!(
        "role: sidecar, tls: {{certificates: [{{certificate: {}, key: {}}}]}}",
        quoted(&crt),
        quoted(&key)
    );
    let server = Setup { listener: &listener, ..Setup::default() }.start().await;
    let ca = quoted(&pki.write("public.ca", &public.root_pem()));
    let other = quoted(&pki.write("other.ca", &pki.root.root_pem()));
    for (tls, expected) in [
        (format!("server_name: api.partner.example, ca: {ca}"), 200),
        (format!("server_name: api.partner.example, ca: {ca}, subject_names: [partner.example]"), 200),
        (format!("server_name: api.partner.example, ca: {ca}, subject_names: [else.example]"), 502),
        (format!("server_name: other.example, ca: {ca}"), 502),
        (format!("server_name: api.partner.example, ca: {other}"), 502),
    ] {
        let cluster = format!("tls: {{{tls}}}");
        let proxy = towards(&pki, &server, &cluster).await;
        assert_eq!(proxy.get("/open").send().await.status, expected, "{tls}");
    }
}

#[test]
fn what_cannot_be_meant_is_refused_by_key() {
    let pki = Pki::new();
    let identity = pki.identity("ingress", INGRESS);
    for (top, listener, cluster, key) in [
        ("", "mtls: strict", "", "listeners[0].mtls"),
        ("", "tls: {}", "", "listeners[0].tls"),
        (&*identity, "client_ca: x.pem", "", "listeners[0].client_ca"),
        ("", "", "tls: {spiffe_ids: ['spiffe://a/b']}", "clusters[0].tls.spiffe_ids"),
        (&*identity, "", "tls: {}", "clusters[0].tls"),
        (&*identity, "", "tls: {server_name: 'a b'}", "clusters[0].tls.server_name"),
        (&*identity, "", "tls: {spiffe_ids: ['spiffe://a/b'], ca: x}", "clusters[0].tls"),
        ("", "", "tls: {server_name: a.example, present_identity: true}", "clusters[0].tls.present_identity"),
    ] {
        let at = "127.0.0.1:1".parse().unwrap();
        let yaml = Setup { top, listener, cluster, ..Setup::default() }.yaml(at, at, at);
        let config = tollgate_runtime::config::load_text::<tollgate_proxy::Config>(
            std::path::Path::new("p.yaml"),
            &yaml,
            &[],
            &tollgate_runtime::config::Env::empty(),
        );
        let error = config.unwrap_err().to_string();
        assert!(error.contains(key), "{key}: {error}");
    }
}
