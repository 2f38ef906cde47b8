//! A transparent sidecar, with real redirect rules in network namespaces: what goes out and what comes in is taken by it,
//! nothing gets past it, and nothing comes back to it.

mod config;
mod namespace;
mod pod;

use rustls::ClientConnection;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tollgate_testkit::echo_app::EchoApp;

use crate::harness::Call;
use crate::pki::{CLIENT, PROXY};
use namespace::runs_as_root_of_its_own;
use pod::{Echo, Pod, SIDECAR, hear, say};

/// What TLS begins with.
const TLS: &[u8] = b"\x16\x03\x01\x00\x05hello";

const OUT: &str = "
listeners:
  - {name: inbound, bind: '[::]:15006', role: sidecar, mtls: strict, transparent: true}
  - name: outbound
    bind: 127.0.0.1:15001
    role: outbound
    transparent: true
    limits: {idle_timeout: 3s}
    destinations:
      - {networks: [10.77.0.0/24], ports: [5432], tcp: {cluster: database, authz: off}}
      - {tcp: {cluster: cache, authz: off}}
      - {server_names: ['*.bank.test'], ports: [443], tcp: {cluster: bank, authz: off}}
  - {name: outbound-v6, bind: '[::1]:15001', role: outbound, transparent: true}
routes:
  - name: partner
    listeners: [outbound, outbound-v6]
    hostnames: [partner.test]
    matches: [{}]
    backends: [{cluster: partner}]
  - name: astray
    listeners: [outbound]
    hostnames: [astray.test]
    matches: [{}]
    backends: [{cluster: astray}]
clusters:
  - {name: partner, endpoints: {static: ['10.77.0.1:8080']}}
  - {name: database, endpoints: {static: ['10.77.0.1:6432']}}
  - {name: cache, endpoints: {static: ['10.77.0.1:6379']}}
  - {name: bank, endpoints: {static: ['10.77.0.1:8443']}}
  - {name: astray, endpoints: {static: ['10.77.0.2:15006']}}
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_goes_out_is_taken_by_the_sidecar_and_nothing_gets_past_it() {
    if runs_as_root_of_its_own("what_goes_out_is_taken_by_the_sidecar_and_nothing_gets_past_it") {
        return;
    }
    let mut pod = Pod::new();
    let at = |address: &str| pod.outside.within(EchoApp::start_at(address.parse().unwrap()));
    let (partner, stranger, stranger_v6) = (at("10.77.0.1:8080"), at("203.0.113.9:80"), at("[fd99::9]:80"));
    let echo = |address: &str| pod.outside.within(Echo::at(address));
    let (database, database_itself) = (echo("10.77.0.1:6432"), echo("10.77.0.1:5432"));
    let (cache, secret, mail) = (echo("10.77.0.1:6379"), echo("203.0.113.9:443"), echo("203.0.113.9:25"));
    let bank = echo("10.77.0.1:8443");
    // Without rules the app reaches whom it likes.
    assert_eq!(pod.app_asks("203.0.113.9:80", "stranger.test").status, 200);
    pod.start(SIDECAR, OUT);
    pod.redirect(&["--dns-servers=10.77.0.53"]);

    // By its host, whatever address the app has dialled.
    for to in ["203.0.113.9:80", "10.77.0.1:8080", "[fd99::9]:80"] {
        assert_eq!(pod.app_asks(to, "partner.test").status, 200, "{to}");
    }
    assert_eq!(partner.seen().len(), 3);
    // Unknown hosts are refused by their names, an address is no better.
    for host in ["stranger.test", "203.0.113.9", "partner.test.stranger.test"] {
        let refused = pod.app_asks("203.0.113.9:80", host);
        assert_eq!((refused.status.as_u16(), refused.reason()), (403, "egress_unregistered".to_owned()));
        assert_eq!(pod.refused(host), 1, "{host}");
    }
    assert_eq!(pod.app_asks("[fd99::9]:80", "stranger.test").status, 403);
    // Bytes go where the address leads that was dialled: to a cluster, never to that address.
    let said = |to: &str, words: &[u8]| pod.inside.within(say(to, words));
    assert_eq!(said("10.77.0.1:5432", b"\0select"), b"\0select");
    assert_eq!((database.connections(), database_itself.connections()), (1, 0));
    assert_eq!(said("10.77.0.1:6379", b"*1 ping"), b"*1 ping");
    assert_eq!(cache.connections(), 1);
    // What nobody has registered is refused by its address; who says nothing, too.
    assert_eq!(said("203.0.113.9:443", TLS), b"");
    assert_eq!(said("203.0.113.9:25", b""), b"");
    assert_eq!((pod.refused("203.0.113.9:443"), pod.refused("203.0.113.9:25")), (1, 1));
    assert!(pod.metrics().contains("destination=\"203.0.113.9:443\""), "{}", pod.metrics());
    // TLS that is not ours goes by the name that it asks for, never to the address where it was going.
    let asks_for = |name: &str| {
        let mut asked = Vec::new();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        ClientConnection::new(pod.pki.anonymous().0, name).unwrap().write_tls(&mut asked).unwrap();
        asked
    };
    let (to_bank, to_stranger) = (asks_for("api.bank.test"), asks_for("stranger.test"));
    assert_eq!(said("203.0.113.9:443", &to_bank), to_bank);
    assert_eq!(said("203.0.113.9:443", &to_stranger), b"");
    assert_eq!((bank.connections(), pod.refused("stranger.test")), (1, 3));
    // Nobody leads the sidecar back to itself.
    assert_eq!(pod.app_asks("203.0.113.9:80", "astray.test").reason(), "upstream_connect");

    // None of this has arrived anywhere but where it should; before the rules there was one.
    assert_eq!((stranger.connections(), stranger_v6.connections()), (1, 0));
    assert_eq!((secret.connections(), mail.connections()), (0, 0));
    // What the sidecar's user sends goes where it is sent.
    let direct =
        pod.inside.command_as(SIDECAR, "bash").args(["-c", "exec 3<>/dev/tcp/203.0.113.9/80"]).status();
    assert!(direct.unwrap().success());
    until(|| stranger.connections() == 2).await;

    let records = pod.records(14).await;
    let of = |reason: &str| -> Vec<_> {
        records.iter().filter(|(one, _)| one == reason).map(|(_, destination)| destination.as_str()).collect()
    };
    assert_eq!(
        of("ok"),
        [
            "10.77.0.1:5432",
            "10.77.0.1:6379",
            "203.0.113.9:443",
            "partner.test",
            "partner.test",
            "partner.test"
        ]
    );
    assert_eq!(
        of("egress_unregistered"),
        [
            "203.0.113.9",
            "203.0.113.9:25",
            "203.0.113.9:443",
            "203.0.113.9:443",
            "partner.test.stranger.test",
            "stranger.test",
            "stranger.test"
        ]
    );
    assert_eq!(of("upstream_connect"), ["astray.test"]);
    // Whatever the app says of the host, it is recorded where it was going.
    let dialled = pod.dialled("partner.test").await;
    assert_eq!(dialled, ["10.77.0.1:8080", "203.0.113.9:80", "fd99::9:80"]);
}

fn inbound(address: &str) -> String {
    format!(
        "
listeners:
  - name: inbound
    bind: '[::]:15006'
    role: sidecar
    mtls: strict
    transparent: true
    destinations: [{{ports: [7070], tcp: {{cluster: app, authz: off}}}}]
  - {{name: outbound, bind: 127.0.0.1:15001, role: outbound, transparent: true}}
routes:
  - {{name: app, listeners: [inbound], matches: [{{}}], backends: [{{cluster: app}}]}}
  - {{name: self, listeners: [outbound], hostnames: [self.test], matches: [{{}}], backends: [{{cluster: self}}]}}
clusters:
  - {{name: app, endpoints: {{original_destination: {{ports: [8080, 8081, 7070], address: {address}}}}}}}
  - {{name: self, endpoints: {{static: ['10.77.0.2:8080']}}, tls: {{spiffe_ids: ['{PROXY}']}}}}
"
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_in_is_taken_by_the_sidecar_and_no_port_is_reached_around_it() {
    if runs_as_root_of_its_own("what_comes_in_is_taken_by_the_sidecar_and_no_port_is_reached_around_it") {
        return;
    }
    let mut pod = Pod::new();
    let app = |address: &str| pod.inside.within(EchoApp::start_at(address.parse().unwrap()));
    let (first, second) = (app("127.0.0.1:8080"), app("127.0.0.1:8081"));
    // Bound to all addresses: without the sidecar anybody would reach them.
    let (closed, probed) = (app("0.0.0.0:9999"), app("0.0.0.0:9090"));
    let ledger = pod.inside.within(Echo::at("127.0.0.1:7070"));
    pod.start(SIDECAR, &inbound("127.0.0.1"));
    pod.redirect(&["--exclude-inbound-ports=9090"]);

    let tls = pod.pki.client(&pod.pki.workload(CLIENT));
    let asked = |to: &str| pod.outside_asks(to, &tls).unwrap();
    for (to, seen) in [
        ("10.77.0.2:8080", (1, 0)),
        ("10.77.0.2:8081", (1, 1)),
        ("[fd77::2]:8081", (1, 2)),
        ("[fd77::2]:8080", (2, 2)),
    ] {
        assert_eq!(asked(to).status, 200, "{to}");
        assert_eq!((first.seen().len(), second.seen().len()), seen, "{to}");
    }
    let bytes = async {
        let stream = TcpStream::connect("10.77.0.2:7070").await.unwrap();
        let name = ServerName::try_from(tls.1).unwrap();
        hear(TlsConnector::from(tls.0.clone()).connect(name, stream).await.unwrap(), b"hello").await
    };
    assert_eq!(pod.outside.within(bytes), b"hello");
    assert_eq!(ledger.connections(), 1);

    // A port that nobody has opened is refused to those, too, who may come in.
    for to in ["10.77.0.2:9999", "10.77.0.2:15001", "[fd77::2]:9999"] {
        let refused = asked(to);
        assert_eq!((refused.status.as_u16(), refused.reason()), (403, "port_refused".to_owned()), "{to}");
    }
    // Around the sidecar's TLS, and without a certificate.
    let before = first.connections();
    let plain = pod.outside.within(Call::new("10.77.0.2:8080".parse().unwrap(), "GET", "/").send());
    assert_eq!(plain.reason(), "mtls_required");
    assert!(pod.outside_asks("10.77.0.2:8080", &pod.pki.anonymous()).is_err());
    let plain = pod.outside.within(Call::new("10.77.0.2:9999".parse().unwrap(), "GET", "/").send());
    assert_eq!(plain.reason(), "mtls_required");
    assert_eq!((first.connections(), closed.connections()), (before, 0));
    // What is left out is reached directly: a health check, for one.
    let health = pod.outside.within(Call::new("10.77.0.2:9090".parse().unwrap(), "GET", "/healthz").send());
    assert_eq!((health.status.as_u16(), probed.seen().len()), (200, 1));

    // A workload that calls itself comes in like anybody else; within the machine everything stays as it was.
    assert_eq!(pod.app_asks("203.0.113.9:80", "self.test").status, 200);
    assert_eq!(first.seen().len(), 3);
    assert_eq!(pod.app_asks("127.0.0.1:8080", "localhost").status, 200);
    assert_eq!(pod.app_asks("10.77.0.2:9999", "localhost").status, 200);

    // Rules that are applied twice stand once; without them it is the loopback bind that keeps the app closed.
    pod.redirect(&[]);
    let rules = pod.inside.run("iptables-save -t nat") + &pod.inside.run("ip6tables-save -t nat");
    assert_eq!(rules.matches("-A OUTPUT ").count(), 2, "{rules}");
    assert_eq!(rules.matches("-A PREROUTING ").count(), 2, "{rules}");
    assert!(!rules.contains("9090"), "{rules}");
    let printed = pod.init_iptables(0, &["--clean", "--dry-run"]);
    assert!(String::from_utf8_lossy(&printed.stdout).contains("-X TOLLGATE_OUTPUT\n"));
    assert!(pod.inside.run("iptables-save -t nat").contains("TOLLGATE"));
    for _ in 0..2 {
        assert!(pod.init_iptables(0, &["--clean"]).status.success());
        let rules = pod.inside.run("iptables-save -t nat") + &pod.inside.run("ip6tables-save -t nat");
        assert!(!rules.contains("TOLLGATE"), "{rules}");
    }
    let outside = |to: &str| pod.outside.within(Call::new(to.parse().unwrap(), "GET", "/").try_send());
    assert_eq!(outside("10.77.0.2:9999").unwrap().status, 200);
    assert!(outside("10.77.0.2:8080").is_err());
}

const ROUND: &str = "
listeners:
  - name: inbound
    bind: '[::]:15006'
    role: sidecar
    mtls: strict
    transparent: true
    destinations: [{ports: [7070], tcp: {cluster: bytes, authz: off}}]
  - {name: outbound, bind: 127.0.0.1:15001, role: outbound, transparent: true}
routes:
  - {name: app, listeners: [inbound], matches: [{}], backends: [{cluster: app}]}
  - {name: self, hostnames: [self.test], matches: [{}], backends: [{cluster: self}]}
  - {name: shared, hostnames: [shared.test], matches: [{}], backends: [{cluster: shared}]}
  - {name: twice, listeners: [outbound], hostnames: [twice.test], matches: [{}], backends: [{cluster: shared}]}
clusters:
  - {name: app, endpoints: {original_destination: {ports: [8080]}}}
  - {name: self, endpoints: {static: ['10.77.0.2:8080', '10.77.0.2:8081']}, tls: {spiffe_ids: ['ID']}}
  - {name: shared, protocol: h2, endpoints: {static: ['10.77.0.2:8080']}, tls: {spiffe_ids: ['ID']}}
  - {name: bytes, endpoints: {static: ['10.77.0.2:7070']}, tls: {spiffe_ids: ['ID']}}
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_in_and_is_sent_to_where_it_comes_in_goes_round_once() {
    if runs_as_root_of_its_own("what_comes_in_and_is_sent_to_where_it_comes_in_goes_round_once") {
        return;
    }
    let mut pod = Pod::new();
    let app = pod.inside.within(EchoApp::start_at("127.0.0.1:8080".parse().unwrap()));
    pod.start(SIDECAR, &ROUND.replace("ID", PROXY));
    pod.redirect(&[]);
    let tls = pod.pki.client(&pod.pki.workload(CLIENT));
    for (host, times) in [("self.test", 4), ("shared.test", 2)] {
        for _ in 0..times {
            let asked = Call::new("10.77.0.2:8080".parse().unwrap(), "GET", "/").header("host", host);
            let answer = pod.outside.within(asked.over(&tls).send());
            assert_eq!(
                (answer.status.as_u16(), answer.reason()),
                (508, "loop_detected".to_owned()),
                "{host}"
            );
        }
    }
    let bytes = async {
        let stream = TcpStream::connect("10.77.0.2:7070").await.unwrap();
        let name = ServerName::try_from(tls.1).unwrap();
        hear(TlsConnector::from(tls.0.clone()).connect(name, stream).await.unwrap(), b"hello").await
    };
    assert_eq!(pod.outside.within(bytes), b"");
    assert_eq!(app.connections(), 0);
    // Each came in twice: from outside, and once more.
    let records = pod.records(14).await;
    let refused = records.iter().filter(|(reason, _)| reason == "loop_detected").count();
    assert_eq!((refused, records.len()), (7, 14), "{records:#?}");
    // A workload that calls itself by the same cluster is none of that, as long as what comes in goes on to it.
    assert_eq!(pod.app_asks("203.0.113.9:80", "twice.test").status, 200);
    assert_eq!(app.connections(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_app_that_listens_on_its_own_address_alone_is_reached_there() {
    if runs_as_root_of_its_own("an_app_that_listens_on_its_own_address_alone_is_reached_there") {
        return;
    }
    let mut pod = Pod::new();
    let app = pod.inside.within(EchoApp::start_at("10.77.0.2:8080".parse().unwrap()));
    pod.start(SIDECAR, &inbound("10.77.0.2"));
    pod.redirect(&[]);
    let tls = pod.pki.client(&pod.pki.workload(CLIENT));
    for to in ["10.77.0.2:8080", "[fd77::2]:8080"] {
        assert_eq!(pod.outside_asks(to, &tls).unwrap().status, 200, "{to}");
    }
    assert_eq!(pod.app_asks("203.0.113.9:80", "self.test").status, 200);
    assert_eq!(app.seen().len(), 3);
    assert_eq!(pod.outside_asks("10.77.0.2:8081", &tls).unwrap().reason(), "upstream_connect");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_dials_a_transparent_listener_itself_is_refused() {
    if runs_as_root_of_its_own("whoever_dials_a_transparent_listener_itself_is_refused") {
        return;
    }
    let mut pod = Pod::new();
    pod.start(SIDECAR, OUT);
    let tls = pod.pki.client(&pod.pki.workload(CLIENT));
    let mut expected = Vec::new();
    // Nothing is redirected before there are rules; afterwards it is redirected to where it was going.
    for args in [None, Some(&[][..])] {
        args.inspect(|args| pod.redirect(args));
        for to in ["127.0.0.1:15001", "[::1]:15001", "127.0.0.1:15006", "10.77.0.2:15006", "[fd77::2]:15006"]
        {
            let heard = pod.inside.within(say(to, b"GET / HTTP/1.1\r\nhost: partner.test\r\n\r\n"));
            assert_eq!(heard, b"", "{to}");
            expected.push(("not_redirected".to_owned(), to.replace(['[', ']'], "")));
        }
        for to in ["10.77.0.2:15006", "[fd77::2]:15006"] {
            assert!(pod.outside_asks(to, &tls).is_err(), "{to}");
            expected.push(("not_redirected".to_owned(), to.replace(['[', ']'], "")));
        }
    }
    expected.sort();
    assert_eq!(pod.records(expected.len()).await, expected, "one connection is one refusal");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sidecar_whose_own_connections_are_redirected_does_not_answer_itself() {
    if runs_as_root_of_its_own("a_sidecar_whose_own_connections_are_redirected_does_not_answer_itself") {
        return;
    }
    let mut pod = Pod::new();
    let partner = pod.outside.within(EchoApp::start_at("10.77.0.1:8080".parse().unwrap()));
    let database = pod.outside.within(Echo::at("10.77.0.1:6432"));
    // The rules leave out somebody else.
    let yaml = OUT.replace("ports: [5432]", "ports: [5432, 6432]");
    pod.start(SIDECAR + 1, &yaml);
    pod.redirect(&[]);
    for _ in 0..5 {
        let answer = pod.app_asks("203.0.113.9:80", "partner.test");
        assert_eq!(answer.status, 502, "{answer:?}");
        assert_eq!(pod.inside.within(say("10.77.0.1:5432", b"\0select")), b"");
    }
    assert_eq!((partner.connections(), database.connections()), (0, 0));
    // Each connection of the app's came back once: it and its shadow make two records.
    let records = pod.records(20).await;
    let loops = records.iter().filter(|(reason, _)| reason == "loop_detected").count();
    assert_eq!((records.len(), loops), (20, 10), "{records:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rules_that_cannot_be_applied_say_what_is_missing() {
    if runs_as_root_of_its_own("rules_that_cannot_be_applied_say_what_is_missing") {
        return;
    }
    let pod = Pod::new();
    let said = |output: std::process::Output| {
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code().unwrap(), text + &String::from_utf8_lossy(&output.stdout))
    };
    let (code, text) = said(pod.init_iptables(SIDECAR, &["--apply"]));
    assert!(code == 1 && text.contains("NET_ADMIN"), "{code} {text}");
    let binary = env!("CARGO_BIN_EXE_tollgate-proxy");
    let bare = std::process::Command::new(binary)
        .args(["init-iptables", "--clean"])
        .env("PATH", "/nowhere")
        .output();
    let (code, text) = said(bare.unwrap());
    assert!(code == 1 && text.contains("install the package iptables"), "{code} {text}");
    let (code, text) = said(pod.init_iptables(SIDECAR, &["--proxy-uid=0"]));
    assert!(code == 2 && text.contains("such as 1337"), "{code} {text}");
    let (code, text) = said(pod.init_iptables(SIDECAR, &["--outbound-port=15006"]));
    assert!(code == 2 && text.contains("such as 15006 and 15001"), "{code} {text}");
    // Printing needs no rights; what is printed is what would be restored.
    let (code, text) = said(pod.init_iptables(SIDECAR, &["--dns-servers=10.96.0.10"]));
    assert!(code == 0 && text.contains("-j REDIRECT --to-ports 15001\n"), "{code} {text}");
    assert!(!pod.inside.run("iptables-save -t nat").contains("TOLLGATE"));
}

/// Waits for what comes by itself.
async fn until(mut so: impl FnMut() -> bool) {
    let look = || so().then_some(());
    assert!(tollgate_testkit::fake_collector::wait_for(look).await.is_some(), "waited in vain");
}
