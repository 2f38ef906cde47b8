//! What cannot be used, of transparent listeners and what they lead to, is named with its place and a remedy.

use std::path::Path;

use serde_json::Value;
use tollgate_proxy::Config;
use tollgate_runtime::config::{Env, load_text, parse_yaml_documents};

const GOOD: &str = "\
listeners:
  - {name: in, bind: '127.0.0.1:15006', role: sidecar, transparent: true}
  - {name: out, bind: '127.0.0.1:15001', role: outbound, transparent: true, destinations: [{ports: [5432], tcp: {cluster: db, authz: off}}]}
routes:
  - {name: app, listeners: [in], matches: [{}], backends: [{cluster: app}]}
  - {name: db, listeners: [out], hostnames: [db.test], matches: [{}], backends: [{cluster: db}]}
clusters:
  - {name: app, endpoints: {original_destination: {ports: [8080]}}}
  - {name: db, endpoints: {static: ['10.0.0.9:5432']}}
";

fn loaded(text: &str) -> Result<Config, String> {
    let loaded = load_text::<Config>(Path::new("p.yaml"), text, &[], &Env::empty());
    loaded.map_err(|error| error.to_string())
}

#[test]
fn transparent_listeners_are_in_the_outline() {
    let tls = "  - {name: tls, bind: '127.0.0.1:15002', role: outbound, transparent: true, destinations: [{server_names: [a.test], ports: [443], tcp: {cluster: db, authz: off}}]}\nroutes:";
    let lines = loaded(&GOOD.replacen("routes:", tls, 1)).unwrap().outline().join("\n");
    for line in [
        "listener out: Outbound at 127.0.0.1:15001, transparent; bytes for port 5432 -> db",
        "listener tls: Outbound at 127.0.0.1:15002, transparent; bytes for TLS to a.test at port 443 -> db",
        "cluster app: 127.0.0.1 at the port that the client wanted, of 8080; ",
    ] {
        assert!(lines.contains(line), "{lines}");
    }
}

#[test]
fn mistakes_with_transparent_listeners_are_named_with_their_place() {
    loaded(GOOD).unwrap();
    let place = "listeners[1].destinations[0]";
    for (changed, to, line, expected) in [
        (
            "role: sidecar, transparent: true",
            "role: ingress, transparent: true",
            2,
            "listeners[0].transparent: nothing is redirected",
        ),
        (
            "role: outbound, transparent: true",
            "role: outbound",
            3,
            "listeners[1].destinations: only of what was redirected",
        ),
        (
            "sidecar, transparent: true",
            "sidecar, transparent: true, proxy_protocol: {from: [10.0.0.0/8]}",
            2,
            "listeners[0].proxy_protocol: the system says",
        ),
        (
            "transparent: true, destinations",
            "transparent: true, tcp: {cluster: db, authz: off}, destinations",
            3,
            "listeners[1].tcp: it takes every connection",
        ),
        ("authz: off", "authz: on", 3, &format!("{place}.tcp: nobody is asked whether a connection may be")),
        (
            "tcp: {cluster: db, ",
            "tcp: {cluster: bd, ",
            3,
            &format!("{place}.tcp.cluster: there is no cluster `bd`"),
        ),
        (
            "tcp: {cluster: db, ",
            "tcp: {cluster: app, ",
            3,
            &format!("{place}.tcp.cluster: `app` is what a client wanted"),
        ),
        (
            "ports: [5432]",
            "server_names: [10.0.0.1]",
            3,
            &format!("{place}.server_names: `10.0.0.1` is no name of a server"),
        ),
        (
            "ports: [5432]",
            "server_names: [Api.test]",
            3,
            &format!("{place}.server_names: `Api.test` is no name of a server"),
        ),
        ("ports: [5432]", "ports: [0]", 3, &format!("{place}.ports: 0 is no port")),
        (
            "ports: [5432]",
            "networks: [10.0.0.0/33]",
            3,
            &format!("{place}.networks[0]: `10.0.0.0/33` is no range"),
        ),
        (
            "sidecar, transparent: true",
            "sidecar, transparent: true, destinations: [{networks: [10.0.0.0/8], tcp: {cluster: app, authz: off}}]",
            2,
            "listeners[0].destinations[0].networks: what comes in was going to this workload",
        ),
        ("listeners: [in], matches", "matches", 5, "routes[0]"),
        (
            "backends: [{cluster: db}]",
            "backends: [{cluster: app}]",
            6,
            "routes[1].backends[0].cluster: `app` is what a client wanted of this workload, which listener `out` does not know",
        ),
        (
            "role: sidecar, transparent: true",
            "role: sidecar",
            5,
            "routes[0].backends[0].cluster: `app` is what a client wanted of this workload, which listener `in` does not know",
        ),
        (
            "backends: [{cluster: db}]",
            "backends: [{cluster: db}], request_mirror: {cluster: app}",
            6,
            "routes[1].request_mirror.cluster: a copy was not going anywhere",
        ),
        ("ports: [8080]", "ports: []", 8, "clusters[0].endpoints.original_destination.ports: there are none"),
        (
            "ports: [8080]",
            "ports: [1, 1]",
            8,
            "clusters[0].endpoints.original_destination.ports: 1 stands twice",
        ),
        (
            "ports: [8080]",
            "ports: [8080], address: fd00::1",
            8,
            "clusters[0].endpoints.original_destination.address: fd00::1 cannot be",
        ),
        (
            "ports: [8080]",
            "ports: [15006]",
            8,
            "clusters[0].endpoints.original_destination.ports: 127.0.0.1:15006 leads back to listener `in`",
        ),
        (
            "10.0.0.9:5432",
            "127.0.0.1:15001",
            9,
            "clusters[1].endpoints.static: 127.0.0.1:15001 leads back to listener `out`",
        ),
        (
            "{ports: [8080]}}",
            "{ports: [8080]}}, health_check: {ask: tcp}",
            8,
            "clusters[0].health_check: there is nothing to choose",
        ),
    ] {
        assert!(GOOD.contains(changed), "{changed}");
        let error = loaded(&GOOD.replacen(changed, to, 1)).expect_err(to);
        assert!(
            error.starts_with(&format!("p.yaml:{line}:")) && error.contains(expected),
            "`{to}` gave\n{error}"
        );
    }
}

#[test]
fn the_page_on_transparent_sidecars_can_be_copied() {
    let page = include_str!("../../../../docs/transparent.md");
    let blocks = page.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next());
    let ours: Vec<_> = blocks.filter(|block| !block.starts_with("# kubernetes\n")).collect();
    assert_eq!(ours.len(), 1);
    if let Err(error) = loaded(ours[0]) {
        panic!("{error}\n{}", ours[0]);
    }
}

/// The pod of the example is put together as the page says: the same configuration, one user, and rules that can be made.
#[test]
fn the_transparent_pod_of_the_example_fits_together() {
    let text = include_str!("../../../../config/kubernetes/transparent-sidecar.yaml");
    let objects = parse_yaml_documents::<Value>(Path::new("transparent-sidecar.yaml"), text).unwrap();
    let of = |kind: &str| &objects.iter().find(|object| object.value["kind"] == kind).unwrap().value;
    let sidecar = include_str!("../../../../config/transparent.yaml");
    assert_eq!(of("ConfigMap")["data"]["proxy.yaml"], sidecar);
    let config = loaded(sidecar).unwrap();

    let pod = &of("Deployment")["spec"]["template"]["spec"];
    let init = |name: &str| {
        let mut all = pod["initContainers"].as_array().unwrap().iter();
        all.find(|one| one["name"] == name).unwrap()
    };
    let words = |list: &Value| -> Vec<String> {
        list.as_array().unwrap().iter().map(|word| word.as_str().unwrap().to_owned()).collect()
    };
    let (redirect, proxy) = (init("redirect"), init("sidecar"));
    assert_eq!(words(&redirect["command"]), ["tollgate-proxy", "init-iptables", "--apply"]);
    assert!(words(&redirect["securityContext"]["capabilities"]["add"]).contains(&"NET_ADMIN".to_owned()));
    let printed = std::process::Command::new(env!("CARGO_BIN_EXE_tollgate-proxy"))
        .arg("init-iptables")
        .args(words(&redirect["args"]))
        .output()
        .unwrap();
    let rules = String::from_utf8(printed.stdout).unwrap();
    assert!(printed.status.success(), "{}", String::from_utf8_lossy(&printed.stderr));
    let user = &proxy["securityContext"]["runAsUser"];
    assert!(rules.contains(&format!("--uid-owner {user} -j RETURN")), "{rules}");
    assert_ne!(pod["containers"][0]["securityContext"]["runAsUser"], *user);
    for listener in config.listeners.iter().filter(|listener| listener.transparent) {
        let redirected = format!("--to-ports {}\n", listener.bind.port());
        assert!(rules.contains(&redirected), "{}\n{rules}", listener.name);
    }
    // What is left out is for probes alone, and no port that the policy opens to others.
    let probe = &pod["containers"][0]["readinessProbe"]["httpGet"]["port"];
    assert_eq!(rules.matches(&format!("--dport {probe} -j RETURN")).count(), 2, "{rules}");
    let opened = &of("NetworkPolicy")["spec"]["ingress"][0]["ports"];
    assert_eq!(opened.as_array().unwrap().len(), 1);
    let app = config.clusters.iter().find(|cluster| cluster.name == "app").unwrap();
    let ports = match &app.endpoints {
        tollgate_proxy::config::Endpoints::OriginalDestination(app) => &app.ports,
        other => panic!("{other:?}"),
    };
    assert_eq!(opened[0]["port"], ports[0]);
}
