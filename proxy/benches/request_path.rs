//! What every request pays in this process: finding its route, and the work on its headers.
//!
//! `cargo bench -p tollgate-proxy`

use std::hint::black_box;
use std::net::IpAddr;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, Method};
use tollgate_proxy::config::{Role, RouteConfig};
use tollgate_proxy::route::{Ask, PeerNames, Table};
use tollgate_proxy::stages::address_limit::AddressLimit;
use tollgate_proxy::stages::headers;

/// `count` routes, each on a host and two paths of its own.
fn routes(count: usize) -> Table {
    let yaml: String = (0..count)
        .map(|n| {
            format!(
                "- {{name: r{n}, hostnames: [h{n}.example], matches: [{{path: {{type: Exact, value: /p{n}}}}}, \
                 {{path: {{type: PathTemplate, value: '/p{n}/{{id}}'}}}}], backends: [{{cluster: c}}]}}\n"
            )
        })
        .collect();
    let parsed: Vec<RouteConfig> =
        tollgate_runtime::config::parse_yaml(std::path::Path::new("routes"), &yaml)
            .expect("the routes are well formed");
    Table::compile(&parsed).expect("the routes compile")
}

fn find(c: &mut Criterion) {
    let headers = HeaderMap::new();
    for count in [10, 10_000] {
        let table = routes(count);
        let (host, path) = (format!("h{}.example", count / 2), format!("/p{}/17", count / 2));
        c.bench_function(&format!("find one of {count} routes"), |bench| {
            let ask = Ask {
                listener: "main",
                host: &host,
                path: &path,
                query: None,
                method: &Method::GET,
                headers: &headers,
                peer: PeerNames::default(),
            };
            bench.iter(|| black_box(table.find(black_box(&ask))));
        });
    }
}

fn usual_headers() -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("host", "policies.insurance"),
        ("user-agent", "bench/1"),
        ("accept", "*/*"),
        ("authorization", "Bearer eyJhbGciOiJFUzI1NiJ9.e30.sig"),
        ("x-forwarded-for", "6.6.6.6"),
        ("connection", "keep-alive"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers
}

fn strip(c: &mut Criterion) {
    let host = Authority::from_static("policies.insurance");
    let client: IpAddr = [127, 0, 0, 1].into();
    c.bench_function("strip and say headers", |bench| {
        bench.iter_batched_ref(
            usual_headers,
            |headers| {
                headers::strip_request(headers, Role::Ingress);
                headers::say_forwarded(headers, client, "http", &host);
            },
            BatchSize::SmallInput,
        );
    });
}

fn address_limit(c: &mut Criterion) {
    let limit = AddressLimit::new(u32::MAX);
    let client: IpAddr = [127, 0, 0, 1].into();
    c.bench_function("limit by address", |bench| bench.iter(|| black_box(limit.take(black_box(client)))));
}

criterion_group!(benches, find, strip, address_limit);
criterion_main!(benches);
