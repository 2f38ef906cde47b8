//! Certificates that must not be believed, each for its own reason.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose, SanType};
use tollgate_testkit::authority::{Authority, now, uri, workload};

use tollgate_identity::bundle::End;
use tollgate_identity::pki_types::CertificateDer;
use tollgate_identity::tls::Callers;
use tollgate_identity::{IdPattern, Leaf, Revocations, SpiffeId};

use crate::wire::{CLIENT, SERVER, bundles, connect, identity, strict, towards};

fn changed(change: impl FnOnce(&mut CertificateParams)) -> CertificateParams {
    let mut params = workload(CLIENT);
    change(&mut params);
    params
}

fn unix_now() -> i64 {
    now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs().cast_signed()
}

fn later(seconds: u64) -> SystemTime {
    now() + Duration::from_secs(seconds)
}

fn earlier(seconds: u64) -> SystemTime {
    now() - Duration::from_secs(seconds)
}

#[test]
fn what_is_wrong_with_a_certificate_is_named() {
    let authority = Authority::new("root");
    let trusted = bundles(&authority);
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let now = unix_now();
    let long = format!("spiffe://test.example/{}", "x".repeat(2048));
    let names = |names: Vec<SanType>| changed(|params| params.subject_alt_names = names);
    let usages = |usages: Vec<ExtendedKeyUsagePurpose>| changed(|params| params.extended_key_usages = usages);
    for (what, params, reason) in [
        ("right", workload(CLIENT), None),
        ("expired", changed(|params| params.not_after = earlier(1).into()), Some("CertExpired")),
        ("not yet valid", changed(|params| params.not_before = later(30).into()), Some("CertNotValidYet")),
        ("for servers only", usages(vec![ExtendedKeyUsagePurpose::ServerAuth]), Some("RequiredEkuNotFound")),
        ("another trust domain", names(vec![uri("spiffe://other.example/x")]), Some("no bundle")),
        ("two URIs", names(vec![uri(CLIENT), uri(SERVER)]), Some("2 URI names")),
        (
            "a second URI of another kind",
            names(vec![uri(CLIENT), uri("https://a.example/")]),
            Some("2 URI names"),
        ),
        ("upper case", names(vec![uri("spiffe://Test.example/x")]), Some("'T'")),
        ("too long", names(vec![uri(&long)]), Some("longer than 2048")),
        ("no path", names(vec![uri("spiffe://test.example")]), Some("not a workload")),
        ("another URI", names(vec![uri("https://test.example/x")]), Some("does not start with")),
        ("a common name alone", names(Vec::new()), Some("no URI name")),
        (
            "a DNS name alone",
            names(vec![SanType::DnsName("a.example".try_into().unwrap())]),
            Some("no URI name"),
        ),
        (
            "an authority",
            changed(|params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)),
            Some("certificate authority"),
        ),
        (
            "a key that signs certificates",
            changed(|params| params.key_usages.push(KeyUsagePurpose::KeyCertSign)),
            Some("certificate authority"),
        ),
        (
            "a key that may not sign",
            changed(|params| params.key_usages = vec![KeyUsagePurpose::KeyAgreement]),
            Some("digitalSignature"),
        ),
    ] {
        let leaf = authority.sign(params).certificate.into();
        let verdict = trusted.verify(&leaf, &[], End::Client, now, &provider);
        match (verdict, reason) {
            (Ok(leaf), None) => assert_eq!(leaf.id.as_str(), CLIENT, "{what}"),
            (Err(error), Some(reason)) => assert!(error.to_string().contains(reason), "{what}: {error}"),
            (Ok(_), Some(_)) => panic!("{what}: believed"),
            (Err(error), None) => panic!("{what}: {error}"),
        }
    }
    let stranger = Authority::new("root").workload(CLIENT).certificate.into();
    let error = trusted.verify(&stranger, &[], End::Client, now, &provider).unwrap_err().to_string();
    assert!(error.contains("UnknownIssuer") || error.contains("InvalidSignature"), "{error}");
    let itself = rcgen::KeyPair::generate().unwrap();
    let itself = workload(CLIENT).self_signed(&itself).unwrap().der().clone();
    assert!(trusted.verify(&itself, &[], End::Client, now, &provider).is_err());
    let many = vec![authority.root_der().into(); 8];
    let leaf = authority.workload(CLIENT).certificate.into();
    let error = trusted.verify(&leaf, &many, End::Client, now, &provider).unwrap_err().to_string();
    assert!(error.contains("more than 8"), "{error}");
}

/// Revoked, a certificate is refused by its serial number or by its workload, until the end that was set.
#[test]
fn what_is_revoked_is_believed_no_more() {
    let authority = Authority::new("root");
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let now = unix_now();
    let signed = |id: &str| CertificateDer::from(authority.workload(id).certificate);
    let (client, again, server) = (signed(CLIENT), signed(CLIENT), signed(SERVER));
    let serial = Leaf::read(&client).unwrap().serial;
    let revoking = |revoke: &dyn Fn(&mut Revocations)| {
        let mut revoked = Revocations::default();
        revoke(&mut revoked);
        let trusted = bundles(&authority).with_revocations(Arc::new(revoked));
        [&client, &again, &server].map(|leaf| match trusted.verify(leaf, &[], End::Client, now, &provider) {
            Ok(_) => true,
            Err(error) => {
                assert!(error.to_string().contains("is revoked"), "{error}");
                false
            }
        })
    };
    let pattern = |text: &str| text.parse::<IdPattern>().unwrap();
    assert_eq!(revoking(&|_| {}), [true, true, true]);
    assert_eq!(revoking(&|revoked| revoked.serial(&serial, now + 60)), [false, true, true]);
    assert_eq!(revoking(&|revoked| revoked.serial(&serial, now)), [true, true, true], "it is over");
    assert_eq!(revoking(&|revoked| revoked.workloads(pattern(CLIENT), now + 60)), [false, false, true]);
    let shop = "spiffe://test.example/ns/shop/*";
    assert_eq!(revoking(&|revoked| revoked.workloads(pattern(shop), now + 60)), [false, false, false]);
}

#[test]
fn an_alias_means_the_same_workload_by_the_same_roots() {
    let (ours, other) = (Authority::new("ours"), Authority::new("other"));
    let trusted =
        bundles(&ours).with_alias("old.example".parse().unwrap(), "test.example".parse().unwrap()).unwrap();
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let now = unix_now();
    let leaf = ours.workload("spiffe://old.example/ns/shop/sa/client").certificate.into();
    assert_eq!(trusted.verify(&leaf, &[], End::Client, now, &provider).unwrap().id.as_str(), CLIENT);
    let leaf = other.workload("spiffe://old.example/ns/shop/sa/client").certificate.into();
    assert!(trusted.verify(&leaf, &[], End::Client, now, &provider).is_err());
    for (alias, of) in [("test.example", "test.example"), ("x.example", "nobody.example")] {
        assert!(bundles(&ours).with_alias(alias.parse().unwrap(), of.parse().unwrap()).is_err(), "{alias}");
    }
}

#[test]
fn callers_are_named_by_any_name_of_a_trust_domain_and_partners_by_their_own() {
    let (ours, partner) = (Authority::new("ours"), Authority::new("partner"));
    let trusted = bundles(&ours)
        .with("partner.example".parse().unwrap(), vec![partner.root_der().into()])
        .unwrap()
        .with_alias("old.example".parse().unwrap(), "test.example".parse().unwrap())
        .unwrap();
    let server = identity(&ours.workload(SERVER), trusted);
    let id = |text: &str| text.parse::<SpiffeId>().unwrap();
    let include = |named: &[&str], caller: &str| {
        let named: Vec<IdPattern> = named.iter().map(|pattern| pattern.parse().unwrap()).collect();
        Callers::new(&named, &server).include(&id(caller))
    };
    let theirs = "spiffe://partner.example/ns/shop/sa/client";
    for (named, caller, expected) in [
        // With nobody named: our own trust domain, and no other that we hold roots of.
        (&[][..], CLIENT, true),
        (&[], theirs, false),
        (&[CLIENT], CLIENT, true),
        (&[SERVER], CLIENT, false),
        (&["spiffe://old.example/ns/shop/sa/client"], CLIENT, true),
        (&["spiffe://old.example/ns/shop/*"], CLIENT, true),
        (&["spiffe://old.example/ns/sho/*"], CLIENT, false),
        (&["spiffe://old.example/*"], CLIENT, true),
        (&["spiffe://old.example/*"], theirs, false),
        (&["spiffe://partner.example/ns/shop/*"], theirs, true),
        (&["spiffe://test.example/*"], theirs, false),
    ] {
        assert_eq!(include(named, caller), expected, "{named:?} {caller}");
    }
    let material = server.material();
    let others: Vec<_> = material.bundles.other_names(&id(CLIENT)).collect();
    assert_eq!(others, [id("spiffe://old.example/ns/shop/sa/client")]);
    assert!(material.bundles.other_names(&id(theirs)).next().is_none());
}

#[tokio::test]
async fn a_server_may_be_expected_by_an_alias_of_its_trust_domain() {
    let ours = Authority::new("ours");
    let trusted = || {
        bundles(&ours).with_alias("old.example".parse().unwrap(), "test.example".parse().unwrap()).unwrap()
    };
    let renamed = SERVER.replace("test.example", "old.example");
    for (server, expected, answers) in [
        (SERVER, &*renamed, true),
        (&*renamed, SERVER, true),
        (&*renamed, &*renamed, true),
        (SERVER, CLIENT, false),
    ] {
        let server = identity(&ours.workload(server), trusted());
        let client = identity(&ours.workload(CLIENT), trusted());
        let (seen, _) = connect(strict(&server), towards(&client, &[expected])).await;
        assert_eq!(seen.is_ok(), answers, "{expected}: {seen:?}");
    }
}
