//! Who gets which request, and where endpoints come from.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::net::UdpSocket;
use tokio::task::JoinSet;
use tollgate_testkit::echo_app::EchoApp;

use crate::harness::{Mesh, Setup};

async fn start(count: usize) -> Vec<EchoApp> {
    let mut apps = Vec::new();
    for _ in 0..count {
        apps.push(EchoApp::start().await);
    }
    apps
}

fn addresses(apps: &[EchoApp]) -> String {
    apps.iter().map(|app| format!("'{}'", app.address())).collect::<Vec<_>>().join(", ")
}

async fn mesh(cluster: &str) -> Mesh {
    let clusters = format!(", {{name: many, {cluster}}}");
    let routes = "routes: [{name: a, matches: [{}], authz: off, backends: [{cluster: many}]}]";
    // `until` asks as fast as it can.
    let listener = "limit_by_address: {per_second: 0}";
    Setup { listener, routes: Some(routes), clusters: &clusters, ..Setup::default() }.start().await
}

fn counts(apps: &[EchoApp]) -> Vec<usize> {
    apps.iter().map(|app| app.seen().len()).collect()
}

#[tokio::test]
async fn every_way_reaches_everybody() {
    for way in ["least_request", "peak_ewma", "round_robin", "random"] {
        let apps = start(3).await;
        let mesh = mesh(&format!("endpoints: {{static: [{}]}}, balance: {way}", addresses(&apps))).await;
        for _ in 0..45 {
            assert_eq!(mesh.get("/a").send().await.status, 200);
        }
        let counts = counts(&apps);
        assert!(counts.iter().all(|count| *count > 0), "{way}: {counts:?}");
        if way == "round_robin" {
            assert_eq!(counts, [15, 15, 15]);
        }
    }
}

#[tokio::test]
async fn the_slow_one_gets_less_where_latency_counts() {
    let apps = start(3).await;
    apps[0].behave("delay:40");
    let mesh = mesh(&format!("endpoints: {{static: [{}]}}, balance: peak_ewma", addresses(&apps))).await;
    for _ in 0..60 {
        assert_eq!(mesh.get("/a").send().await.status, 200);
    }
    let counts = counts(&apps);
    assert!(counts[0] < 15, "{counts:?}");
}

#[tokio::test]
async fn a_key_stays_with_its_endpoint() {
    for way in ["ring_hash", "maglev"] {
        let apps = start(4).await;
        let keys = format!(
            "endpoints: {{static: [{}]}}, balance: {{{way}: {{header: x-tenant}}}}",
            addresses(&apps)
        );
        let mesh = mesh(&keys).await;
        for _ in 0..3 {
            for tenant in 0..12 {
                mesh.get("/a").header("x-tenant", &format!("t{tenant}")).send().await;
            }
        }
        let mut reached = 0;
        for app in &apps {
            let mut tenants: Vec<_> =
                app.seen().iter().map(|seen| seen.headers["x-tenant"].clone()).collect();
            reached += usize::from(!tenants.is_empty());
            tenants.sort_by(|a, b| a.as_bytes().cmp(b.as_bytes()));
            let all = tenants.len();
            tenants.dedup();
            assert_eq!(all, tenants.len() * 3, "{way}: a tenant went to two endpoints");
        }
        assert!(reached > 1, "{way}");
    }
}

#[tokio::test]
async fn localities_share_by_weight() {
    let apps = start(2).await;
    let keys = format!(
        "localities: [{{name: near, weight: 90}}, {{name: far, weight: 10}}], endpoints: {{static: \
         [{{address: '{}', locality: near}}, {{address: '{}', locality: far}}]}}",
        apps[0].address(),
        apps[1].address()
    );
    let mesh = mesh(&keys).await;
    for _ in 0..100 {
        mesh.get("/a").send().await;
    }
    let counts = counts(&apps);
    assert!(counts[0] > 70 && counts[1] > 0, "{counts:?}");
}

#[tokio::test]
async fn a_file_with_endpoints_is_followed_and_a_bad_one_is_not() {
    let apps = start(2).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("endpoints.yaml");
    std::fs::write(&file, format!("['{}']", apps[0].address())).unwrap();
    let mesh = mesh(&format!("endpoints: {{file: '{}'}}", file.display())).await;
    until(&mesh, || !apps[0].seen().is_empty()).await;
    assert!(apps[1].seen().is_empty());
    std::fs::write(&file, format!("['{}']", apps[1].address())).unwrap();
    until(&mesh, || !apps[1].seen().is_empty()).await;
    std::fs::write(&file, "[nonsense]").unwrap();
    let before = apps[1].seen().len();
    until(&mesh, || apps[1].seen().len() > before + 50).await;
}

/// Sends requests until something is so.
async fn until(mesh: &Mesh, so: impl Fn() -> bool) {
    let began = Instant::now();
    while !so() {
        assert!(began.elapsed() < Duration::from_secs(20), "never");
        mesh.get("/a").send().await;
    }
}

/// A name server that knows one name, with a time to live of a second.
struct Names {
    address: SocketAddr,
    known: std::sync::Arc<parking_lot::Mutex<Vec<[u8; 4]>>>,
    _serving: JoinSet<()>,
}

impl Names {
    async fn start(known: &[[u8; 4]]) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let known = std::sync::Arc::new(parking_lot::Mutex::new(known.to_vec()));
        let mut serving = JoinSet::new();
        let told = std::sync::Arc::clone(&known);
        serving.spawn(async move {
            let mut query = [0; 512];
            while let Ok((length, peer)) = socket.recv_from(&mut query).await {
                let answer = answer(&query[..length], &told.lock());
                let _ = socket.send_to(&answer, peer).await;
            }
        });
        Self { address, known, _serving: serving }
    }
}

/// RFC 1035: the question, and one record for each address. A question for SRV gets the name itself, port 80.
fn answer(query: &[u8], addresses: &[[u8; 4]]) -> Vec<u8> {
    let name_end = 12 + query[12..].iter().position(|byte| *byte == 0).unwrap() + 1;
    let question = &query[12..name_end + 4];
    let is_a = query[name_end..name_end + 2] == [0, 1];
    let records: Vec<_> = addresses.iter().filter(|_| is_a).collect();
    let mut answer = query[..2].to_vec();
    answer.extend([0x84, 0x00, 0, 1, 0, u8::try_from(records.len()).unwrap(), 0, 0, 0, 0]);
    answer.extend(question);
    for address in records {
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4]);
        answer.extend(address);
    }
    answer
}

#[tokio::test]
async fn a_name_is_followed() {
    let app = EchoApp::start().await;
    let other = EchoApp::start_at(SocketAddr::from(([127, 0, 0, 2], app.address().port()))).await;
    let names = Names::start(&[[127, 0, 0, 1]]).await;
    let keys = format!(
        "endpoints: {{dns: {{name: apps.test, port: {}, server: '{}', min_ttl: 200ms}}}}",
        app.address().port(),
        names.address
    );
    let mesh = mesh(&keys).await;
    until(&mesh, || !app.seen().is_empty()).await;
    assert!(other.seen().is_empty());
    *names.known.lock() = vec![[127, 0, 0, 2]];
    until(&mesh, || !other.seen().is_empty()).await;
    let before = app.seen().len();
    for _ in 0..20 {
        assert_eq!(mesh.get("/a").send().await.status, 200);
    }
    assert_eq!(app.seen().len(), before);
    // A name server that knows nothing any more takes nobody away.
    names.known.lock().clear();
    let before = other.seen().len();
    until(&mesh, || other.seen().len() > before + 30).await;
}

#[tokio::test]
async fn a_name_must_not_lead_inside() {
    let app = EchoApp::start().await;
    let names = Names::start(&[[127, 0, 0, 1]]).await;
    let keys = format!(
        "endpoints: {{dns: {{name: partner.test, port: {}, server: '{}', private_addresses: refuse}}}}",
        app.address().port(),
        names.address
    );
    let mesh = mesh(&keys).await;
    for _ in 0..20 {
        let answer = mesh.get("/a").send().await;
        assert_eq!((answer.status.as_u16(), answer.reason().as_str()), (503, "no_healthy_upstream"));
    }
    assert!(app.seen().is_empty());
}
