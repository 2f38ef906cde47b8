//! A table of routes and the requests that take them.

use http::{HeaderMap, Method};

use super::*;
use crate::config::RouteConfig;

fn table(yaml: &str) -> Table {
    let routes: Vec<RouteConfig> =
        tollgate_runtime::config::parse_yaml(std::path::Path::new("routes.yaml"), yaml).unwrap();
    Table::compile(&routes).unwrap()
}

const ROUTES: &str = r#"
- {name: any-prefix, matches: [{path: {type: PathPrefix, value: "/api"}}], backends: [{cluster: c}]}
- {name: any-root, matches: [{}], hostnames: ["*.example.org"], backends: [{cluster: c}]}
- {name: exact, matches: [{path: {type: Exact, value: "/api/policies"}}], backends: [{cluster: c}]}
- {name: template, matches: [{path: {type: PathTemplate, value: "/api/policies/{id}"}}], backends: [{cluster: c}]}
- {name: template-post, matches: [{path: {type: PathTemplate, value: "/api/policies/{id}"}, method: POST}], backends: [{cluster: c}]}
- name: preview
  matches: [{path: {type: PathTemplate, value: "/api/policies/{id}"}, headers: [{name: x-preview, value: "true"}]}]
  backends: [{cluster: c}]
- {name: host, hostnames: [api.example.org], matches: [{path: {type: Exact, value: "/api/policies"}}], backends: [{cluster: c}]}
- {name: deep-host, hostnames: ["*.deep.example.org"], matches: [{path: {type: PathPrefix, value: "/"}}], backends: [{cluster: c}]}
- {name: second, matches: [{path: {type: Exact, value: "/api/policies"}}], backends: [{cluster: c}]}
"#;

#[test]
fn the_most_specific_route_wins() {
    let table = table(ROUTES);
    for (method, host, path, header, expected) in [
        ("GET", "h", "/api/policies", false, Some("exact")),
        ("GET", "h", "/api/policies/17", false, Some("template")),
        ("POST", "h", "/api/policies/17", false, Some("template-post")),
        ("GET", "h", "/api/policies/17", true, Some("preview")),
        ("POST", "h", "/api/policies/17", true, Some("template-post")),
        ("GET", "h", "/api/policies/17/x", false, Some("any-prefix")),
        ("GET", "h", "/api", false, Some("any-prefix")),
        ("GET", "h", "/api/", false, Some("any-prefix")),
        ("GET", "h", "/apis", false, None),
        ("GET", "h", "/", false, None),
        ("GET", "api.example.org", "/api/policies", false, Some("host")),
        ("GET", "api.example.org", "/elsewhere", false, Some("any-root")),
        ("GET", "example.org", "/elsewhere", false, None),
        ("GET", "a.deep.example.org", "/api/policies", false, Some("deep-host")),
    ] {
        let mut headers = HeaderMap::new();
        if header {
            headers.insert("x-preview", "true".parse().unwrap());
        }
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let found = table
            .find(&Ask {
                listener: "main",
                host,
                path,
                query: None,
                method: &method,
                headers: &headers,
                peer: PeerNames::default(),
            })
            .map(|found| &*found.route.name);
        assert_eq!(found, expected, "{method} {host}{path} preview={header}");
    }
}

#[test]
fn bad_matches_name_their_key() {
    for (yaml, key) in [
        (
            "[{name: a, matches: [{path: {type: PathTemplate, value: '/{'}}], backends: [{cluster: c}]}]",
            "routes[0].matches[0].path.value",
        ),
        ("[{name: a, matches: [{method: get}], backends: [{cluster: c}]}]", "routes[0].matches[0].method"),
        (
            "[{name: a, hostnames: ['a:80'], matches: [{}], backends: [{cluster: c}]}]",
            "routes[0].hostnames[0]",
        ),
        (
            "[{name: a, matches: [{headers: [{name: 'a b', value: x}]}], backends: [{cluster: c}]}]",
            "routes[0].matches[0].headers[0].name",
        ),
    ] {
        let routes: Vec<RouteConfig> =
            tollgate_runtime::config::parse_yaml(std::path::Path::new("r"), yaml).unwrap();
        assert_eq!(Table::compile(&routes).unwrap_err().key, key);
    }
}

#[test]
fn weights_share_requests_out() {
    let routes: Vec<RouteConfig> = tollgate_runtime::config::parse_yaml(
        std::path::Path::new("r"),
        "[{name: a, matches: [{}], backends: [{cluster: x, weight: 9}, {cluster: none, weight: 0}, {cluster: y}]}]",
    )
    .unwrap();
    let backends = Backends::compile(&routes[0], "r").unwrap();
    let even = (0..20).map(|step| step * (u64::MAX / 20) + u64::MAX / 40);
    let picked: Vec<_> = even.map(|draw| backends.pick(draw).unwrap()).collect();
    assert_eq!(picked.iter().filter(|name| **name == "x").count(), 18);
    assert_eq!(picked.iter().filter(|name| **name == "y").count(), 2);
}

#[test]
fn a_canary_takes_its_share_from_all_others_alike_and_keeps_whom_it_has() {
    let routes: Vec<RouteConfig> = tollgate_runtime::config::parse_yaml(
        std::path::Path::new("r"),
        "[{name: a, matches: [{}], backends: [{cluster: x, weight: 3}, {cluster: y}, {cluster: new, weight: 7}],
           rollout: {name: r, canary: new, steps: [{weight: 10}]}, overrides: [{cluster: new, headers: [{name: a, value: b}]}]}]",
    )
    .unwrap();
    let backends = Backends::compile(&routes[0], "r").unwrap();
    let (mut headers, method) = (HeaderMap::new(), Method::GET);
    let even = || (0..20_000_u64).map(|step| step * (u64::MAX / 20_000));
    let chosen = |headers: &HeaderMap, percent: u32, draw: u64| {
        let facts = descriptor::Facts::of_nobody(&method, headers);
        let share = tollgate_rollout::Share::millionths(percent * 10_000);
        let Chosen { cluster, arm } = backends.choose(&facts, share, || draw).unwrap();
        (cluster.to_owned(), arm)
    };
    let count =
        |percent: u32, name: &str| even().filter(|draw| chosen(&headers, percent, *draw).0 == name).count();
    for (percent, expected) in [(0, [15_000, 5_000, 0]), (40, [9_000, 3_000, 8_000]), (100, [0, 0, 20_000])] {
        let counted = ["x", "y", "new"].map(|name| count(percent, name));
        let near = counted.iter().zip(expected).all(|(is, be)| is.abs_diff(be) <= 300);
        assert!(near, "{percent}: {counted:?}");
    }
    let lost = even()
        .filter(|draw| chosen(&headers, 10, *draw).0 == "new" && chosen(&headers, 20, *draw).0 != "new")
        .count();
    assert_eq!(lost, 0, "who was with the canary stays there");
    assert_eq!(chosen(&headers, 0, 1).1, Some(crate::rollout::Arm::Baseline));
    headers.insert("a", "b".parse().unwrap());
    assert_eq!(chosen(&headers, 0, 1), ("new".to_owned(), None), "a tester is not compared");
}
