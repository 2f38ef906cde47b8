//! What a proxy takes that has nothing to do: how long until it is ready, its memory, and what idle mTLS connections add.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tollgate_identity::tls;
use tollgate_runtime::descriptors::Descriptors;
use tollgate_testkit::authority::Authority;

use crate::mtls::{client, identity_files};
use crate::process::{self, HELPER_CORE, Running, TESTED_CORE};
use crate::{Options, say};

const STARTS: usize = 11;
const CONNECTIONS: usize = 10_000;
/// Until a connection that is idle is kept with less: the proxy looks at it every five seconds.
const IDLE: Duration = Duration::from_secs(25);
/// What a start leaves behind has been given back by then.
const RESTS: Duration = Duration::from_secs(2);
const READY_WITHIN: Duration = Duration::from_secs(10);

/// Measures and prints.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    process::pin(std::process::id(), HELPER_CORE)?;
    // One for each connection.
    Descriptors::take();
    let (authority, folder) = (Authority::new("bench"), TempDir::new()?);
    let [process, listen] = process::free_addresses()?;
    let file = folder.path().join("proxy.yaml");
    let proxy = options.binaries.join("tollgate-proxy");
    let plaintext = plaintext(process, listen);
    std::fs::write(&file, plaintext.to_string())?;
    let mut times = Vec::new();
    for _ in 1..STARTS {
        times.push(start(&proxy, &file, process)?.1);
    }
    let (running, last) = start(&proxy, &file, process)?;
    times.push(last);
    times.sort_unstable();
    say(&format!(
        "from start to ready: median {:.1} ms, longest {:.1} ms of {STARTS}",
        times[STARTS / 2].as_secs_f64() * 1e3,
        times[STARTS - 1].as_secs_f64() * 1e3
    ));
    std::thread::sleep(RESTS);
    say(&format!("idle: {:.1} MiB resident", process::rss_mib(running.id())?));
    drop(running);

    let mut config = strict(plaintext, &authority, folder.path())?;
    config["listeners"][0]["limits"] = json!({"max_connections": 2 * CONNECTIONS, "idle_timeout": "1h"});
    std::fs::write(&file, config.to_string())?;
    let (running, _) = start(&proxy, &file, process)?;
    std::thread::sleep(RESTS);
    let idle = process::rss_mib(running.id())?;
    say(&format!("idle, with an identity and mTLS: {idle:.1} MiB resident"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let with = runtime.block_on(connect(&authority, listen, running.id()))?;
    say(&format!(
        "{CONNECTIONS} idle mTLS connections, each after one request: {with:.1} MiB resident, {:.1} KiB a connection",
        (with - idle) * 1024.0 / CONNECTIONS as f64
    ));
    Ok(())
}

/// As little as a proxy can be told that has a listener.
pub(crate) fn plaintext(process: SocketAddr, listen: SocketAddr) -> Value {
    json!({
        "process": {"listen": process},
        "telemetry": {"log": "warn"},
        "listeners": [{"name": "in", "bind": listen, "role": "sidecar", "mtls": "off"}],
        "routes": [{"name": "all", "matches": [{}], "authz": "off", "direct_response": {"status": 200}}],
    })
}

/// The same with an identity, and a listener that asks for one.
pub(crate) fn strict(plaintext: Value, authority: &Authority, folder: &Path) -> anyhow::Result<Value> {
    let mut config = plaintext;
    config["identity"] = identity_files(authority, folder)?;
    config["listeners"][0]["mtls"] = json!("strict");
    Ok(config)
}

/// Starts a proxy, and says how long it took until its process listener said that it is ready.
fn start(proxy: &Path, config: &Path, process: SocketAddr) -> anyhow::Result<(Running, Duration)> {
    let began = Instant::now();
    let arguments = ["--config".to_owned(), config.display().to_string()];
    let running = Running::start(proxy, TESTED_CORE, &arguments)?;
    while !is_ready(process) {
        ensure!(began.elapsed() < READY_WITHIN, "{} is not ready", proxy.display());
        std::thread::sleep(Duration::from_micros(200));
    }
    Ok((running, began.elapsed()))
}

pub(crate) fn is_ready(process: SocketAddr) -> bool {
    use std::io::{Read as _, Write as _};
    let ask = || {
        let mut stream = std::net::TcpStream::connect(process)?;
        stream.write_all(b"GET /ready HTTP/1.1\r\nhost: p\r\nconnection: close\r\n\r\n")?;
        let mut heard = String::new();
        stream.read_to_string(&mut heard).map(|_| heard.starts_with("HTTP/1.1 200"))
    };
    ask().unwrap_or(false)
}

/// Opens them, asks once on each, and says how much memory the proxy has then.
async fn connect(authority: &Authority, listen: SocketAddr, proxy: u32) -> anyhow::Result<f64> {
    let tls = client(authority)?;
    let mut open = Vec::with_capacity(CONNECTIONS);
    for number in 0..CONNECTIONS {
        let mut stream = tls::connect(tls.clone(), &listen.to_string())
            .await
            .with_context(|| format!("connection {number}"))?;
        stream.write_all(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n").await?;
        stream.flush().await?;
        let mut heard = [0; 1024];
        let count = stream.read(&mut heard).await?;
        ensure!(heard[..count].starts_with(b"HTTP/1.1 200"), "connection {number} was not served");
        open.push(stream);
    }
    tokio::time::sleep(IDLE).await;
    process::rss_mib(proxy)
}
