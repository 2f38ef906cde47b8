//! More than the proxy can do: what is refused, what is not, and what goes on regardless.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tollgate_proto::attributes as a;
use tollgate_proto::opentelemetry_proto::tonic::logs::v1::LogRecord;
use tollgate_testkit::fake_collector::{FakeCollector, attribute};
use tollgate_testkit::ports::free_addresses;

use crate::harness::{Call, Mesh, PATIENCE, Setup, observed};
use crate::pki::{CLIENT, PROXY, Pki};

const OPEN: &str = "limit_by_address: {per_second: 0}";
/// From one request to the next, where they shall be few.
const REST: Duration = Duration::from_millis(50);

/// Keeps the only thread of a test busy: whatever is ready waits for this long, again and again, until this is dropped.
fn keep_busy(for_each: Duration) -> JoinSet<()> {
    let mut busy = JoinSet::new();
    busy.spawn(async move {
        loop {
            let began = Instant::now();
            while began.elapsed() < for_each {
                std::hint::spin_loop();
            }
            tokio::task::yield_now().await;
        }
    });
    busy
}

/// The first record of somebody who was refused.
async fn refusal(collector: &FakeCollector) -> LogRecord {
    first(collector, a::TOLLGATE_REASON, "overloaded").await
}

/// The first record that says this.
async fn first(collector: &FakeCollector, key: &str, value: &str) -> LogRecord {
    for count in 1.. {
        let records = collector.access_records(count).await;
        assert!(records.len() >= count, "no record of {count} has {key}={value}");
        if let Some(found) =
            records.into_iter().find(|record| attribute(record, key).as_deref() == Some(value))
        {
            return found;
        }
    }
    unreachable!()
}

/// Asks until `so` holds of the status and the reason of an answer.
async fn until(mesh: &Mesh, what: &str, so: impl Fn(u16, &str) -> bool) -> crate::harness::Answer {
    let began = Instant::now();
    loop {
        let answer = mesh.get("/open/x").send().await;
        if so(answer.status.as_u16(), &answer.reason()) {
            return answer;
        }
        assert!(began.elapsed() < PATIENCE, "waited in vain: {what}");
    }
}

#[tokio::test]
async fn what_there_is_no_time_for_is_refused_at_once_and_served_again_when_there_is() {
    let top = "overload: {target_delay: 1ms, retry_after: 3s}\n";
    let (mesh, collector) = observed(Setup { top, listener: OPEN, ..Setup::default() }).await;
    assert_eq!(mesh.get("/open/x").send().await.status, 200);
    let busy = keep_busy(Duration::from_millis(30));
    let refused = until(&mesh, "refused", |status, _| status == 503).await;
    assert_eq!(refused.reason(), "overloaded");
    assert_eq!(refused.header("retry-after"), Some("3"));
    // Whoever asks whether the proxy is ready is answered all the same.
    for _ in 0..10 {
        assert_eq!(mesh.get("/healthz").send().await.status, 200);
    }
    let seen = mesh.app.seen().len();
    let status = mesh.status().await;
    assert!(status["overload"]["ratio"].as_f64().unwrap() > 0.0, "{status}");
    assert!(status["overload"]["refused"].as_u64().unwrap() > 0, "{status}");
    assert!(status["overload"]["delay_ms"].as_f64().unwrap() > 1.0, "{status}");
    let record = refusal(&collector).await;
    assert_eq!(attribute(&record, a::TOLLGATE_RESPONSE_FLAGS).as_deref(), Some("OM"));
    assert_eq!(mesh.app.seen().len(), seen, "who is refused is not forwarded");
    // What a refusal takes is measured now and then, and bounds how many there are.
    let measured = async || {
        let status = mesh.status().await;
        let of = |name: &str| status["overload"][name].as_f64();
        let (Some(served), Some(refused)) = (of("served_us"), of("refused_us")) else { return false };
        let bound = (served / (served + refused)).clamp(0.5, 0.98);
        assert!((of("ratio_limit").unwrap() - bound).abs() < 1e-6, "{status}");
        refused > 0.0
    };
    let began = Instant::now();
    while !measured().await {
        assert!(began.elapsed() < PATIENCE, "no refusal was measured");
        mesh.get("/open/x").send().await;
    }
    drop(busy);
    let began = Instant::now();
    while mesh.status().await["overload"]["ratio"] != 0.0 {
        assert!(began.elapsed() < PATIENCE, "never over");
        mesh.get("/open/x").send().await;
        // Who asks without rest is too much for a machine that does other things as well.
        tokio::time::sleep(REST).await;
    }
    for _ in 0..20 {
        assert_eq!(mesh.get("/open/x").send().await.status, 200);
        tokio::time::sleep(REST).await;
    }
}

#[tokio::test]
async fn who_only_observes_tells_and_refuses_nothing() {
    let top = "overload: {mode: observe, target_delay: 1ms}\n";
    let mesh = Setup { top, listener: OPEN, ..Setup::default() }.start().await;
    let _busy = keep_busy(Duration::from_millis(20));
    let began = Instant::now();
    while mesh.status().await["overload"]["refused"].as_u64() < Some(3) {
        assert_eq!(mesh.get("/open/x").send().await.status, 200);
        assert!(began.elapsed() < PATIENCE, "nothing was observed");
    }
}

/// The beginning of a handshake whose rest does not come.
async fn begin_handshake(address: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3]).await.unwrap();
    stream
}

#[tokio::test]
async fn slow_handshakes_give_way_to_others_and_keep_nobody_out() {
    let pki = Pki::new();
    let top = pki.identity("proxy", PROXY);
    let listener = "role: sidecar, mtls: strict, limits: {handshakes: 3}";
    let (mesh, collector) = observed(Setup { top: &top, listener, ..Setup::default() }).await;
    let tls = pki.client(&pki.workload(CLIENT));
    let mut slow = Vec::new();
    for _ in 0..4 {
        slow.push(begin_handshake(mesh.address).await);
    }
    // The first of the four is closed, long before the time for a handshake is over.
    let closed = tokio::time::timeout(PATIENCE, slow[0].read_u8()).await.expect("it gives way");
    assert!(closed.is_err());
    let details = attribute(&refusal(&collector).await, a::TOLLGATE_RESPONSE_DETAILS).unwrap();
    assert_eq!(details, "one of too many handshakes");
    for _ in 0..10 {
        assert_eq!(mesh.get("/open/x").over(&tls).send().await.status, 200);
    }
}

/// A busy proxy that has refused a handshake, and goes on being busy.
async fn refuses_handshakes(mtls: &str) -> (Mesh, JoinSet<()>) {
    let pki = Pki::new();
    let top = format!("{}\noverload: {{target_delay: 1ms}}\n", pki.identity("proxy", PROXY));
    let listener = format!("role: sidecar, mtls: {mtls}, limit_by_address: {{per_second: 0}}");
    let (mesh, collector) = observed(Setup { top: &top, listener: &listener, ..Setup::default() }).await;
    let busy = keep_busy(Duration::from_millis(20));
    let (mut begun, began) = (Vec::new(), Instant::now());
    while mesh.status().await["overload"]["ratio"].as_f64() < Some(0.5) {
        assert!(began.elapsed() < PATIENCE, "nothing is refused");
        begun.push(begin_handshake(mesh.address).await);
    }
    for _ in 0..10 {
        begun.push(begin_handshake(mesh.address).await);
    }
    first(&collector, a::TOLLGATE_RESPONSE_DETAILS, "more to do than this proxy can").await;
    (mesh, busy)
}

#[tokio::test]
async fn a_handshake_there_is_no_time_for_is_refused() {
    refuses_handshakes("strict").await;
}

#[tokio::test]
async fn plaintext_gets_an_answer_where_handshakes_are_refused() {
    let (mesh, _busy) = refuses_handshakes("permissive").await;
    let refused = until(&mesh, "refused", |status, _| status == 503).await;
    assert_eq!(refused.reason(), "overloaded");
    for _ in 0..20 {
        let status = mesh.get("/open/x").send().await.status.as_u16();
        assert!([200, 503].contains(&status), "{status}");
    }
}

/// A proxy process; it ends with this value.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Process {
    /// With so few file descriptors that it runs out of them.
    fn with_descriptors(most: usize, config: &Path) -> Self {
        let script = format!("ulimit -n {most}; exec \"$0\" --config \"$1\"");
        let mut command = Command::new("sh");
        command.args(["-c", &script, env!("CARGO_BIN_EXE_tollgate-proxy")]).arg(config);
        Self(command.spawn().unwrap())
    }
}

#[tokio::test]
async fn the_process_listener_answers_when_clients_have_taken_all_descriptors() {
    let ([process, main], folder) = (free_addresses(), tempfile::tempdir().unwrap());
    let file = folder.path().join("proxy.yaml");
    let config = format!(
        "process: {{listen: '{process}'}}\ntelemetry: {{log: warn}}\n\
         listeners: [{{name: main, bind: '{main}', role: ingress}}]\n\
         routes: [{{name: a, matches: [{{}}], authz: off, direct_response: {{status: 200}}}}]\n"
    );
    std::fs::write(&file, config).unwrap();
    let _running = Process::with_descriptors(256, &file);
    let began = Instant::now();
    while TcpStream::connect(main).await.is_err() {
        assert!(began.elapsed() < PATIENCE, "it does not start");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // More than there are descriptors for; those without one are closed.
    let mut open = Vec::new();
    for _ in 0..400 {
        open.push(TcpStream::connect(main).await.unwrap());
    }
    let closed = tokio::time::timeout(PATIENCE, open.last_mut().unwrap().read_u8()).await.expect("closed");
    assert!(closed.is_err());
    for path in ["/ready", "/metrics", "/status"] {
        assert_eq!(Call::new(process, "GET", path).send().await.status, 200, "{path}");
    }
    // The first ones are served as ever, and there is room again when they are gone.
    open[0].write_all(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n").await.unwrap();
    let mut heard = [0; 15];
    open[0].read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"HTTP/1.1 200 OK");
    drop(open);
    let began = Instant::now();
    while !matches!(Call::new(main, "GET", "/").try_send().await, Ok(answer) if answer.status == 200) {
        assert!(began.elapsed() < PATIENCE, "no room again");
    }
}
