//! Telemetry to a collector outside the mesh: it proves its name, and is shown nothing.

use std::path::Path;

use opentelemetry::trace::{Span as _, Tracer as _};
use tollgate_identity::report_outside;
use tollgate_identity::tls::{Clients, Door, DoorTls, ServerCertificate};
use tollgate_runtime::Service;
use tollgate_runtime::process::ProcessConfig;
use tollgate_runtime::telemetry::TelemetryConfig;
use tollgate_testkit::authority::Authority;
use tollgate_testkit::fake_collector::FakeCollector;

fn write(folder: &Path, name: &str, text: &str) -> std::path::PathBuf {
    let file = folder.join(name);
    std::fs::write(&file, text).unwrap();
    file
}

/// A collector with a certificate for `localhost`.
fn collector(authority: &Authority, folder: &Path, service: &Service) -> FakeCollector {
    let signed = authority.named(&["localhost"]);
    let certificate = ServerCertificate {
        names: Vec::new(),
        certificate: write(folder, "collector.crt", &signed.certificate_pem),
        key: write(folder, "collector.key", &signed.key_pem),
    };
    let tls = DoorTls { certificates: vec![certificate], ..DoorTls::default() };
    let any = "127.0.0.1:0".parse().unwrap();
    let door = Door::bind(any, ("collector", "tls"), Some(&tls), Clients::None).unwrap();
    let address = door.local_addr().unwrap();
    FakeCollector::start_on(address, door.incoming(None, service).unwrap())
}

/// A part that reports there by this name and these roots, and has one span to tell.
fn reporting(collector: &FakeCollector, host: &str, roots: &Path) -> Service {
    let config = TelemetryConfig {
        endpoint: Some(format!("https://{host}:{}", collector.address().port())),
        ca_file: Some(roots.to_owned()),
        ..TelemetryConfig::default()
    };
    config.check().unwrap();
    assert!(!config.is_secure(), "it takes no identity");
    let service = Service::start("part", &ProcessConfig::default(), &config).unwrap();
    report_outside(&service).unwrap();
    service.telemetry().tracer().start("told").end();
    service
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_is_known_by_its_name_and_roots() {
    let (authority, folder) = (Authority::new("collectors"), tempfile::tempdir().unwrap());
    let door = Service::for_test("collector");
    let collector = collector(&authority, folder.path(), &door);
    let roots = write(folder.path(), "roots.crt", &authority.root_pem());
    let others = write(folder.path(), "others.crt", &Authority::new("collectors").root_pem());

    // Whoever answers by another name, or has another root, gets nothing: not now, and not at the end.
    let misled = reporting(&collector, "127.0.0.1", &roots);
    let wary = reporting(&collector, "localhost", &others);
    let told = reporting(&collector, "localhost", &roots);
    assert_eq!(collector.spans(1).await.len(), 1);
    for service in [told, misled, wary] {
        service.stop().await;
    }
    assert_eq!(collector.spans(1).await.len(), 1);
    assert!(report_outside(&Service::for_test("silent")).is_ok());
}

#[test]
fn what_does_not_fit_together_is_named() {
    let check = |endpoint: &str, spiffe_id: Option<&str>| {
        let config = TelemetryConfig {
            endpoint: Some(endpoint.to_owned()),
            ca_file: Some("roots.crt".into()),
            spiffe_id: spiffe_id.map(str::to_owned),
            ..TelemetryConfig::default()
        };
        config.check().err().map(|invalid| invalid.key)
    };
    assert_eq!(check("https://collector.example:4317", None), None);
    assert_eq!(check("http://127.0.0.1:4317", None).as_deref(), Some("telemetry.ca_file"));
    let id = Some("spiffe://a.example/x");
    assert_eq!(check("https://collector.example:4317", id).as_deref(), Some("telemetry.spiffe_id"));
}
