//! Sources against real files and a real Workload API server.

use std::collections::BTreeMap;
use std::path::Path;

use tollgate_identity::config::IdentityConfig;
use tollgate_identity::source::{FilesConfig, WorkloadApiConfig};
use tollgate_runtime::Service;
use tollgate_testkit::authority::{Authority, Signed};
use tollgate_testkit::workload_api::{Svid, SvidResponse, WorkloadApiServer};

use crate::wire::{CLIENT, SERVER};

fn files(folder: &Path) -> FilesConfig {
    FilesConfig {
        certificate: folder.join("tls.crt"),
        key: folder.join("tls.key"),
        bundle: folder.join("ca.crt"),
        federated: BTreeMap::new(),
        aliases: Vec::new(),
    }
}

/// As Kubernetes and cert-manager do it: written beside, renamed over.
fn write(folder: &Path, name: &str, text: &str) {
    let beside = folder.join(format!("{name}.new"));
    std::fs::write(&beside, text).unwrap();
    std::fs::rename(beside, folder.join(name)).unwrap();
}

fn write_all(folder: &Path, authority: &Authority, signed: &Signed) {
    write(folder, "tls.crt", &signed.certificate_pem);
    write(folder, "tls.key", &signed.key_pem);
    write(folder, "ca.crt", &authority.root_pem());
}

#[tokio::test]
async fn files_are_followed_and_a_half_written_rotation_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new("root");
    let (first, second) = (authority.workload(CLIENT), authority.workload(CLIENT));
    write_all(folder.path(), &authority, &first);
    let service = Service::for_test("identity");
    let identity = IdentityConfig::Files(files(folder.path())).follow(&service).await.unwrap();
    let serial = identity.material().credential.leaf.serial.clone();
    let mut rotations = identity.rotations();

    write(folder.path(), "tls.crt", &second.certificate_pem);
    assert!(files(folder.path()).read().unwrap_err().to_string().contains("does not belong"));
    write(folder.path(), "tls.key", &second.key_pem);
    rotations.changed().await.unwrap();
    assert_ne!(identity.material().credential.leaf.serial, serial);
    assert_eq!(*rotations.borrow(), 1, "the half-written state was not put in force");
}

#[tokio::test]
async fn what_is_wrong_with_a_file_is_said_without_its_content() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new("root");
    let right = authority.workload(CLIENT);
    let broken_key = right.key_pem.replace("\nMI", "\n!!");
    for (name, text, reason) in [
        ("tls.crt", "", "holds no certificate"),
        ("tls.crt", "-----BEGIN CERTIFICATE-----\nMII", "has no end"),
        ("tls.crt", &*authority.root_pem(), "no URI name"),
        ("tls.key", "", "holds no private key"),
        ("tls.key", &broken_key, "no base64"),
        ("tls.key", &authority.workload(CLIENT).key_pem, "does not belong"),
        ("ca.crt", &right.key_pem, "holds no certificate"),
    ] {
        write_all(folder.path(), &authority, &right);
        write(folder.path(), name, text);
        let error = files(folder.path()).read().unwrap_err().to_string();
        let about_authority = error.contains("authority") && text == authority.root_pem();
        assert!(error.contains(reason) || about_authority, "{name}: {error}");
        for line in text.lines().filter(|line| line.len() > 20 && !line.starts_with("-----")) {
            assert!(!error.contains(line), "{error}");
        }
    }
    write_all(folder.path(), &authority, &right);
    std::fs::remove_file(folder.path().join("tls.key")).unwrap();
    let service = Service::for_test("identity");
    let error = IdentityConfig::Files(files(folder.path())).follow(&service).await.unwrap_err().to_string();
    assert!(error.contains("tls.key"), "{error}");
}

fn answer(authority: &Authority, id: &str) -> SvidResponse {
    let svid = Svid::new(id, &authority.workload(id), authority.root_der(), "internal");
    SvidResponse { svids: vec![svid], ..SvidResponse::default() }
}

#[tokio::test]
async fn a_workload_api_is_followed_through_its_restart() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("agent.sock");
    let (authority, partner) = (Authority::new("root"), Authority::new("partner"));
    let mut first = answer(&authority, CLIENT);
    first.svids.push(Svid::new(SERVER, &authority.workload(SERVER), authority.root_der(), "external"));
    first.federated_bundles.insert("spiffe://partner.example".to_owned(), partner.root_der());
    let agent = WorkloadApiServer::start(&socket, first);
    let service = Service::for_test("identity");
    let config = WorkloadApiConfig { socket: agent.socket().to_owned(), hint: None, aliases: Vec::new() };
    let identity = IdentityConfig::WorkloadApi(config.clone()).follow(&service).await.unwrap();
    assert_eq!(identity.material().credential.leaf.id.as_str(), CLIENT);
    let domains: Vec<_> = identity.material().bundles.domains().map(|(name, _)| name.to_string()).collect();
    assert_eq!(domains, ["partner.example", "test.example"]);

    let hinted = WorkloadApiConfig { hint: Some("external".to_owned()), ..config };
    let other = IdentityConfig::WorkloadApi(hinted).follow(&service).await.unwrap();
    assert_eq!(other.material().credential.leaf.id.as_str(), SERVER);

    let serial = identity.material().credential.leaf.serial.clone();
    let mut rotations = identity.rotations();
    agent.push(answer(&authority, CLIENT));
    rotations.changed().await.unwrap();
    let pushed = identity.material().credential.leaf.serial.clone();
    assert_ne!(pushed, serial);

    drop(agent);
    let _agent = WorkloadApiServer::start(&socket, answer(&authority, CLIENT));
    rotations.changed().await.unwrap();
    assert_ne!(identity.material().credential.leaf.serial, pushed);
}
