//! Who gets which request, and where endpoints come from.

use std::net::{IpAddr, SocketAddr};
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
async fn a_locality_gives_away_what_it_cannot_take() {
    let apps = start(4).await;
    let placed =
        |at: usize, locality: &str| format!("{{address: '{}', locality: {locality}}}", apps[at].address());
    let keys = format!(
        "localities: [{{name: near, weight: 100}}, {{name: far, weight: 1}}], endpoints: {{static: [{}, {}, {}, {}]}}, \
         health_check: {{ask: {{http: /}}, interval: 50ms, unhealthy_threshold: 1, healthy_threshold: 1}}, \
         outlier_detection: {{enabled: false}}",
        placed(0, "near"),
        placed(1, "near"),
        placed(2, "far"),
        placed(3, "far")
    );
    let mesh = mesh(&keys).await;
    let requests = |at: usize| apps[at].seen().iter().filter(|seen| seen.uri == "/a").count();
    // What goes far, of two hundred.
    let far = async || {
        let before = requests(2) + requests(3);
        for _ in 0..200 {
            assert_eq!(mesh.get("/a").send().await.status, 200);
        }
        requests(2) + requests(3) - before
    };
    let (all_near, mut shares) = (far().await, Vec::new());
    for (app, left) in [(&apps[0], 3), (&apps[1], 2)] {
        app.behave("status:500");
        mesh.until("many", "it to be ill", |cluster| cluster["usable"] == left).await;
        shares.push(far().await);
    }
    println!("far, of 200: {all_near}, with one of two near ill {}, with both {}", shares[0], shares[1]);
    // 1 %; 1 of 71 (half of them take seven tenths of what is theirs), which is hardly more; all.
    assert!(all_near < 20 && shares[0] < 20 && shares[1] == 200, "{all_near} {shares:?}");
    let panics = mesh.cluster("many").await["panic"].clone();
    assert_eq!(panics, false, "half are well");
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

/// A name server whose names all have these addresses and services, with a time to live of a second.
struct Names {
    address: SocketAddr,
    known: std::sync::Arc<parking_lot::Mutex<Vec<IpAddr>>>,
    _serving: JoinSet<()>,
}

/// A host by the first label of its name, and where it has the service.
type Service = (u16, &'static str, u16);

impl Names {
    async fn start(known: &[IpAddr]) -> Self {
        Self::with_services(known, &[]).await
    }

    async fn with_services(known: &[IpAddr], services: &[Service]) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let known = std::sync::Arc::new(parking_lot::Mutex::new(known.to_vec()));
        let mut serving = JoinSet::new();
        let (told, services) = (std::sync::Arc::clone(&known), services.to_vec());
        serving.spawn(async move {
            let mut query = [0; 512];
            while let Ok((length, peer)) = socket.recv_from(&mut query).await {
                let answer = answer(&query[..length], &told.lock(), &services);
                let _ = socket.send_to(&answer, peer).await;
            }
        });
        Self { address, known, _serving: serving }
    }
}

/// RFC 1035 and 2782: the question, and one record for each address or service. A host whose name begins with `v6` has no
/// address of IPv4, one that begins with `gone` has none at all.
fn answer(query: &[u8], addresses: &[IpAddr], services: &[Service]) -> Vec<u8> {
    let name_end = 12 + query[12..].iter().position(|byte| *byte == 0).unwrap() + 1;
    let question = &query[12..name_end + 4];
    let kind = u16::from_be_bytes([query[name_end], query[name_end + 1]]);
    let label = &query[13..13 + usize::from(query[12])];
    let (of_v6_alone, is_gone) = (label.starts_with(b"v6"), label.starts_with(b"gone"));
    let of_address = |address: &IpAddr| match address {
        IpAddr::V4(address) => (kind == 1 && !of_v6_alone && !is_gone).then(|| address.octets().to_vec()),
        IpAddr::V6(address) => (kind == 28 && !is_gone).then(|| address.octets().to_vec()),
    };
    let of_service = |(priority, host, port): &Service| {
        let [priority, weight, port] = [*priority, 1, *port].map(u16::to_be_bytes);
        let mut data = [priority, weight, port].concat();
        data.push(u8::try_from(host.len()).unwrap());
        data.extend(host.as_bytes());
        data.extend(b"\x04test\x00");
        (kind == 33).then_some(data)
    };
    let records: Vec<Vec<u8>> =
        addresses.iter().filter_map(of_address).chain(services.iter().filter_map(of_service)).collect();
    let mut answer = query[..2].to_vec();
    answer.extend([0x84, 0x00, 0, 1, 0, u8::try_from(records.len()).unwrap(), 0, 0, 0, 0]);
    answer.extend(question);
    for record in records {
        answer.extend([0xc0, 12]);
        answer.extend(kind.to_be_bytes());
        answer.extend([0, 1, 0, 0, 0, 1, 0, u8::try_from(record.len()).unwrap()]);
        answer.extend(record);
    }
    answer
}

#[tokio::test]
async fn a_name_is_followed() {
    let app = EchoApp::start().await;
    let other = EchoApp::start_at(SocketAddr::from(([127, 0, 0, 2], app.address().port()))).await;
    let names = Names::start(&[IpAddr::from([127, 0, 0, 1])]).await;
    let keys = format!(
        "endpoints: {{dns: {{name: apps.test, port: {}, server: '{}', min_ttl: 200ms}}}}",
        app.address().port(),
        names.address
    );
    let mesh = mesh(&keys).await;
    until(&mesh, || !app.seen().is_empty()).await;
    assert!(other.seen().is_empty());
    *names.known.lock() = vec![IpAddr::from([127, 0, 0, 2])];
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
    let names = Names::start(&[IpAddr::from([127, 0, 0, 1])]).await;
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

#[tokio::test]
async fn names_lead_to_addresses_of_ipv6() {
    let app = EchoApp::start_at("[::1]:0".parse().unwrap()).await;
    let names = Names::start(&["127.0.0.1", "::1"].map(|address| address.parse().unwrap())).await;
    let mesh = mesh(&format!(
        "endpoints: {{dns: {{name: apps.test, record: AAAA, port: {}, server: '{}'}}}}",
        app.address().port(),
        names.address
    ))
    .await;
    until(&mesh, || !app.seen().is_empty()).await;
    for _ in 0..10 {
        assert_eq!(mesh.get("/a").send().await.status, 200);
    }
}

#[tokio::test]
async fn services_lead_to_hosts_and_ports_the_first_ones_alone() {
    let apps =
        [EchoApp::start().await, EchoApp::start_at("[::1]:0".parse().unwrap()).await, EchoApp::start().await];
    let [first, of_v6, second] = [0, 1, 2].map(|index: usize| apps[index].address().port());
    let services = [(10, "a", first), (10, "v6", of_v6), (10, "gone", first), (20, "b", second)];
    let addresses = ["127.0.0.1", "::1"].map(|address| address.parse().unwrap());
    let names = Names::with_services(&addresses, &services).await;
    let mesh = mesh(&format!(
        "endpoints: {{dns: {{name: _http._tcp.apps.test, record: SRV, server: '{}'}}}}, balance: round_robin",
        names.address
    ))
    .await;
    until(&mesh, || apps[..2].iter().all(|app| !app.seen().is_empty())).await;
    for _ in 0..10 {
        assert_eq!(mesh.get("/a").send().await.status, 200);
    }
    assert!(apps[2].seen().is_empty(), "it stands by, and nobody is missing");
}

#[tokio::test]
async fn one_that_comes_later_gets_little_at_first_and_its_full_share_in_the_end() {
    tokio::join!(comes_later("least_request"), comes_later("round_robin"));
}

async fn comes_later(way: &str) {
    const SLOW_START: Duration = Duration::from_secs(8);
    let apps = start(2).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("endpoints.yaml");
    std::fs::write(&file, format!("['{}']", apps[0].address())).unwrap();
    let keys = format!(
        "endpoints: {{file: '{}'}}, balance: {way}, slow_start: {}s",
        file.display(),
        SLOW_START.as_secs()
    );
    let mesh = mesh(&keys).await;
    until(&mesh, || !apps[0].seen().is_empty()).await;
    tokio::time::sleep(SLOW_START).await;
    std::fs::write(&file, format!("[{}]", addresses(&apps))).unwrap();
    // It is not left without, as it would be if every comparison went against it.
    until(&mesh, || !apps[1].seen().is_empty()).await;
    let came = Instant::now();
    let before = counts(&apps);
    let mut asked = 0;
    while asked < 200 && came.elapsed() < SLOW_START / 4 {
        assert_eq!(mesh.get("/a").send().await.status, 200);
        asked += 1;
    }
    let later = counts(&apps)[1] - before[1];
    // A quarter of its half, if the last of them came at the end of the quarter.
    assert!(later <= asked / 4 + 5, "{way}: {later} of {asked}");
    tokio::time::sleep(SLOW_START).await;
    let before = counts(&apps);
    for _ in 0..200 {
        assert_eq!(mesh.get("/a").send().await.status, 200);
    }
    let later = counts(&apps)[1] - before[1];
    assert!((60..=140).contains(&later), "{way}: {later} of 200 in the end");
}
