//! Who may talk to whom, in real handshakes.

use tollgate_identity::Material;
use tollgate_identity::tls::{self, MinimumVersion, Mtls, ServerOptions};
use tollgate_testkit::authority::Authority;

use crate::wire::{CLIENT, SERVER, bundles, connect, credential, identity, strict, towards};

#[tokio::test]
async fn both_ends_know_each_other_by_id() {
    let authority = Authority::new("root");
    let server = identity(&authority.workload(SERVER), bundles(&authority));
    let client = identity(&authority.workload(CLIENT), bundles(&authority));
    let (seen_by_client, seen_by_server) =
        connect(strict(&server), towards(&client, &["spiffe://test.example/ns/shop/*"])).await;
    assert_eq!(seen_by_client.unwrap().unwrap().id.as_str(), SERVER);
    assert_eq!(seen_by_server.unwrap().unwrap().id.as_str(), CLIENT);
}

#[tokio::test]
async fn another_workload_than_was_asked_for_is_refused() {
    let authority = Authority::new("root");
    let server = identity(&authority.workload(SERVER), bundles(&authority));
    let client = identity(&authority.workload(CLIENT), bundles(&authority));
    for expected in [&["spiffe://test.example/ns/shop/sa/other"][..], &[]] {
        let (seen_by_client, seen_by_server) = connect(strict(&server), towards(&client, expected)).await;
        assert!(seen_by_client.is_err(), "{expected:?}");
        assert!(seen_by_server.is_err(), "{expected:?}");
    }
}

#[tokio::test]
async fn a_client_without_certificate_passes_only_where_that_is_allowed() {
    let authority = Authority::new("root");
    let mut roots = rustls::RootCertStore::empty();
    roots.add(authority.root_der().into()).unwrap();
    let mut params = tollgate_testkit::authority::workload(SERVER);
    params.subject_alt_names.push(rcgen::SanType::DnsName("ignored.invalid".try_into().unwrap()));
    let named = identity(&authority.sign(params), bundles(&authority));
    let anonymous = || {
        let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider);
        let builder = builder.with_safe_default_protocol_versions().unwrap();
        std::sync::Arc::new(builder.with_root_certificates(roots.clone()).with_no_client_auth())
    };
    let (_, refused) = connect(strict(&named), anonymous()).await;
    assert!(refused.unwrap_err().contains("no certificates"));
    let permissive = ServerOptions { mtls: Mtls::Permissive, ..ServerOptions::default() };
    let (_, accepted) = connect(tls::server_config(&named, &permissive).unwrap(), anonymous()).await;
    assert_eq!(accepted, Ok(None));
}

#[tokio::test]
async fn new_material_is_in_force_at_the_next_handshake() {
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let server = identity(&old.workload(SERVER), bundles(&old));
    let client = identity(&old.workload(CLIENT), bundles(&old));
    let (server_tls, client_tls) = (strict(&server), towards(&client, &[SERVER]));
    let (first, _) = connect(server_tls.clone(), client_tls.clone()).await;
    let mut rotations = client.rotations();
    for (identity, id) in [(&server, SERVER), (&client, CLIENT)] {
        identity.replace(Material { credential: credential(&new.workload(id)), bundles: bundles(&new) });
    }
    rotations.changed().await.unwrap();
    let (second, seen_by_server) = connect(server_tls.clone(), client_tls).await;
    assert_ne!(first.unwrap().unwrap().serial, second.unwrap().unwrap().serial);
    assert!(seen_by_server.unwrap().unwrap().issuer.contains("new"));

    let left_behind = identity(&old.workload(CLIENT), bundles(&new));
    let (_, refused) = connect(server_tls, towards(&left_behind, &[SERVER])).await;
    assert!(refused.unwrap_err().contains("UnknownIssuer"));
}

#[tokio::test]
async fn a_partner_speaks_for_its_own_trust_domain_only() {
    let (ours, partner) = (Authority::new("ours"), Authority::new("partner"));
    let federated =
        bundles(&ours).with("partner.example".parse().unwrap(), vec![partner.root_der().into()]).unwrap();
    let server = identity(&ours.workload(SERVER), federated);
    let honest = identity(&partner.workload("spiffe://partner.example/x"), bundles(&ours));
    let (_, seen) = connect(strict(&server), towards(&honest, &[SERVER])).await;
    assert_eq!(seen.unwrap().unwrap().id.as_str(), "spiffe://partner.example/x");
    let liar = identity(&partner.workload(CLIENT), bundles(&ours));
    let (_, refused) = connect(strict(&server), towards(&liar, &[SERVER])).await;
    assert!(refused.unwrap_err().contains("UnknownIssuer"));
}

#[tokio::test]
async fn tls_1_2_is_spoken_only_where_configured() {
    let authority = Authority::new("root");
    let server = identity(&authority.workload(SERVER), bundles(&authority));
    let client = identity(&authority.workload(CLIENT), bundles(&authority));
    let old_client = || {
        let config = towards(&client, &[SERVER]);
        let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider);
        let builder = builder.with_protocol_versions(&[&rustls::version::TLS12]).unwrap();
        let resolver = std::sync::Arc::clone(&config.client_auth_cert_resolver);
        let mut roots = rustls::RootCertStore::empty();
        roots.add(authority.root_der().into()).unwrap();
        std::sync::Arc::new(builder.with_root_certificates(roots).with_client_cert_resolver(resolver))
    };
    let (refused, _) = connect(strict(&server), old_client()).await;
    assert!(refused.unwrap_err().contains("ProtocolVersion"));
    let mut params = tollgate_testkit::authority::workload(SERVER);
    params.subject_alt_names.push(rcgen::SanType::DnsName("ignored.invalid".try_into().unwrap()));
    let named = identity(&authority.sign(params), bundles(&authority));
    let options = ServerOptions { minimum: MinimumVersion::Tls12, ..ServerOptions::default() };
    let (accepted, _) = connect(tls::server_config(&named, &options).unwrap(), old_client()).await;
    assert_eq!(accepted.unwrap().unwrap().id.as_str(), SERVER);
}
