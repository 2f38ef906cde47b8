//! What floods do to other clients: how long a calm client's requests take without them and during each, and what memory the
//! proxy takes meanwhile.
//!
//! The floods come from a process of the lowest priority beside the calm client, so that what the client notices is the
//! proxy's doing and not that of whoever floods.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use clap::ValueEnum as _;
use rustls::ClientConnection;
use serde_json::json;
use socket2::SockRef;
use tempfile::TempDir;
use tollgate_identity::pki_types::ServerName;
use tollgate_runtime::descriptors::Descriptors;
use tollgate_testkit::authority::Authority;

use crate::chain::upstream;
use crate::mtls::{client, identity_files};
use crate::process::{self, HELPER_CORE, Running, TESTED_CORE};
use crate::{Options, collector, say};

/// From one request of the calm client to the next.
const EVERY: Duration = Duration::from_millis(1);
const REQUEST: &[u8] = b"GET /calm HTTP/1.1\r\nhost: h\r\nuser-agent: bench\r\n\r\n";
/// What a flood of frames comes to.
const FRAMES: u32 = 100_000;
/// Between the end of a flood's connections and what is measured next.
const SETTLES: Duration = Duration::from_millis(500);
/// The proxy has noticed by then that a flood's connections are gone; of slow clients it looks every second or so.
const GONE_WITHIN: Duration = Duration::from_secs(10);
/// The calm client's, which may go at any time.
const OTHERS: usize = 4;
/// Requests of the calm client while two thousand connect, at the beginning of a round.
const BEGINNING: usize = 200;
const SLOW_CLIENTS: u32 = 2_000;
/// Clients that begin a handshake together.
const HELLOS: usize = 128;
/// Bytes at a time.
const WRITE: usize = 16 << 10;

/// Which of them.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only this one; all of them otherwise.
    #[arg(long, value_enum)]
    only: Option<Flood>,
}

/// What comes.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub(crate) enum Flood {
    /// Streams that are opened and taken back at once.
    RapidReset,
    /// A head that does not end.
    Continuation,
    /// Empty frames of a body.
    EmptyData,
    /// Two thousand heads of which a byte comes each second.
    SlowHeads,
    /// Clients that say hello over TLS, wait for the answer and leave.
    Handshakes,
}

/// Measures and prints.
pub(crate) fn run(options: &Options, args: &Args) -> anyhow::Result<()> {
    process::pin(std::process::id(), HELPER_CORE)?;
    let (upstream, collector, folder) = (upstream::start()?, collector::start()?, TempDir::new()?);
    let authority = Authority::new("bench");
    let [listen, secure] = process::free_addresses()?;
    let limits = json!({"connections_per_address": 2 * SLOW_CLIENTS});
    let file = folder.path().join("proxy.yaml");
    let config = json!({
        "process": {"listen": null},
        "telemetry": {"endpoint": format!("http://{collector}"), "log": "error"},
        "identity": identity_files(&authority, folder.path())?,
        "listeners": [
            {"name": "in", "bind": listen, "role": "ingress", "limit_by_address": {"per_second": 0}, "limits": limits},
            {"name": "secure", "bind": secure, "role": "sidecar", "mtls": "strict", "limits": limits},
        ],
        "routes": [{"name": "all", "matches": [{}], "authz": "off", "backends": [{"cluster": "app"}]}],
        "clusters": [{"name": "app", "endpoints": {"static": [upstream]}}],
    });
    std::fs::write(&file, config.to_string())?;
    let arguments = ["--config".to_owned(), file.display().to_string()];
    let proxy = Running::start(&options.binaries.join("tollgate-proxy"), TESTED_CORE, &arguments)?;
    process::wait_for(listen)?;
    let calm = || Calm::connect(listen);
    calm()?.ask(Duration::from_secs(2))?;
    let open = process::descriptors(proxy.id())?;
    let floods = args.only.as_ref().map_or(Flood::value_variants(), std::slice::from_ref);
    for &flood in floods {
        let (mut without, mut with, mut beginning) = (Vec::new(), Vec::new(), Vec::new());
        let (mut most, mut flooded, mut refused) = (0.0_f64, Duration::ZERO, 0);
        for _ in 0..options.rounds {
            without.extend(calm()?.ask(options.round())?);
            let mut client = calm()?;
            let flooding =
                Flooding::start(flood, if matches!(flood, Flood::Handshakes) { secure } else { listen })?;
            let times = client.ask(options.round())?;
            beginning.extend_from_slice(times.get(..BEGINNING).unwrap_or(&times));
            with.extend(times);
            refused += client.refused;
            most = most.max(process::rss_mib(proxy.id())?);
            flooded += flooding.end()?;
            // What it leaves behind is not the next round's.
            let ended = Instant::now();
            while process::descriptors(proxy.id())? > open + OTHERS {
                ensure!(ended.elapsed() < GONE_WITHIN, "the proxy keeps connections of a flood that is over");
                std::thread::sleep(Duration::from_millis(50));
            }
            std::thread::sleep(SETTLES);
        }
        let shed = 100.0 * refused as f64 / (refused + with.len()) as f64;
        let (without, with, beginning) = (p99(without), p99(with), p99(beginning));
        say(&format!(
            "{flood:?}: p99 of another client {without:.0} us without, {with:.0} us with ({beginning:.0} of the first {BEGINNING} requests); \
             ratio {:.2}; {shed:.1} % refused; {most:.1} MiB resident; the flood had {:.0} % of its processor",
            with / without,
            100.0 * flooded.as_secs_f64() / (options.round() * options.rounds).as_secs_f64(),
        ));
    }
    Ok(())
}

fn p99(mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    times.get(times.len() * 99 / 100).map_or(0.0, |time| time.as_secs_f64() * 1e6)
}

/// A client with one connection, on which it asks less often than a connection may.
struct Calm {
    stream: TcpStream,
    /// Requests that the proxy had no time for.
    refused: usize,
}

impl Calm {
    fn connect(address: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        Ok(Self { stream, refused: 0 })
    }

    /// How long its requests took that were served, from when they were due.
    fn ask(&mut self, time: Duration) -> anyhow::Result<Vec<Duration>> {
        let (mut took, mut heard) = (Vec::new(), [0; 4096]);
        let mut due = Instant::now();
        let until = due + time;
        while due < until {
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            self.stream.write_all(REQUEST)?;
            let mut length = 0;
            while !is_whole(&heard[..length]) {
                let count = self.stream.read(&mut heard[length..])?;
                ensure!(count > 0, "the proxy closed the calm client's connection");
                length += count;
            }
            if heard.starts_with(b"HTTP/1.1 503") {
                self.refused += 1;
            } else {
                ensure!(heard.starts_with(b"HTTP/1.1 200"), "the calm client was not served");
                took.push(due.elapsed());
            }
            due += EVERY;
        }
        Ok(took)
    }
}

/// Whether an answer has the length that it says.
fn is_whole(answer: &[u8]) -> bool {
    let Some(end) = answer.windows(4).position(|end| end == b"\r\n\r\n") else { return false };
    let head = String::from_utf8_lossy(&answer[..end]);
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
    length.is_some_and(|length| answer.len() >= end + 4 + length)
}

/// The process that floods.
struct Flooding(std::process::Child);

impl Flooding {
    fn start(flood: Flood, address: SocketAddr) -> anyhow::Result<Self> {
        let name = flood.to_possible_value().context("a flood without a name")?;
        let mut command = Command::new("chrt");
        command.args(["--idle", "0", "taskset", "-c", &HELPER_CORE.to_string()]);
        command.arg(std::env::current_exe()?).args(["flood", name.get_name(), &address.to_string()]);
        Ok(Self(command.stdin(Stdio::null()).spawn().context("chrt cannot be run")?))
    }

    /// The CPU time it had. It must not have ended by itself: then nothing was flooded.
    fn end(mut self) -> anyhow::Result<Duration> {
        ensure!(self.0.try_wait()?.is_none(), "the flood ended too early");
        process::cpu(self.0.id())
    }
}

impl Drop for Flooding {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Floods until it is ended.
pub(crate) fn flood(flood: Flood, address: SocketAddr) -> anyhow::Result<()> {
    Descriptors::take();
    match flood {
        Flood::SlowHeads => slow_heads(address),
        Flood::Handshakes => handshakes(address),
        Flood::RapidReset | Flood::Continuation | Flood::EmptyData => frames(flood, address),
    }
}

fn frames(flood: Flood, address: SocketAddr) -> anyhow::Result<()> {
    loop {
        let mut stream = TcpStream::connect(address)?;
        let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
        match flood {
            Flood::Continuation => frame(&mut bytes, 1, 1, 1, &head("GET")),
            Flood::EmptyData => frame(&mut bytes, 1, 4, 1, &head("POST")),
            _ => {}
        }
        for number in 0..FRAMES {
            let id = 2 * number + 1;
            match flood {
                Flood::RapidReset => {
                    frame(&mut bytes, 1, 5, id, &head("GET"));
                    frame(&mut bytes, 3, 0, id, &8_u32.to_be_bytes());
                }
                Flood::Continuation => frame(&mut bytes, 9, 0, 1, b"\0\x06x-more\x011"),
                _ => frame(&mut bytes, 0, 0, 1, b""),
            }
            if bytes.len() > WRITE {
                // It is closed long before all of it is written.
                if stream.write_all(&bytes).is_err() {
                    break;
                }
                bytes.clear();
            }
        }
    }
}

fn frame(bytes: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    bytes.extend(&length.to_be_bytes()[1..]);
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
}

/// Literal fields that nobody remembers.
fn head(method: &str) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in [(":method", method), (":scheme", "http"), (":authority", "h"), (":path", "/flood")]
    {
        block.push(0);
        for text in [name, value] {
            block.push(text.len() as u8);
            block.extend(text.as_bytes());
        }
    }
    block
}

fn slow_heads(address: SocketAddr) -> anyhow::Result<()> {
    let begin = || -> anyhow::Result<TcpStream> {
        let mut stream = TcpStream::connect(address)?;
        stream.write_all(b"GET /slow HTTP/1.1\r\nhost: h\r\nx-slow: ")?;
        Ok(stream)
    };
    let mut streams = (0..SLOW_CLIENTS).map(|_| begin()).collect::<Result<Vec<_>, _>>()?;
    loop {
        let began = Instant::now();
        for stream in &mut streams {
            // Who was told to go comes again.
            if stream.write_all(b"x").is_err() {
                *stream = begin()?;
            }
        }
        std::thread::sleep(Duration::from_secs(1).saturating_sub(began.elapsed()));
    }
}

fn handshakes(address: SocketAddr) -> anyhow::Result<()> {
    let mut hello = Vec::new();
    let stranger = client(&Authority::new("stranger"))?;
    ClientConnection::new(stranger, ServerName::IpAddress(address.ip().into()))?.write_tls(&mut hello)?;
    let begin = || -> anyhow::Result<TcpStream> {
        let mut stream = TcpStream::connect(address)?;
        // It leaves nothing behind that would hold its port.
        SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
        stream.write_all(&hello)?;
        Ok(stream)
    };
    loop {
        let mut streams = (0..HELLOS).map(|_| begin()).collect::<Result<Vec<_>, _>>()?;
        for stream in &mut streams {
            // Who is not answered is closed.
            let _ = stream.read(&mut [0; 4096]);
        }
    }
}
