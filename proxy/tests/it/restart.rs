//! Another process in place of this one, and the end of a process, while requests are under way.

use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tollgate_testkit::echo_app::EchoApp;
use tollgate_testkit::fake_authz::FakeAuthz;
use tollgate_testkit::fake_ratelimit::FakeRateLimit;
use tollgate_testkit::ports::free_address;

use crate::harness::{Call, PATIENCE, ROUTES, Setup};
use crate::process::{Choose, Load, Passed, Process, is_gone, log, signal, socket, spawn};

/// Restarts, and requests a second meanwhile from so many clients; more in `make soak`.
const RESTARTS: usize = if cfg!(feature = "soak") { 20 } else { 3 };
const RATE: u32 = if cfg!(feature = "soak") { 5_000 } else { 400 };
const CLIENTS: u32 = if cfg!(feature = "soak") { 56 } else { 16 };
const LOG_OF_THE_FORCED: &str = "cut off at the end of the grace";

/// What stands behind the proxies.
struct Behind {
    authz: FakeAuthz,
    limiter: FakeRateLimit,
    app: EchoApp,
}

impl Behind {
    async fn start() -> Self {
        Self {
            authz: FakeAuthz::start().await,
            limiter: FakeRateLimit::start().await,
            app: EchoApp::start().await,
        }
    }

    /// `process`: further keys of that section, each with a comma before it.
    fn yaml(&self, process: &str) -> String {
        // On a slow machine a request may take its time.
        let routes = ROUTES.replace("timeout: 500ms", "timeout: 20s");
        let listener = "limit_by_address: {per_second: 0}, limits: {connections_per_address: 10000}";
        let setup = Setup { routes: Some(&routes), listener, process, ..Setup::default() };
        setup
            .yaml(self.authz.address(), self.limiter.address(), self.app.address())
            .replace("shutdown_grace: 5s", "shutdown_grace: 20s")
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_fails_while_processes_hand_over_to_each_other() {
    let behind = Behind::start().await;
    let mut first = Process::start(&behind.yaml(", drain_delay: 0s")).await;
    let main = first.main;
    let choose: Choose = Arc::new(move || main);
    let load = Load::start(&choose, CLIENTS, RATE);
    let began = Instant::now();
    let mut pids = vec![first.pid()];
    for restart in 1..=RESTARTS {
        let enough = load.answered() + RATE as usize / 4;
        first.until("requests are answered", async || load.answered() >= enough).await;
        behind.app.forget();
        signal("USR2", pids[restart - 1]);
        first.says("handed over", restart).await;
        pids = [vec![first.pid()], first.successors()].concat();
        assert!(first.is_ready().await, "there is no moment without readiness");
    }
    let enough = load.answered() + RATE as usize / 4;
    first.until("requests are answered", async || load.answered() >= enough).await;
    assert!(first.ended().await.success());
    for pid in &pids[..RESTARTS] {
        first.until("the old process ends", async || is_gone(*pid)).await;
    }
    assert!(!is_gone(pids[RESTARTS]), "the last one serves");
    let (answered, failed) = load.end().await;
    let seconds = began.elapsed().as_secs_f64();
    println!(
        "{RESTARTS} restarts in {seconds:.1} s: {answered} answers of 200, {:.0} a second of {RATE}; failed: {}",
        answered as f64 / seconds,
        failed.len()
    );
    assert!(failed.is_empty(), "{failed:?}\n{}", first.log());
    assert!(!first.log().contains(LOG_OF_THE_FORCED), "{}", first.log());
    signal("TERM", pids[RESTARTS]);
    first.until("the last one ends", async || is_gone(pids[RESTARTS])).await;
}

#[tokio::test]
async fn a_process_whose_successor_fails_goes_on_and_says_why() {
    let behind = Behind::start().await;
    let good = behind.yaml(", drain_delay: 0s, hand_over_timeout: 1s");
    let process = Process::start(&good).await;
    let serves = async || Call::new(process.main, "GET", "/open/x").send().await.status == 200;
    let mut failures = 0;
    let mut fails = async |because: &str| {
        failures += 1;
        signal("USR2", process.pid());
        process.says("no hand-over", failures).await;
        let line = process.said("no hand-over").pop().unwrap()["message"].to_string();
        assert!(line.contains(because), "{line}");
        assert!(serves().await && process.is_ready().await);
    };
    std::fs::write(process.file(), good.replace("cluster: app", "cluster: gone")).unwrap();
    fails("there is no cluster `gone`").await;
    process.replace_program("#!/bin/sh\nexit 3\n");
    fails("ended before it was ready: exit status: 3").await;
    process.replace_program("#!/bin/sh\nexec sleep 600\n");
    fails("not ready within 1s").await;
    let metrics = process.metrics().await;
    assert!(metrics.contains("tollgate_process_hand_overs_total{outcome=\"failed\""), "{metrics}");

    let program = format!("#!/bin/sh\nexec {} \"$@\"\n", env!("CARGO_BIN_EXE_tollgate-proxy"));
    process.replace_program(&program);
    std::fs::write(process.file(), &good).unwrap();
    signal("USR2", process.pid());
    process.says("handed over", 1).await;
    assert!(serves().await);
}

#[tokio::test]
async fn one_hand_over_at_a_time() {
    let behind = Behind::start().await;
    let mut process = Process::start(&behind.yaml(", drain_delay: 0s")).await;
    process.replace_program("#!/bin/sh\nexec sleep 600\n");
    signal("USR2", process.pid());
    process.says("a new process is started", 1).await;
    signal("USR2", process.pid());
    process.says("about to take over already", 1).await;
    assert!(process.metrics().await.contains("outcome=\"refused\""));
    // Who is told to stop does not wait for it.
    signal("TERM", process.pid());
    assert!(process.ended().await.success());
}

/// A new process that is ready, hears that it may accept, leaves its number in the folder, and does something else `after` that.
/// Its channel is what comes after the two sockets.
fn successor(process: &Process, after: &str) -> impl Fn() -> u32 + use<> {
    let file = process.folder.path().join("successor");
    let began = format!("#!/bin/sh\necho ready >&5\nread told <&5\necho $$ >{}.new\n", file.display());
    let named = format!("mv {0}.new {0}\n", file.display());
    process.replace_program(&format!("{began}{named}{after}exec sleep 600\n"));
    move || std::fs::read_to_string(&file).unwrap().trim().parse().unwrap()
}

#[tokio::test]
async fn a_successor_that_does_not_accept_in_time_is_ended() {
    let behind = Behind::start().await;
    let process = Process::start(&behind.yaml(", drain_delay: 0s")).await;
    let successor = successor(&process, "");
    signal("USR2", process.pid());
    process.says("no hand-over", 1).await;
    let line = process.said("no hand-over").pop().unwrap()["message"].to_string();
    assert!(line.contains("did not accept within 10s"), "{line}");
    process.until("it is ended", async || is_gone(successor())).await;
    assert_eq!(Call::new(process.main, "GET", "/open/x").send().await.status, 200);
    assert!(process.is_ready().await);
}

#[tokio::test]
async fn a_process_that_stood_still_after_it_gave_the_word_goes_all_the_same() {
    let behind = Behind::start().await;
    let mut process = Process::start(&behind.yaml(", drain_delay: 0s")).await;
    // For longer than a successor may take, which this one did not; what it says arrives when nobody looks any more.
    let stands_still = "kill -STOP $PPID\nsleep 0.2\necho serving >&5\nsleep 12\nkill -CONT $PPID\n";
    let successor = successor(&process, stands_still);
    signal("USR2", process.pid());
    process.says("handed over", 1).await;
    assert_eq!(process.successors(), [successor()]);
    assert!(process.ended().await.success());
    assert!(!is_gone(successor()), "one serves, and that one only");
}

#[tokio::test]
async fn a_process_that_stood_still_and_is_told_to_stop_finds_first_that_another_serves() {
    let behind = Behind::start().await;
    let mut process = Process::start(&behind.yaml(", drain_delay: 0s")).await;
    let both_at_once = "kill -STOP $PPID\nsleep 0.2\necho serving >&5\nkill -TERM $PPID\nkill -CONT $PPID\n";
    let successor = successor(&process, both_at_once);
    signal("USR2", process.pid());
    process.says("handed over", 1).await;
    assert!(process.ended().await.success());
    assert!(!is_gone(successor()), "one serves, and that one only");
}

#[tokio::test]
async fn who_is_told_twice_to_stop_ends_with_the_process_that_was_to_take_over() {
    let behind = Behind::start().await;
    let mut process = Process::start(&behind.yaml(", drain_delay: 1h")).await;
    let successor = successor(&process, "");
    signal("USR2", process.pid());
    process.until("it is told to accept", async || process.folder.path().join("successor").exists()).await;
    signal("TERM", process.pid());
    process.until("it is ended first", async || is_gone(successor())).await;
    assert_eq!(Call::new(process.main, "GET", "/open/x").send().await.status, 200, "it still serves");
    signal("TERM", process.pid());
    assert_eq!(process.ended().await.code(), Some(130));
}

#[tokio::test]
async fn after_a_hand_over_a_second_signal_ends_it() {
    let behind = Behind::start().await;
    let yaml = behind.yaml(", drain_delay: 0s").replace("shutdown_grace: 20s", "shutdown_grace: 1h");
    let mut process = Process::start(&yaml).await;
    let mut stream = TcpStream::connect(process.main).await.unwrap();
    behind.app.behave("hold");
    stream.write_all(b"GET /strict/x HTTP/1.1\r\nhost: h\r\n\r\n").await.unwrap();
    process.until("it is under way", async || !behind.app.seen().is_empty()).await;
    signal("USR2", process.pid());
    process.says("handed over", 1).await;
    // It stops already; that it is told so changes nothing.
    signal("TERM", process.pid());
    process.says("told to stop, which this process does already", 1).await;
    assert!(!is_gone(process.pid()), "the request is still under way");
    signal("TERM", process.pid());
    assert_eq!(process.ended().await.code(), Some(130));
    behind.app.behave("");
    assert_eq!(Call::new(process.main, "GET", "/open/x").send().await.status, 200, "the new one serves");
}

#[tokio::test]
async fn a_listener_that_moved_is_bound_anew_and_the_old_socket_closed() {
    let behind = Behind::start().await;
    let process = Process::start(&behind.yaml(", drain_delay: 0s")).await;
    let elsewhere = free_address();
    let yaml = behind.yaml(", drain_delay: 0s");
    let moved = yaml.replace("name: main, bind: '127.0.0.1:0'", &format!("name: main, bind: '{elsewhere}'"));
    assert_ne!(yaml, moved);
    std::fs::write(process.file(), moved).unwrap();
    signal("USR2", process.pid());
    process.says("handed over", 1).await;
    assert_eq!(process.said("an inherited socket is closed").len(), 1, "{}", process.log());
    assert_eq!(Call::new(elsewhere, "GET", "/open/x").send().await.status, 200);
    process
        .until("nobody is at the old place", async || TcpStream::connect(process.main).await.is_err())
        .await;
}

#[tokio::test]
async fn sockets_that_nobody_wants_are_closed_and_named() {
    let behind = Behind::start().await;
    let (unwanted, passed) = socket("unwanted");
    let process = Process::start_with(&behind.yaml(""), vec![passed], &[]).await;
    assert_eq!(Call::new(process.main, "GET", "/open/x").send().await.status, 200);
    let said = process.said("an inherited socket is closed");
    assert_eq!((said.len(), said[0]["name"].as_str()), (1, Some("unwanted")));
    assert!(TcpStream::connect(unwanted).await.is_err());
}

#[tokio::test]
async fn an_inherited_socket_of_the_wrong_kind_is_an_error() {
    let behind = Behind::start().await;
    let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let unix = tempfile::tempdir().unwrap();
    let unix = std::os::unix::net::UnixListener::bind(unix.path().join("socket")).unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let connected = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    for (wrong, why) in [
        (udp.into(), "not a valid tcp socket"),
        (unix.into(), "not a valid tcp socket"),
        (connected.into(), "it does not listen"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("proxy.yaml"), behind.yaml("")).unwrap();
        let program = folder.path().join("tollgate-proxy");
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_tollgate-proxy"), program).unwrap();
        let status = spawn(folder.path(), vec![Passed { name: "main", socket: wrong }], &[]).wait().unwrap();
        let said = log(folder.path());
        assert_eq!(status.code(), Some(2), "{said}");
        assert!(said.contains("inherited socket `main` (descriptor 3)") && said.contains(why), "{said}");
    }
}

#[tokio::test]
async fn plaintext_is_not_served_on_a_socket_that_others_reach() {
    let behind = Behind::start().await;
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("proxy.yaml"), behind.yaml("")).unwrap();
    let program = folder.path().join("tollgate-proxy");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_tollgate-proxy"), program).unwrap();
    let open = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    let status =
        spawn(folder.path(), vec![Passed { name: "main", socket: open.into() }], &[]).wait().unwrap();
    let said = log(folder.path());
    assert_eq!(status.code(), Some(2), "{said}");
    assert!(said.contains("is not a loopback address"), "{said}");
}

#[tokio::test]
async fn systemd_is_told() {
    let behind = Behind::start().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let heard = || {
        let mut text = [0; 256];
        let count = manager.recv(&mut text).unwrap();
        String::from_utf8_lossy(&text[..count]).into_owned()
    };
    let env: [(&str, &Path); 1] = [("NOTIFY_SOCKET", &path)];
    let process = Process::start_with(&behind.yaml(", drain_delay: 0s"), vec![], &env).await;
    assert_eq!(heard(), "READY=1\n");
    signal("HUP", process.pid());
    let reloading = heard();
    assert!(reloading.starts_with("RELOADING=1\nMONOTONIC_USEC="), "{reloading}");
    assert_eq!(heard(), "READY=1\n");
    signal("USR2", process.pid());
    process.says("handed over", 1).await;
    let successor = process.successors()[0];
    assert_eq!(heard(), format!("MAINPID={successor}\n"), "and no word of stopping from the old one");
    signal("TERM", successor);
    assert_eq!(heard(), "STOPPING=1\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_fails_where_clients_keep_to_readiness() {
    let behind = Behind::start().await;
    // It accepts until the test has seen that nobody comes any more, and is told a second time.
    let mut going = Process::start(&behind.yaml(", drain_delay: 6s")).await;
    let staying = Process::start(&behind.yaml("")).await;
    let addresses = [going.main, staying.main];
    let (ready, turn) = (Arc::new(AtomicUsize::new(2)), AtomicUsize::new(0));
    let among = Arc::clone(&ready);
    // While both are ready each in turn, then the one that stays.
    let choose: Choose = Arc::new(move || match among.load(Ordering::Relaxed) {
        2 => addresses[turn.fetch_add(1, Ordering::Relaxed) % 2],
        _ => addresses[1],
    });
    let load = Load::start(&choose, CLIENTS, RATE);
    going.until("requests are answered", async || load.answered() >= RATE as usize).await;
    behind.app.forget();
    signal("TERM", going.pid());
    going.until("readiness turns red", async || !going.is_ready().await).await;
    ready.store(1, Ordering::Relaxed);
    let status = going.ended().await;
    assert!(status.success(), "{status}");
    let (answered, failed) = load.end().await;
    println!("SIGTERM: {answered} answers of 200; failed: {}", failed.len());
    assert!(failed.is_empty(), "{failed:?}\n{}", going.log());
    assert!(!going.log().contains(LOG_OF_THE_FORCED), "{}", going.log());
}

#[tokio::test]
async fn a_request_that_never_ends_is_cut_off_at_the_end_of_the_grace() {
    let behind = Behind::start().await;
    let yaml = behind.yaml(", drain_delay: 0s").replace("shutdown_grace: 20s", "shutdown_grace: 1s");
    let mut process = Process::start(&yaml).await;
    let mut stream = TcpStream::connect(process.main).await.unwrap();
    behind.app.behave("hold");
    stream.write_all(b"GET /strict/x HTTP/1.1\r\nhost: h\r\n\r\n").await.unwrap();
    process.until("it is under way", async || !behind.app.seen().is_empty()).await;
    signal("TERM", process.pid());
    assert!(process.ended().await.success());
    assert!(process.log().contains(LOG_OF_THE_FORCED), "{}", process.log());
}

#[tokio::test]
async fn while_it_drains_a_second_signal_ends_it() {
    let behind = Behind::start().await;
    let mut process = Process::start(&behind.yaml(", drain_delay: 1h")).await;
    signal("TERM", process.pid());
    process.until("readiness turns red", async || !process.is_ready().await).await;
    assert_eq!(Call::new(process.main, "GET", "/open/x").send().await.status, 200, "it still serves");
    signal("TERM", process.pid());
    assert_eq!(process.ended().await.code(), Some(130));
}

#[tokio::test]
async fn who_interrupts_does_not_wait_for_others_to_notice() {
    let behind = Behind::start().await;
    let mut process = Process::start(&behind.yaml(", drain_delay: 1h")).await;
    signal("INT", process.pid());
    assert!(process.ended().await.success());
}
