//! What the number of routes and clusters costs a request, in instructions: they are the same in every run, where time
//! is not.
//!
//! The proxy runs under valgrind twice, with few and with many of the same requests, and what its connections execute is
//! counted. The difference is what those requests took, without the start, and without what is done by the clock, such as
//! telling the metrics of every cluster.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::chain::upstream;
use crate::process::{self, Callgrind};
use crate::{Options, collector, say};

const FEW: usize = 500;
const MANY: usize = 2_500;
/// The function in which a connection is served.
const COUNTED: &str = "--toggle-collect=tollgate_proxy::listener::connection::drive*";
/// Hosts that are asked in turn, spread over all routes.
const ASKED: usize = 10;
/// Ten thousand routes are read slowly under valgrind.
const READY_WITHIN: Duration = Duration::from_secs(300);

/// Measures and prints.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let (upstream, collector) = (upstream::start()?, collector::start()?);
    let proxy = options.binaries.join("tollgate-proxy");
    let measure = |routes, clusters| {
        let [few, many] = [FEW, MANY].map(|requests| {
            instructions(
                &proxy,
                |listen| config(listen, collector, upstream, routes, clusters),
                routes,
                requests,
            )
        });
        let each = (many? - few?) / (MANY - FEW) as f64;
        say(&format!("{routes:>6} routes, {clusters:>5} clusters   {each:>9.0} instructions a request"));
        anyhow::Ok(each)
    };
    let (small, large) = (measure(10, 10)?, measure(10_000, 1_000)?);
    say(&format!("ratio {:.3} (many : few)", large / small));
    Ok(())
}

fn config(
    listen: SocketAddr,
    collector: SocketAddr,
    upstream: SocketAddr,
    routes: usize,
    clusters: usize,
) -> Value {
    let route = |n: usize| {
        json!({
            "name": format!("r{n}"), "hostnames": [host(n)], "authz": "off",
            "matches": [{"path": {"type": "Exact", "value": "/list"}}, {"path": {"type": "PathTemplate", "value": "/list/{id}"}}],
            "backends": [{"cluster": format!("c{}", n % clusters)}],
        })
    };
    let cluster = |n: usize| json!({"name": format!("c{n}"), "endpoints": {"static": [upstream]}});
    json!({
        "process": {"listen": null},
        "telemetry": {"endpoint": format!("http://{collector}"), "log": "warn"},
        "listeners": [{"name": "in", "bind": listen, "role": "ingress", "limit_by_address": {"per_second": 0}}],
        "routes": (0..routes).map(route).collect::<Vec<_>>(),
        "clusters": (0..clusters).map(cluster).collect::<Vec<_>>(),
    })
}

fn host(n: usize) -> String {
    format!("h{n}.example")
}

/// All that the process executes from its start to its end, with so many requests in between.
fn instructions(
    proxy: &Path,
    config: impl FnOnce(SocketAddr) -> Value,
    routes: usize,
    requests: usize,
) -> anyhow::Result<f64> {
    let folder = TempDir::new()?;
    let [listen] = process::free_addresses()?;
    let (file, log) = (folder.path().join("proxy.yaml"), folder.path().join("valgrind.log"));
    std::fs::write(&file, config(listen).to_string())?;
    let arguments = [
        "--callgrind-out-file=/dev/null".to_owned(),
        COUNTED.to_owned(),
        format!("--log-file={}", log.display()),
    ];
    let running = Callgrind::start(&arguments, proxy, &file)?;
    process::wait_for_within(listen, READY_WITHIN)?;
    ask(listen, routes, requests)?;
    running.end()?;
    let log = std::fs::read_to_string(log)?;
    let collected = log.lines().find_map(|line| line.split_once("Collected :")?.1.trim().parse().ok());
    collected.with_context(|| format!("valgrind counted nothing:\n{log}"))
}

/// One request after the other on one connection.
fn ask(proxy: SocketAddr, routes: usize, requests: usize) -> anyhow::Result<()> {
    let mut stream = TcpStream::connect(proxy)?;
    stream.set_nodelay(true)?;
    let mut answer = [0; 4096];
    for number in 0..requests {
        let host = host((number % ASKED) * (routes / ASKED));
        write!(
            stream,
            "GET /list/{number} HTTP/1.1\r\nhost: {host}\r\nuser-agent: bench\r\naccept: */*\r\n\r\n"
        )?;
        let mut length = 0;
        // All of its head, and the upstream's body.
        let is_whole = |answer: &[u8]| {
            let head = answer.windows(4).position(|end| end == b"\r\n\r\n");
            head.is_some_and(|head| answer.len() >= head + 4 + upstream::BODY_BYTES)
        };
        while !is_whole(&answer[..length]) {
            let count = stream.read(&mut answer[length..])?;
            ensure!(
                count > 0,
                "request {number} was not answered: {}",
                String::from_utf8_lossy(&answer[..length])
            );
            length += count;
        }
        ensure!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer[..length]));
    }
    Ok(())
}
