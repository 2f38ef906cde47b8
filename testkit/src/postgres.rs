//! A real PostgreSQL server of a test's own: free port, private folder, gone when dropped.

use std::ffi::OsStr;
use std::fs::Permissions;
use std::net::SocketAddr;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::authority::Authority;
use crate::ports::free_address;

/// How long a server may take to let somebody in.
const START_DEADLINE: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// The user that the server runs as where the test runs as root, which the server refuses.
const SERVER_USER: &str = "postgres";
/// Where Debian and its kin keep the programs that are not on the PATH.
const DEBIAN: &str = "/usr/lib/postgresql";

/// A running PostgreSQL server.
#[derive(Debug)]
pub struct PostgresServer {
    process: Option<Child>,
    address: SocketAddr,
    folder: TempDir,
    user: Option<(u32, u32)>,
    /// It takes nobody in plaintext; clients know it by this name, to the roots in this file.
    tls: Option<(String, PathBuf)>,
}

impl PostgresServer {
    /// Starts one and waits until it lets clients in.
    ///
    /// # Panics
    /// Where PostgreSQL is not installed, or does not start: the test cannot say anything then.
    pub fn start() -> Self {
        let mut server = Self::initialised();
        server.restart();
        server
    }

    /// One that speaks TLS alone, with a certificate for `name`, by which this machine must be found.
    ///
    /// # Panics
    /// As [`Self::start`].
    pub fn start_with_tls(authority: &Authority, name: &str) -> Self {
        let mut server = Self::initialised();
        let signed = authority.named(&[name]);
        let root = server.folder.path().join("root.crt");
        std::fs::write(&root, authority.root_pem()).expect("the folder is writable");
        for (file, text) in [
            ("server.crt", &*signed.certificate_pem),
            ("server.key", &signed.key_pem),
            ("pg_hba.conf", "hostssl all all 127.0.0.1/32 trust\n"),
        ] {
            let file = server.data().join(file);
            std::fs::write(&file, text).expect("the folder is writable");
            std::fs::set_permissions(&file, Permissions::from_mode(0o600)).expect("it is ours");
            if let Some((uid, gid)) = server.user {
                chown(&file, Some(uid), Some(gid)).expect("root may give a file away");
            }
        }
        server.tls = Some((name.to_owned(), root));
        server.restart();
        server
    }

    fn initialised() -> Self {
        let folder = tempfile::Builder::new()
            .prefix("tollgate-postgres-")
            .tempdir()
            .expect("a temporary folder can be made");
        let user = server_user(folder.path());
        if let Some((uid, gid)) = user {
            chown(folder.path(), Some(uid), Some(gid)).expect("root may give a folder away");
        }
        let server = Self { process: None, address: free_address(), folder, user, tls: None };
        server.initialise();
        server
    }

    /// `postgres://…` of a database that exists from the beginning.
    pub fn url(&self) -> String {
        self.url_of("postgres")
    }

    /// Makes an empty database; answers its URL.
    ///
    /// # Panics
    /// Where the server refuses.
    pub fn create_database(&self, name: &str) -> String {
        let output = self
            .program("psql")
            .args(["--no-psqlrc", "--quiet", "--dbname", &self.url(), "--command"])
            .arg(format!("CREATE DATABASE \"{name}\""))
            .output();
        let output = output.expect("psql is installed beside the server");
        assert!(output.status.success(), "cannot create {name}: {}", String::from_utf8_lossy(&output.stderr));
        self.url_of(name)
    }

    /// Ends the server at once, as a crash would (SIGKILL).
    pub fn kill(&mut self) {
        self.end("-KILL");
    }

    /// Starts it again with what it had.
    ///
    /// # Panics
    /// As [`Self::start`].
    pub fn restart(&mut self) {
        self.kill();
        let child = self
            .program("postgres")
            .arg("-D")
            .arg(self.data())
            .args(["-h", "127.0.0.1", "-p", &self.address.port().to_string(), "-k", ""])
            // Tests kill processes, not machines; waiting for the disk would only make them slow.
            .args(["-c", "fsync=off"])
            .args(["-c", if self.tls.is_some() { "ssl=on" } else { "ssl=off" }])
            .spawn();
        self.process = Some(child.expect("postgres was found when the server was initialised"));
        let deadline = Instant::now() + START_DEADLINE;
        while !self.answers() {
            assert!(Instant::now() < deadline, "postgres let nobody in on {} in time", self.address);
            std::thread::sleep(LOOK_EVERY);
        }
    }

    fn initialise(&self) {
        let made = self
            .program("initdb")
            .args(["--auth", "trust", "--username", "postgres", "--no-sync", "--encoding", "UTF8", "-D"])
            .arg(self.data())
            .status();
        match made {
            Ok(status) => assert!(status.success(), "initdb failed with {status}"),
            Err(error) => panic!(
                "this test needs PostgreSQL's initdb ({error}); install it, on Debian: apt-get install -y postgresql"
            ),
        }
    }

    fn answers(&self) -> bool {
        let tried = self
            .program("psql")
            .args(["--no-psqlrc", "--quiet", "--dbname", &self.url(), "--command", "SELECT 1"])
            .status();
        tried.is_ok_and(|status| status.success())
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn url_of(&self, database: &str) -> String {
        match &self.tls {
            None => format!("postgres://postgres@{}/{database}?sslmode=disable", self.address),
            Some((name, root)) => {
                let (port, root) = (self.address.port(), root.display());
                format!("postgres://postgres@{name}:{port}/{database}?sslmode=verify-full&sslrootcert={root}")
            }
        }
    }

    /// A program of PostgreSQL's, as the right user and without a voice.
    fn program(&self, name: &str) -> Command {
        let mut command = Command::new(find(name));
        command
            .current_dir(self.folder.path())
            // Where a client would look for a certificate of its own.
            .env("HOME", self.folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        if let Some((uid, gid)) = self.user {
            command.uid(uid).gid(gid);
        }
        command
    }

    fn end(&mut self, signal: &str) {
        if let Some(mut process) = self.process.take() {
            // It may have ended by itself; then there is nothing to end.
            let _ = Command::new("kill").args([signal, &process.id().to_string()]).status();
            let _ = process.wait();
        }
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        // The immediate shutdown: unlike SIGKILL it takes the server's own children along.
        self.end("-QUIT");
    }
}

/// The user that the server must run as, where that is another than ours. Files that we make are ours.
fn server_user(ours: &Path) -> Option<(u32, u32)> {
    use std::os::unix::fs::MetadataExt as _;

    if std::fs::metadata(ours).map(|folder| folder.uid()).unwrap_or_default() != 0 {
        return None;
    }
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let fields = users.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let server = fields.into_iter().find(|fields| fields.first() == Some(&SERVER_USER));
    let ids = server.and_then(|fields| Some((fields.get(2)?.parse().ok()?, fields.get(3)?.parse().ok()?)));
    assert!(ids.is_some(), "root cannot run postgres, and there is no user `{SERVER_USER}` to run it as");
    ids
}

fn find(name: &str) -> PathBuf {
    #[expect(clippy::disallowed_methods, reason = "this looks for a program, as a shell does")]
    let path = std::env::var_os("PATH").unwrap_or_default();
    let versions =
        std::fs::read_dir(DEBIAN).into_iter().flatten().flatten().map(|entry| entry.path().join("bin"));
    let found = std::env::split_paths(&path)
        .chain(versions)
        .map(|folder| folder.join(name))
        .find(|file| file.is_file());
    found.unwrap_or_else(|| PathBuf::from(OsStr::new(name)))
}
