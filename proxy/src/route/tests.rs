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
