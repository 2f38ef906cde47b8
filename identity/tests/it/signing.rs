//! The authority's own work: what it signs is believed, and nobody asks for more than was proved.

use std::time::{Duration, SystemTime};

use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, KeyUsagePurpose, SanType};
use tollgate_identity::bundle::End;
use tollgate_identity::signing::{Profile, Request, RequestFault, Root, WrappingKey};
use tollgate_identity::{SpiffeId, TrustBundles, TrustDomain};
use tollgate_testkit::authority::{now, uri};

use crate::wire::{CLIENT, SERVER};

const LIFE: Duration = Duration::from_secs(6 * 3600);

fn unix_now() -> i64 {
    now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs().cast_signed()
}

fn request(params: &CertificateParams, key: &KeyPair) -> Vec<u8> {
    params.serialize_request(key).unwrap().der().to_vec()
}

fn plain(key: &KeyPair) -> Vec<u8> {
    request(&CertificateParams::default(), key)
}

#[test]
fn what_is_signed_is_believed_and_says_only_what_was_proved() {
    let domain: TrustDomain = "test.example".parse().unwrap();
    let root = Root::generate(&domain, unix_now(), Duration::from_secs(86_400)).unwrap();
    let key = KeyPair::generate().unwrap();
    let mut greedy = CertificateParams::default();
    greedy.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    greedy.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    greedy.subject_alt_names = vec![SanType::DnsName("admin.example".try_into().unwrap())];
    let asked = Request::read(&request(&greedy, &key)).unwrap();
    let id: SpiffeId = CLIENT.parse().unwrap();
    let profile = Profile { dns: vec!["localhost".into()], ips: vec!["127.0.0.1".parse().unwrap()] };
    let issued = root.sign(&asked, &id, &profile, unix_now(), LIFE).unwrap();
    assert_eq!(issued.leaf.id, id);
    assert!(issued.leaf.not_after - unix_now() <= LIFE.as_secs().cast_signed());

    let trusted = TrustBundles::default().with(domain, vec![root.certificate().clone()]).unwrap();
    let provider = tollgate_identity::provider();
    for end in [End::Client, End::Server] {
        let believed = trusted.verify(&issued.certificate, &[], end, unix_now(), &provider).unwrap();
        assert_eq!(believed, issued.leaf);
    }
    let (_, parsed) = x509_parser::parse_x509_certificate(&issued.certificate).unwrap();
    let names = &parsed.subject_alternative_name().unwrap().unwrap().value.general_names;
    assert_eq!(names.len(), 3, "{names:?}");
    assert!(!format!("{names:?}").contains("admin.example"));
    let late = unix_now() + LIFE.as_secs().cast_signed() + 1;
    assert!(trusted.verify(&issued.certificate, &[], End::Client, late, &provider).is_err());
    let again = root.sign(&asked, &id, &profile, unix_now(), LIFE).unwrap();
    assert_ne!(again.leaf.serial, issued.leaf.serial);
}

#[test]
fn a_root_rests_sealed_and_signs_on_after_a_restart() {
    let domain: TrustDomain = "test.example".parse().unwrap();
    let root = Root::generate(&domain, unix_now(), Duration::from_secs(86_400)).unwrap();
    let wrapping = WrappingKey::from_bytes(&[1; 32]);
    let sealed = wrapping.seal(&root.key(), root.certificate()).unwrap();
    let key = wrapping.unseal(&sealed, root.certificate()).unwrap();
    let restored = Root::restore(root.certificate().clone(), &key).unwrap();
    let asked = Request::read(&plain(&KeyPair::generate().unwrap())).unwrap();
    let issued =
        restored.sign(&asked, &SERVER.parse().unwrap(), &Profile::default(), unix_now(), LIFE).unwrap();
    let trusted = TrustBundles::default().with(domain.clone(), vec![root.certificate().clone()]).unwrap();
    let provider = tollgate_identity::provider();
    assert!(trusted.verify(&issued.certificate, &[], End::Server, unix_now(), &provider).is_ok());
    let other = Root::generate(&domain, unix_now(), Duration::from_secs(86_400)).unwrap();
    let error = Root::restore(other.certificate().clone(), &key).unwrap_err().to_string();
    assert!(error.contains("another certificate"), "{error}");
}

#[test]
fn bad_requests_are_refused_by_name() {
    let key = KeyPair::generate().unwrap();
    let right = plain(&key);
    let mut forged = right.clone();
    *forged.last_mut().unwrap() ^= 1;
    let mut longer = right.clone();
    longer.push(0);
    let p521 = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P521_SHA512).unwrap();
    for (what, der, reason) in [
        ("nothing", Vec::new(), "no certificate signing request"),
        ("garbage", b"hello".to_vec(), "no certificate signing request"),
        ("a forged signature", forged, "no certificate signing request"),
        ("more than a request", longer, "bytes follow"),
        ("a strange curve", plain(&p521), "another elliptic curve"),
        ("far too much", vec![0x30; 20_000], "larger than"),
    ] {
        let error = Request::read(&der).unwrap_err().to_string();
        assert!(error.contains(reason), "{what}: {error}");
    }
    assert!(Request::read(&right).is_ok());
    for algorithm in [&rcgen::PKCS_ED25519, &rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_RSA_SHA256] {
        let key = KeyPair::generate_for(algorithm).unwrap();
        assert!(Request::read(&plain(&key)).is_ok(), "{algorithm:?}");
    }
}

#[test]
fn a_request_for_another_id_than_was_proved_is_refused() {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![uri(SERVER)];
    let asked = Request::read(&request(&params, &key)).unwrap();
    assert_eq!(asked.agrees_with(&SERVER.parse().unwrap()), Ok(()));
    let refused = asked.agrees_with(&CLIENT.parse().unwrap());
    assert!(matches!(refused, Err(RequestFault::OtherId { found, .. }) if found == SERVER));
    let silent = Request::read(&plain(&key)).unwrap();
    assert_eq!(silent.agrees_with(&CLIENT.parse().unwrap()), Ok(()));
    assert_eq!(silent.key_hash, asked.key_hash);
}
