//! Examples load; mistakes are named with their place.

use std::path::Path;

use tollgate_proxy::Config;
use tollgate_runtime::config::{Env, load, load_text, parse_yaml_documents};

#[test]
fn the_examples_load() {
    for name in [
        "ingress.yaml",
        "sidecar.yaml",
        "sidecar-quotes.yaml",
        "sidecar-payments.yaml",
        "egress.yaml",
        "patterns.yaml",
        "transparent.yaml",
    ] {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config").join(name);
        if let Err(error) = load::<Config>(&file, &[], &Env::empty()) {
            panic!("{error}");
        }
        // Through the way that overrides take, where some words are read as booleans.
        let sets = ["telemetry.log=debug".to_owned()];
        if let Err(error) = load::<Config>(&file, &sets, &Env::empty()) {
            panic!("{error}");
        }
    }
}

const GOOD: &str = "\
listeners:
  - {name: main, bind: '127.0.0.1:0', role: ingress}
routes:
  - name: a
    matches: [{path: {type: PathTemplate, value: '/a/{id}'}, method: GET}]
    backends: [{cluster: c, weight: 1}]
    descriptors: [[{key: subject, value: '{token.subject}'}]]
clusters:
  - {name: c, endpoints: {static: ['127.0.0.1:1']}}
authz: {address: 'http://127.0.0.1:7001'}
rate_limit: {address: 'http://127.0.0.1:7002', domain: d}
";

#[track_caller]
fn check(changed: &str, to: &str, expected: (u32, &str)) {
    let load = |text: &str| load_text::<Config>(Path::new("p.yaml"), text, &[], &Env::empty());
    load(GOOD).unwrap();
    assert!(GOOD.contains(changed), "{changed}");
    let error = load(&GOOD.replacen(changed, to, 1)).unwrap_err().to_string();
    let place = error.split(':').take(3).collect::<Vec<_>>().join(":");
    let (_, message) = error.split_once(&format!("{place}: ")).unwrap();
    assert!(message.starts_with(expected.1), "`{to}` gave\n{error}");
    assert!(place.starts_with(&format!("p.yaml:{}:", expected.0)), "`{to}` gave\n{error}");
}

#[test]
fn mistakes_are_named_with_their_place() {
    check("role: ingress", "role: ingress, rolle: x", (2, "listeners[0].rolle: unknown field"));
    check(
        "authz: {address: 'http://127.0.0.1:7001'}",
        "",
        (4, "routes[0]: `a` enters by an ingress and nobody is asked"),
    );
    check(
        "rate_limit: {address: 'http://127.0.0.1:7002', domain: d}",
        "",
        (7, "routes[0].descriptors: nobody counts them"),
    );
    check(
        "role: ingress",
        "role: ingress, proxy_protocol: {from: []}",
        (2, "listeners[0].proxy_protocol.from: nobody says it"),
    );
    check(
        "role: ingress",
        "role: ingress, proxy_protocol: {from: [10.0.0.0/33]}",
        (2, "listeners[0].proxy_protocol.from[0]: `10.0.0.0/33` is no range of addresses"),
    );
    check(
        "role: ingress",
        "role: ingress, trusted: {proxies: [10.0.0.0/8, '::ffff:10.0.0.0/95']}",
        (
            2,
            "listeners[0].trusted.proxies[1]: `::ffff:10.0.0.0/95` is IPv4 written as IPv6, and more than that; expected",
        ),
    );
    check("role: ingress", "role: sidecar, trusted: {hops: 1}", (2, "listeners[0].trusted: only an ingress"));
    check(
        "name: c, endpoints",
        "name: c, protocol: h2, proxy_protocol: v1, endpoints",
        (9, "clusters[0].proxy_protocol: a connection of HTTP/2 carries"),
    );
    check("role: ingress", "role: gateway", (2, "listeners[0].role: unknown variant"));
    check("127.0.0.1:0", "0.0.0.0:0", (2, "listeners[0].bind: 0.0.0.0:0 is reachable from outside"));
    check(
        "cluster: c",
        "cluster: d",
        (6, "routes[0].backends[0].cluster: there is no cluster `d`; expected one of: c"),
    );
    check("weight: 1", "weight: 0", (6, "routes[0].backends: the weights add up to 0"));
    check("/a/{id}", "/a/{id", (5, "routes[0].matches[0].path.value: `{id` is not a segment"));
    check("method: GET", "method: get", (5, "routes[0].matches[0].method: `get` is not a method"));
    check(
        "token.subject",
        "token.sub",
        (7, "routes[0].descriptors[0][0].value: `{token.sub}` is not a placeholder"),
    );
    check(
        "http://127.0.0.1:7001",
        "127.0.0.1:7001",
        (10, "authz.address: `127.0.0.1:7001` is not a gRPC address"),
    );
    check(
        "clusters:\n",
        "clusters:\n  - {name: c, endpoints: {static: ['127.0.0.1:2']}}\n",
        (10, "clusters[1].name: `c` stands twice"),
    );
    check("['127.0.0.1:1']", "[]", (9, "clusters[0].endpoints.static: there are none"));
    check("    backends: [{cluster: c, weight: 1}]\n", "", (4, "routes[0]: the route goes nowhere"));
    check(
        "weight: 1}]",
        "weight: 1}]\n    overrides: [{cluster: d, headers: [{name: a, value: b}]}]",
        (7, "routes[0].overrides[0].cluster: `d` is no backend of this route; expected one of: c"),
    );
    check(
        "weight: 1}]",
        "weight: 1}]\n    url_rewrite: {path: {type: ReplacePrefixMatch, value: /b}}",
        (7, "routes[0].url_rewrite.path.type: not every match of the route is a prefix"),
    );
    for (upgrades, complaint) in [
        ("[h2c]", "routes[0].upgrades[0]: `h2c` is nothing to go over to"),
        ("[web socket]", "routes[0].upgrades[0]: `web socket` is nothing to go over to"),
    ] {
        check("weight: 1}]", &format!("weight: 1}}]\n    upgrades: {upgrades}"), (7, complaint));
    }
    check(
        "weight: 1}]",
        "weight: 1}]\n    grpc_web: true",
        (7, "routes[0].grpc_web: cluster `c` speaks HTTP/1.1"),
    );
    check(
        "weight: 1}]\n    descriptors: [[{key: subject, value: '{token.subject}'}]]\nclusters:\n  - {",
        "weight: 1}]\n    upgrades: [websocket]\nclusters:\n  - {protocol: h2, ",
        (7, "routes[0].upgrades: cluster `c` speaks HTTP/2"),
    );
    check(
        "weight: 1}]",
        "weight: 1}]\n    request_mirror: {cluster: shadow}",
        (7, "routes[0].request_mirror.cluster: there is no cluster `shadow`"),
    );
    check(
        "weight: 1}]",
        "weight: 1}]\n    cors: {allow_origins: ['*'], allow_credentials: true}",
        (7, "routes[0].cors.allow_credentials: any page at all"),
    );
    check(
        "weight: 1}]",
        "weight: 1}]\n    fault: {abort: {percent: 101, status: 503}}",
        (7, "routes[0].fault.abort.percent: 101 is not a percentage"),
    );
    check(
        "method: GET}",
        "method: GET, headers: [{name: a, type: RegularExpression, value: '('}]}",
        (5, "routes[0].matches[0].headers[0].value: "),
    );
    check(
        "role: ingress",
        "role: egress",
        (4, "routes[0]: listener `main` would send every name there is to `a`"),
    );
    check(
        "    backends: [",
        "    listeners: [other]\n    backends: [",
        (6, "routes[0].listeners[0]: there is no listener `other`; expected one of: main"),
    );
    check(
        "['127.0.0.1:1']}",
        "['127.0.0.1:1']}, breaker: {requests: 0}",
        (9, "clusters[0].breaker.requests: 0 is too small"),
    );
    check(
        "['127.0.0.1:1']}",
        "['127.0.0.1:1']}, health_check: {ask: {grpc: shop.Orders}}",
        (9, "clusters[0].health_check.ask.grpc: gRPC is asked over HTTP/2"),
    );
    check(
        "['127.0.0.1:1']}",
        "['127.0.0.1:1']}, slow_start: 30s, balance: {maglev: subject}",
        (9, "clusters[0].slow_start: a key always goes to the same endpoint"),
    );
    check(
        "{static: ['127.0.0.1:1']}",
        "{dns: {name: a.test}}",
        (9, "clusters[0].endpoints.dns.port: it is missing"),
    );
    check(
        "weight: 1}]",
        "weight: 1}]\n    retry: {on: [timeout]}",
        (7, "routes[0].retry.on: no try times out"),
    );
    let rollout = |rest: &str| {
        format!(
            "weight: 1}}, {{cluster: d, weight: 0}}]\n    service: n/s\n    rollout: {{name: r, canary: d, steps: [{{weight: 10}}]{rest}}}"
        )
    };
    let with_rollout = |to: &str, line: u32, expected: &str| {
        let clusters = "clusters:\n";
        let two = format!("{clusters}  - {{name: d, endpoints: {{static: ['127.0.0.1:2']}}}}\n");
        let text = GOOD.replacen(clusters, &two, 1).replacen("weight: 1}]", to, 1);
        let loaded = load_text::<Config>(Path::new("p.yaml"), &text, &[], &Env::empty());
        let error = loaded.unwrap_err().to_string();
        let is_there = error.starts_with(&format!("p.yaml:{line}:"));
        assert!(is_there && error.contains(expected), "`{to}` gave\n{error}");
    };
    with_rollout(&rollout(", canari: d"), 8, "routes[0].rollout.canari: unknown field");
    with_rollout(
        &rollout("").replace("canary: d", "canary: e"),
        8,
        "routes[0].rollout.canary: `e` is no backend of this route; expected one of: c, d",
    );
    with_rollout(
        &rollout("").replace("{weight: 10}", "{weight: 10}, {weight: 5}"),
        8,
        "routes[0].rollout.steps[1].weight: 5 % after 10 %; expected more than the step before and less than 100",
    );
    with_rollout(
        &rollout("").replace("    service: n/s\n", ""),
        7,
        "routes[0].rollout: nobody knows whose requests these are",
    );
    with_rollout(
        &rollout(", confidence: 10"),
        8,
        "routes[0].rollout.confidence: it leaves a chance of 90 %; expected from 50 to 99.9999",
    );
    with_rollout(
        &rollout(", alone_after: 3s"),
        8,
        "routes[0].rollout.alone_after: one report that is lost would cut this proxy off",
    );
    with_rollout(
        &rollout(", latency: {max_ratio: 0.5}"),
        8,
        "routes[0].rollout.latency.max_ratio: 0.5 times; expected from 1 to 100",
    );
    with_rollout(
        &rollout("").replace("weight: 1}", "weight: 0}"),
        8,
        "routes[0].rollout.canary: there is nothing to compare it with",
    );
    check(
        "['127.0.0.1:1']}",
        "['127.0.0.1:1']}, deprecation: {since: '2026-01-01T00:00:00Z', sunset: '2025-01-01T00:00:00Z'}",
        (9, "clusters[0].deprecation.sunset: it is gone before it is deprecated"),
    );
    check("authz: {", "authz: {on_eror: deny, ", (10, "authz.on_eror: unknown field"));
}

#[test]
fn mistakes_in_tcp_listeners_are_named_with_their_place() {
    for (keys, expected) in [
        ("tcp: {cluster: d}", "listeners[0].tcp.cluster: there is no cluster `d`; expected one of: c"),
        ("tcp: {cluster: c, max_duration: 0s}", "listeners[0].tcp.max_duration: no time at all"),
        ("tcp: {cluster: c, authz: {guard: log}}", "listeners[0].tcp.authz.guard: a connection has no path"),
        (
            "tcp: {cluster: c}, local_limits: [{requests: 5, per: 1s}]",
            "listeners[0].local_limits: it counts requests",
        ),
        ("tcp: {cluster: c}, limit_by_address: {per_second: 5}", "listeners[0].limit_by_address: it counts"),
    ] {
        check("role: ingress", &format!("role: ingress, {keys}"), (2, expected));
    }
    let load = |listener: &str| {
        let text = format!(
            "listeners:\n  - {{name: main, bind: '127.0.0.1:0', role: sidecar, {listener}}}\n\
             clusters:\n  - {{name: c, endpoints: {{static: ['127.0.0.1:1']}}}}\n\
             identity: {{files: {{certificate: a, key: b, bundle: c}}}}\n"
        );
        load_text::<Config>(Path::new("p.yaml"), &text, &[], &Env::empty()).map_err(|error| error.to_string())
    };
    let unasked = load("tcp: {cluster: c}").unwrap_err();
    assert!(unasked.contains("listeners[0].tcp: nobody is asked"), "{unasked}");
    let permissive = load("mtls: permissive, tcp: {cluster: c, authz: off}").unwrap_err();
    assert!(permissive.contains("listeners[0].mtls: who speaks first is not known"), "{permissive}");
    load("mtls: strict, tcp: {cluster: c, authz: off, max_duration: 8h}").unwrap();
}

/// Every YAML block of the page on identity is a configuration, with what it leaves out; those of authz say so.
#[test]
fn the_page_on_identity_can_be_copied() {
    let page = include_str!("../../../docs/identity.md");
    let blocks: Vec<_> =
        page.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert!(blocks.len() >= 4);
    for block in blocks.into_iter().filter(|block| !block.starts_with("# authz\n")) {
        let listeners = "listeners: [{name: main, bind: '127.0.0.1:8080', role: sidecar, mtls: strict}]\n";
        let text =
            if block.contains("listeners:") { block.to_owned() } else { format!("{listeners}{block}") };
        let loaded = load_text::<Config>(Path::new("docs/identity.md"), &text, &[], &Env::empty());
        assert!(loaded.is_ok(), "{}\n{text}", loaded.unwrap_err());
    }
}

/// As the page on identity; a block that is indented holds keys of a route, and clusters that are only named are made.
#[test]
fn the_page_on_patterns_names_tests_that_there_are() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let page = include_str!("../../../docs/patterns.md");
    let mut named = 0;
    for line in page.lines() {
        let cells: Vec<_> = line.split('|').map(|cell| cell.trim().trim_matches('`')).collect();
        let ["", _, file, test, ""] = cells[..] else { continue };
        if file.ends_with(".rs") {
            let text = std::fs::read_to_string(root.join(file)).unwrap();
            assert!(text.contains(&format!("fn {test}(")), "{file} has no {test}");
            named += 1;
        }
    }
    assert!(named > 40, "{named}");
}

#[test]
fn the_page_on_patterns_can_be_copied() {
    let page = include_str!("../../../docs/patterns.md");
    let blocks: Vec<_> =
        page.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert!(blocks.len() >= 8);
    let secret = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(secret.path(), "Bearer ours\n").unwrap();
    for block in blocks {
        let block = block.replace("/run/secrets/partner", &secret.path().display().to_string());
        let has = |key: &str| block.lines().any(|line| line.starts_with(key));
        let mut text = String::from("identity: {files: {certificate: a, key: b, bundle: c}}\n");
        if !has("authz:") {
            text += "authz: {address: 'http://127.0.0.1:7001'}\n";
        }
        if !has("listeners:") {
            text += "listeners: [{name: main, bind: '127.0.0.1:8080', role: sidecar}]\n";
        }
        if block.starts_with("    ") {
            text += "routes:\n  - name: route\n    matches: [{}]\n";
            if !block.contains("    backends:") {
                text += "    backends: [{cluster: app}]\n";
            }
        }
        text += &block;
        if !has("clusters:") {
            let named = text.split("cluster: ").skip(1).filter_map(|rest| rest.split([',', '}']).next());
            let named: std::collections::BTreeSet<_> = named.collect();
            let made =
                named.iter().map(|name| format!("{{name: {name}, endpoints: {{static: ['127.0.0.1:1']}}}}"));
            text = format!("{text}\nclusters: [{}]\n", made.collect::<Vec<_>>().join(", "));
        }
        let loaded = load_text::<Config>(Path::new("docs/patterns.md"), &text, &[], &Env::empty());
        if block.contains("endpoint_slices:") && !cfg!(feature = "kubernetes") {
            // The tests with the feature load it.
            let error = loaded.unwrap_err().to_string();
            assert!(error.contains("endpoints.endpoint_slices: this build has no client"), "{error}");
            assert!(error.contains("--features kubernetes"), "{error}");
            continue;
        }
        assert!(loaded.is_ok(), "{}\n{text}", loaded.unwrap_err());
    }
}

/// The example's Role allows what is done, and no more; and its pod has what a proxy looks for.
#[test]
fn the_role_of_the_example_allows_what_slices_need() {
    let text = include_str!("../../../config/kubernetes/endpoint-slices.yaml");
    let objects = parse_yaml_documents::<serde_json::Value>(Path::new("endpoint-slices.yaml"), text).unwrap();
    let of = |kind: &str| &objects.iter().find(|object| object.value["kind"] == kind).unwrap().value;
    let rule = serde_json::json!({
        "apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"],
    });
    let (role, binding) = (of("Role"), of("RoleBinding"));
    assert_eq!(role["rules"], serde_json::json!([rule]));
    assert_eq!(binding["roleRef"]["name"], role["metadata"]["name"]);
    let pod = &of("Deployment")["spec"]["template"]["spec"];
    assert_eq!(binding["subjects"][0]["name"], pod["serviceAccountName"]);
    assert_eq!(pod["volumes"][0]["projected"]["sources"].as_array().unwrap().len(), 3);
    let mounted = pod["containers"][0]["volumeMounts"][0]["mountPath"].as_str().unwrap();

    let config = of("ConfigMap")["data"]["orders.yaml"].as_str().unwrap();
    let listener = "listeners: [{name: main, bind: '127.0.0.1:8080', role: sidecar}]\n";
    let text = format!("{listener}{config}");
    match load_text::<Config>(Path::new("orders.yaml"), &text, &[], &Env::empty()) {
        Err(error) => {
            assert!(!cfg!(feature = "kubernetes") && error.to_string().contains("has no client"), "{error}")
        }
        Ok(loaded) => {
            let tollgate_proxy::config::Endpoints::EndpointSlices(slices) = &loaded.clusters[0].endpoints
            else {
                panic!("{:?}", loaded.clusters[0].endpoints);
            };
            assert_eq!(slices.token_file, Path::new(mounted).join("token"));
            assert_eq!(slices.namespace.as_deref(), role["metadata"]["namespace"].as_str());
        }
    }
}

#[test]
fn mistakes_in_limits_are_named_with_their_place() {
    let descriptors = "    descriptors: [[{key: subject, value: '{token.subject}'}]]";
    check(
        "role: ingress",
        "role: ingress, local_limits: [{requests: 5, per: 1s, key: '{token.subject}'}]",
        (2, "listeners[0].local_limits[0].key: no token is verified yet"),
    );
    check(
        "role: ingress",
        "role: ingress, connection_limit: {descriptors: [[{key: a, value: '{request.host}'}]]}",
        (2, "listeners[0].connection_limit.descriptors[0][0].value: a connection has no request yet"),
    );
    check(
        "role: ingress",
        "role: ingress, connection_limit: {descriptors: []}",
        (2, "listeners[0].connection_limit.descriptors: there are none"),
    );
    check(
        descriptors,
        "    quota: [[{key: a, value: b}, {key: a, value: c}]]",
        (7, "routes[0].quota[0]: is empty or has a key twice"),
    );
    check(
        descriptors,
        "    local_limits: [{requests: 5, per: 0s}]",
        (7, "routes[0].local_limits[0].per: is no time"),
    );
    check(
        "domain: d}",
        "domain: d, quota: {report_interval: 1m}}",
        (11, "rate_limit.quota.report_interval: is 1m"),
    );
    check("domain: d}", "domain: d, quota: {max_buckets: 0}}", (11, "rate_limit.quota.max_buckets: is 0"));
}

/// What the page on rate limits has for the proxy is a configuration.
#[test]
fn the_page_on_rate_limits_can_be_copied() {
    let page = include_str!("../../../docs/rate-limits.md");
    let blocks = page.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next());
    let ours: Vec<_> = blocks.filter(|block| block.contains("listeners:")).collect();
    assert_eq!(ours.len(), 1);
    let text = format!("authz: {{address: 'http://127.0.0.1:7001'}}\n{}", ours[0]);
    load_text::<Config>(Path::new("docs/rate-limits.md"), &text, &[], &Env::empty())
        .unwrap_or_else(|error| panic!("{error}\n{text}"));
}
