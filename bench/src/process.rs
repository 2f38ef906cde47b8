//! Programs, each in a process of its own, pinned to its core.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

/// The core of the server under test.
pub(crate) const TESTED_CORE: u32 = 0;
/// The core of everything else.
pub(crate) const HELPER_CORE: u32 = 1;
const READY_WITHIN: Duration = Duration::from_secs(20);

/// A process that ends with this value.
#[derive(Debug)]
pub(crate) struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to kill.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Running {
    pub(crate) fn start(program: &Path, core: u32, arguments: &[String]) -> anyhow::Result<Self> {
        let mut command = Command::new("taskset");
        command.args(["-c", &core.to_string()]).arg(program).args(arguments).stdout(Stdio::null());
        let child = command.spawn().with_context(|| format!("{} does not start", program.display()))?;
        Ok(Self(child))
    }

    /// Starts one that prints the address it listens on.
    pub(crate) fn start_and_hear_address(
        program: &Path,
        core: u32,
        arguments: &[String],
    ) -> anyhow::Result<(Self, SocketAddr)> {
        let mut command = Command::new("taskset");
        command.args(["-c", &core.to_string()]).arg(program).args(arguments).stdout(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("{} does not start", program.display()))?;
        let words = child.stdout.take().context("its words were not asked for")?;
        let running = Self(child);
        let mut line = String::new();
        BufReader::new(words).read_line(&mut line)?;
        let address =
            line.trim().parse().with_context(|| format!("{} printed {line:?}", program.display()))?;
        Ok((running, address))
    }

    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }
}

/// A proxy under callgrind, which counts what it executes.
#[derive(Debug)]
pub(crate) struct Callgrind(Running);

impl Callgrind {
    pub(crate) fn start(arguments: &[String], proxy: &Path, config: &Path) -> anyhow::Result<Self> {
        let child = Command::new("valgrind")
            .arg("--tool=callgrind")
            .args(arguments)
            .arg(proxy)
            .args(["--config".as_ref(), config.as_os_str()])
            .spawn()
            .context("valgrind cannot be run; on Debian: apt-get install -y valgrind")?;
        Ok(Self(Running(child)))
    }

    /// Ends it so that it writes what it counted.
    pub(crate) fn end(mut self) -> anyhow::Result<()> {
        Command::new("kill").arg(self.0.id().to_string()).status()?;
        self.0.0.wait()?;
        Ok(())
    }
}

/// CPU time of all threads of a process so far.
pub(crate) fn cpu(pid: u32) -> anyhow::Result<Duration> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).context("the process under test is gone")?;
    let of_thread = |thread: fs::DirEntry| {
        let text = fs::read_to_string(thread.path().join("schedstat")).unwrap_or_default();
        let nanos = text.split_whitespace().next().and_then(|nanos| nanos.parse().ok());
        nanos.map_or(Duration::ZERO, Duration::from_nanos)
    };
    Ok(tasks.flatten().map(of_thread).sum())
}

/// File descriptors that a process has open.
pub(crate) fn descriptors(pid: u32) -> anyhow::Result<usize> {
    Ok(fs::read_dir(format!("/proc/{pid}/fd")).context("the process under test is gone")?.count())
}

/// Resident memory of a process.
pub(crate) fn rss_mib(pid: u32) -> anyhow::Result<f64> {
    let status =
        fs::read_to_string(format!("/proc/{pid}/status")).context("the process under test is gone")?;
    let kib = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|rest| rest.split_whitespace().next()?.parse::<f64>().ok())
        .context("no VmRSS")?;
    Ok(kib / 1024.0)
}

/// Binds all threads of a process to one core.
pub(crate) fn pin(pid: u32, core: u32) -> anyhow::Result<()> {
    let status = Command::new("taskset")
        .args(["-a", "-c", "-p", &core.to_string(), &pid.to_string()])
        .stdout(Stdio::null())
        .status()
        .context("taskset (util-linux) cannot be run")?;
    if !status.success() {
        bail!("process {pid} cannot be pinned to core {core}; the benchmark needs two cores");
    }
    Ok(())
}

/// Until something listens there.
pub(crate) fn wait_for(address: SocketAddr) -> anyhow::Result<()> {
    wait_for_within(address, READY_WITHIN)
}

/// As [`wait_for`], for as long as this.
pub(crate) fn wait_for_within(address: SocketAddr, limit: Duration) -> anyhow::Result<()> {
    let started = Instant::now();
    while TcpStream::connect(address).is_err() {
        if started.elapsed() > limit {
            bail!("nothing listens on {address}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Ports that were free a moment ago, all different.
pub(crate) fn free_addresses<const N: usize>() -> anyhow::Result<[SocketAddr; N]> {
    let held: Vec<TcpListener> =
        (0..N).map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).collect::<Result<_, _>>()?;
    let mut addresses = [SocketAddr::from((Ipv4Addr::LOCALHOST, 0)); N];
    for (address, listener) in addresses.iter_mut().zip(&held) {
        *address = listener.local_addr()?;
    }
    Ok(addresses)
}
