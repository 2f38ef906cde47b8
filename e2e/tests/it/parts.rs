//! The binaries as processes of their own.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tollgate_e2e::eventually;

/// A binary of the workspace, which `make test` builds before it runs the tests.
fn binary(name: &str) -> PathBuf {
    let mut folder = std::env::current_exe().unwrap();
    folder.pop();
    if folder.ends_with("deps") {
        folder.pop();
    }
    let binary = folder.join(name);
    assert!(binary.exists(), "{} is not built; run `cargo build --workspace --bins` first", binary.display());
    binary
}

/// One running binary, ended when dropped.
pub(crate) struct Part {
    child: Child,
    command: Command,
}

impl Part {
    /// Starts `tollgate-BINARY` with the example configuration of `config/NAME.yaml` and these overrides.
    pub(crate) fn start(binary_name: &str, name: &str, sets: &[String]) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let mut command = Command::new(binary(&format!("tollgate-{binary_name}")));
        command.current_dir(&root).args([
            "--config",
            &format!("config/{name}.yaml"),
            "--set",
            "process.listen=null",
        ]);
        for set in sets {
            command.args(["--set", set]);
        }
        command.stdout(Stdio::null()).stderr(Stdio::null());
        Self { child: command.spawn().unwrap(), command }
    }

    /// As the kernel's out-of-memory killer would.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again with the same arguments.
    pub(crate) fn restart(&mut self) {
        self.child = self.command.spawn().unwrap();
    }
}

impl Part {
    /// Its resident memory.
    pub(crate) fn rss_mib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.split_whitespace().next().unwrap().parse::<u64>().unwrap() / 1024
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to kill.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until somebody accepts there.
pub(crate) async fn listening(address: SocketAddr) {
    eventually("the part listens", async || tokio::net::TcpStream::connect(address).await.is_ok()).await;
}
