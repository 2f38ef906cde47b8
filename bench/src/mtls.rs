//! What mTLS costs a request on a connection that is kept: one proxy, one upstream, a plaintext listener and a strict one.
//!
//! Both listeners are the same proxy process, so all else is equal. Handshakes are done before anything is measured. Both
//! sides get the same requests a second: a proxy with less to do is woken for fewer requests at a time, and each costs more.
//! Every request leaves its access record, as it always does.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use futures_util::future::try_join_all;
use rustls::ClientConfig;
use serde_json::json;
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tollgate_identity::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tollgate_identity::tls::{self, MinimumVersion};
use tollgate_identity::{Credential, Identity, Material, TrustBundles, provider};
use tollgate_runtime::clock::Clock;
use tollgate_testkit::authority::Authority;

use crate::chain::upstream;
use crate::process::{self, HELPER_CORE, Running, TESTED_CORE};
use crate::{Options, collector, say};

const PROXY: &str = "spiffe://bench.example/ns/bench/sa/proxy";
const CLIENT: &str = "spiffe://bench.example/ns/bench/sa/client";
/// Enough for the proxy to be the one that is waited for.
const CONNECTIONS: usize = 32;
const WARM: Duration = Duration::from_secs(2);
/// From one request on a connection to the next: 8,000 requests a second together, which leave the load's core idle at times.
const EVERY: Duration = Duration::from_millis(4);
/// A token of a usual length; nobody looks into it here.
const TOKEN_BYTES: usize = 700;
/// An answer's head is shorter.
const MAX_HEAD: usize = 4096;

/// Measures and prints.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    process::pin(std::process::id(), HELPER_CORE)?;
    let upstream = upstream::start()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(measure(options, upstream))
}

async fn measure(options: &Options, upstream: SocketAddr) -> anyhow::Result<()> {
    let (authority, folder) = (Authority::new("bench"), TempDir::new()?);
    let collector = collector::start()?;
    let [plain, strict] = process::free_addresses()?;
    let config = config(&authority, folder.path(), collector, upstream, [plain, strict])?;
    let file = folder.path().join("proxy.yaml");
    std::fs::write(&file, config.to_string())?;
    let arguments = ["--config".to_owned(), file.display().to_string()];
    let proxy = Running::start(&options.binaries.join("tollgate-proxy"), TESTED_CORE, &arguments)?;
    process::wait_for(plain)?;
    process::wait_for(strict)?;

    let tls = client(&authority)?;
    let mut in_plaintext = Vec::new();
    let mut over_mtls = Vec::new();
    for _ in 0..CONNECTIONS {
        let stream = TcpStream::connect(plain).await?;
        stream.set_nodelay(true)?;
        in_plaintext.push(stream);
        over_mtls.push(tls::connect(Arc::clone(&tls), &strict.to_string()).await.context("no handshake")?);
    }
    let request = request();
    round(&mut in_plaintext, &request, WARM, proxy.id()).await.context("warm-up in plaintext")?;
    round(&mut over_mtls, &request, WARM, proxy.id()).await.context("warm-up over mTLS")?;
    let (mut of_plaintext, mut of_mtls) = (Vec::new(), Vec::new());
    for number in 1..=options.rounds {
        let without = round(&mut in_plaintext, &request, options.round(), proxy.id()).await?;
        let with = round(&mut over_mtls, &request, options.round(), proxy.id()).await?;
        say(&format!(
            "round {number}   plaintext {:>7.0}/s {:>6.1} us   mTLS {:>7.0}/s {:>6.1} us   ratio {:.3}",
            without.per_second,
            without.cpu_us,
            with.per_second,
            with.cpu_us,
            with.cpu_us / without.cpu_us
        ));
        of_plaintext.push(without.cpu_us);
        of_mtls.push(with.cpu_us);
    }
    let (without, with) = (median(of_plaintext), median(of_mtls));
    say(&format!(
        "\nmedian of {} interleaved rounds of {} s, {CONNECTIONS} kept connections a side\n\
         \x20 CPU of the proxy a request: plaintext {without:.1} us, mTLS {with:.1} us; ratio {:.3} (mTLS : plaintext)",
        options.rounds,
        options.seconds,
        with / without
    ));
    Ok(())
}

fn config(
    authority: &Authority,
    folder: &Path,
    collector: SocketAddr,
    upstream: SocketAddr,
    [plain, strict]: [SocketAddr; 2],
) -> anyhow::Result<serde_json::Value> {
    Ok(json!({
        "process": {"listen": null},
        "telemetry": {"endpoint": format!("http://{collector}"), "log": "warn"},
        "identity": identity_files(authority, folder)?,
        "listeners": [
            {"name": "plain", "bind": plain, "role": "sidecar"},
            {"name": "strict", "bind": strict, "role": "sidecar", "mtls": "strict"},
        ],
        "routes": [{"name": "all", "matches": [{}], "authz": "off", "backends": [{"cluster": "app"}]}],
        "clusters": [{"name": "app", "endpoints": {"static": [upstream]}}],
    }))
}

/// The proxy's identity, in files, and the section that reads them.
pub(crate) fn identity_files(authority: &Authority, folder: &Path) -> anyhow::Result<serde_json::Value> {
    let signed = authority.workload(PROXY);
    let (certificate, key, bundle) = (folder.join("tls.crt"), folder.join("tls.key"), folder.join("ca.crt"));
    std::fs::write(&certificate, &signed.certificate_pem)?;
    std::fs::write(&key, &signed.key_pem)?;
    std::fs::write(&bundle, authority.root_pem())?;
    Ok(json!({"files": {"certificate": certificate, "key": key, "bundle": bundle}}))
}

/// A workload of the same trust domain.
pub(crate) fn client(authority: &Authority) -> anyhow::Result<Arc<ClientConfig>> {
    let shown = authority.workload(CLIENT);
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(shown.key));
    let credential = Credential::new(vec![shown.certificate.into()], key, &provider())?;
    let roots = vec![authority.root_der().into()];
    let bundles = TrustBundles::default().with(credential.leaf.id.trust_domain().clone(), roots)?;
    let identity = Identity::fixed(Material { credential, bundles }, Clock::system());
    Ok(tls::client_config(&identity, vec![PROXY.parse()?], MinimumVersion::Tls13, Vec::new())?)
}

fn request() -> Vec<u8> {
    format!(
        "GET /policies/POL-1042 HTTP/1.1\r\nhost: policies.insurance\r\nuser-agent: bench\r\naccept: */*\r\n\
         authorization: Bearer {}\r\n\r\n",
        "x".repeat(TOKEN_BYTES)
    )
    .into_bytes()
}

struct Sample {
    per_second: f64,
    cpu_us: f64,
}

/// Sends requests on all connections for a while, one after the other on each.
async fn round<S>(streams: &mut [S], request: &[u8], lasts: Duration, proxy: u32) -> anyhow::Result<Sample>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (began, before) = (Instant::now(), process::cpu(proxy)?);
    let until = began + lasts;
    let counts = try_join_all(streams.iter_mut().zip(0_u32..).map(|(stream, number)| async move {
        let (mut count, mut heard) = (0_u32, Vec::with_capacity(MAX_HEAD));
        // Not all at the same moment.
        let first = began + EVERY * number / CONNECTIONS as u32;
        loop {
            let next = first + EVERY * count;
            tokio::time::sleep_until(next.into()).await;
            if next >= until {
                break;
            }
            stream.write_all(request).await?;
            stream.flush().await?;
            answer(stream, &mut heard).await?;
            count += 1;
        }
        anyhow::Ok(count)
    }))
    .await?;
    let (took, spent) = (began.elapsed(), process::cpu(proxy)? - before);
    let count = f64::from(counts.iter().sum::<u32>());
    Ok(Sample { per_second: count / took.as_secs_f64(), cpu_us: spent.as_secs_f64() * 1e6 / count })
}

/// Reads one answer, which must be a 200 of a known length.
async fn answer<S: AsyncRead + Unpin>(stream: &mut S, heard: &mut Vec<u8>) -> anyhow::Result<()> {
    heard.clear();
    loop {
        if stream.read_buf(heard).await? == 0 {
            bail!("the proxy closed a connection");
        }
        let Some(end) = heard.windows(4).position(|bytes| bytes == b"\r\n\r\n") else {
            anyhow::ensure!(heard.len() < MAX_HEAD, "an answer without an end to its head");
            continue;
        };
        let head = std::str::from_utf8(&heard[..end])?;
        anyhow::ensure!(head.starts_with("HTTP/1.1 200 "), "the proxy answered {head}");
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let length: usize = length.context("an answer without a length")?.trim().parse()?;
        while heard.len() < end + 4 + length {
            anyhow::ensure!(stream.read_buf(heard).await? > 0, "an answer broke off");
        }
        return Ok(());
    }
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}
