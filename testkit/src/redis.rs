//! A real Redis server of a test's own: free port, private folder, gone when dropped.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::authority::Authority;
use crate::ports::free_address;

/// How long a server may take to answer its first PING.
const START_DEADLINE: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// Of a Cluster.
const SLOTS: usize = 16_384;

/// A running Redis server.
#[derive(Debug)]
pub struct RedisServer {
    process: Option<Child>,
    address: SocketAddr,
    folder: TempDir,
    args: Vec<String>,
    scheme: &'static str,
}

impl RedisServer {
    /// Starts one and waits until it answers.
    ///
    /// # Panics
    /// Where `redis-server` is not installed, or does not start: the test cannot say anything then.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// As [`Self::start`], with further arguments.
    ///
    /// # Panics
    /// As [`Self::start`].
    pub fn start_with(args: &[&str]) -> Self {
        let args = args.iter().map(|arg| (*arg).to_owned()).collect();
        let folder = TempDir::new().expect("a temporary folder can be made");
        Self::begin(Self { process: None, address: free_address(), folder, args, scheme: "redis" })
    }

    /// One that speaks TLS alone, with this certificate, and takes none of its clients.
    ///
    /// # Panics
    /// As [`Self::start`].
    pub fn start_with_tls(authority: &Authority) -> Self {
        let folder = TempDir::new().expect("a temporary folder can be made");
        let address = free_address();
        let signed = authority.server(&[address.ip()]);
        let mut args = vec![
            "--tls-port".to_owned(),
            address.port().to_string(),
            "--tls-auth-clients".to_owned(),
            "no".to_owned(),
        ];
        for (name, pem) in [
            ("tls-cert-file", &signed.certificate_pem),
            ("tls-key-file", &signed.key_pem),
            ("tls-ca-cert-file", &authority.root_pem()),
        ] {
            let file = folder.path().join(name);
            std::fs::write(&file, pem).expect("the folder is writable");
            args.extend([format!("--{name}"), file.display().to_string()]);
        }
        Self::begin(Self { process: None, address, folder, args, scheme: "rediss" })
    }

    /// A Sentinel that watches `master` by the name `tests`.
    ///
    /// # Panics
    /// As [`Self::start`].
    pub fn start_sentinel(master: &Self) -> Self {
        let folder = TempDir::new().expect("a temporary folder can be made");
        let file = folder.path().join("sentinel.conf");
        let (ip, port) = (master.address.ip(), master.address.port());
        std::fs::write(&file, format!("sentinel monitor tests {ip} {port} 1\n"))
            .expect("the folder is writable");
        let args = vec![file.display().to_string(), "--sentinel".to_owned()];
        Self::begin(Self { process: None, address: free_address(), folder, args, scheme: "redis" })
    }

    /// The masters of a Cluster, each with its part of the slots, the first with the lowest. What is left of it when some
    /// are away goes on.
    ///
    /// # Panics
    /// As [`Self::start`].
    pub fn start_cluster(masters: usize) -> Vec<Self> {
        let share = SLOTS.div_ceil(masters);
        let cluster: Vec<_> = (0..masters)
            .map(|number| {
                let server = Self::start_cluster_node();
                let (first, last) = (number * share, SLOTS.min((number + 1) * share) - 1);
                server.say(&format!("CLUSTER ADDSLOTSRANGE {first} {last}"), "+OK");
                server.say(&format!("CLUSTER SET-CONFIG-EPOCH {}", number + 1), "+OK");
                server
            })
            .collect();
        if let Some((first, others)) = cluster.split_first() {
            others.iter().for_each(|other| other.meet(first));
        }
        let all = format!("cluster_slots_ok:{SLOTS}\r");
        cluster.iter().for_each(|server| server.say_until("CLUSTER INFO", &all));
        cluster
    }

    /// A replica of a master of a Cluster.
    ///
    /// # Panics
    /// As [`Self::start`].
    pub fn start_cluster_replica(master: &Self) -> Self {
        let replica = Self::start_cluster_node();
        replica.meet(master);
        let id = master.hear("CLUSTER MYID").unwrap_or_default();
        let id = id.lines().nth(1).expect("a node of a Cluster knows its name");
        replica.say_until(&format!("CLUSTER REPLICATE {id}"), "+OK");
        replica.say_until("INFO replication", "master_link_status:up");
        replica
    }

    fn start_cluster_node() -> Self {
        let bus = free_address().port().to_string();
        Self::start_with(&[
            "--cluster-enabled",
            "yes",
            "--cluster-require-full-coverage",
            "no",
            // Nobody takes over from one that hangs until told to.
            "--cluster-node-timeout",
            "600000",
            "--repl-diskless-sync-delay",
            "0",
            "--cluster-port",
            &bus,
        ])
    }

    fn meet(&self, other: &Self) {
        let (ip, port) = (other.address.ip(), other.address.port());
        let bus = other.args.last().expect("a node of a Cluster was started with its bus");
        self.say(&format!("CLUSTER MEET {ip} {port} {bus}"), "+OK");
    }

    /// Says a command, whose answer must have this in it.
    ///
    /// # Panics
    /// Where it has not.
    pub fn say(&self, command: &str, expected: &str) {
        let answer = self.hear(command);
        assert!(
            answer.as_ref().is_ok_and(|answer| answer.contains(expected)),
            "{command} was answered by {answer:?}, not {expected}"
        );
    }

    /// Says a command until its answer has this in it.
    ///
    /// # Panics
    /// Where it never has.
    pub fn say_until(&self, command: &str, expected: &str) {
        let deadline = Instant::now() + START_DEADLINE;
        while !self.hear(command).is_ok_and(|answer| answer.contains(expected)) {
            assert!(Instant::now() < deadline, "{command} was not answered by {expected} in time");
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// The whole answer to a command, as it comes.
    fn hear(&self, command: &str) -> io::Result<String> {
        let mut stream = TcpStream::connect(self.address)?;
        stream.set_read_timeout(Some(START_DEADLINE))?;
        stream.write_all(format!("{command}\r\nQUIT\r\n").as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        // The last word is about the goodbye.
        Ok(answer.strip_suffix("+OK\r\n").unwrap_or_default().to_owned())
    }

    fn begin(mut server: Self) -> Self {
        server.restart();
        server
    }

    /// `redis://127.0.0.1:PORT`, `rediss://` with TLS.
    pub fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.address)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The folder of its own, for files a test needs.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Ends the server at once, as a crash would (SIGKILL).
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            // It may have ended by itself; then there is nothing to kill.
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// Lets it hang: connections stay open and nothing is answered, until [`Self::resume`].
    pub fn pause(&self) {
        self.signal("-STOP");
    }

    /// Ends a [`Self::pause`].
    pub fn resume(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let process = self.process.as_ref().expect("the server was not killed before");
        let sent = Command::new("kill").args([signal, &process.id().to_string()]).status();
        assert!(sent.is_ok_and(|status| status.success()), "redis-server took no {signal}");
    }

    /// Starts it again, empty, on the same port.
    ///
    /// # Panics
    /// As [`Self::start`].
    pub fn restart(&mut self) {
        self.kill();
        let plain_port = if self.scheme == "rediss" { 0 } else { self.address.port() };
        let mut command = Command::new("redis-server");
        // A Sentinel's file comes first, and it takes no settings of stores.
        if self.args.iter().any(|arg| arg == "--sentinel") {
            command.args(&self.args).args(["--bind", "127.0.0.1"]).args(["--port", &plain_port.to_string()]);
        } else {
            command
                .args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--daemonize", "no"])
                .args(["--port", &plain_port.to_string()])
                .args(&self.args);
        }
        let child =
            command.arg("--dir").arg(self.folder.path()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        match child {
            Ok(child) => self.process = Some(child),
            Err(error) => panic!(
                "this test needs redis-server on the PATH ({error}); install it, on Debian: apt-get install -y redis-server"
            ),
        }
        let deadline = Instant::now() + START_DEADLINE;
        while !self.answers() {
            assert!(Instant::now() < deadline, "redis-server did not answer on {} in time", self.address);
            std::thread::sleep(LOOK_EVERY);
        }
    }

    fn answers(&self) -> bool {
        let mut answer = [0; 7];
        let Ok(mut stream) = TcpStream::connect(self.address) else { return false };
        if self.scheme == "rediss" {
            return true;
        }
        stream
            .set_read_timeout(Some(Duration::from_secs(1)))
            .and_then(|()| stream.write_all(b"PING\r\n"))
            .and_then(|()| stream.read_exact(&mut answer))
            // One that asks for a password is up as well.
            .is_ok_and(|()| &answer == b"+PONG\r\n" || answer.starts_with(b"-NOAUTH"))
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
    }
}
