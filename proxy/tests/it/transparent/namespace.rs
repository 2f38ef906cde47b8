//! Network namespaces without names: each lives as long as a process that waits for its standard input to end, which it
//! does however the test ends. Nothing outside them is touched.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::process::{Child, Command, Output, Stdio};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::runtime::Handle;

/// What a machine must have for these tests.
const NEEDS: &str = "these tests make network namespaces of their own, with redirect rules in them: they need the packages \
    iptables, iproute2 and util-linux (`tools/test-dependencies` installs them), and root with the capabilities SYS_ADMIN and \
    NET_ADMIN, or a user who may make user namespaces and has further ids for them (package uidmap, /etc/subuid)";

/// Makes whoever runs the tests root of a user namespace, with further ids.
const AS_ROOT: [&str; 4] = ["--user", "--map-root-user", "--map-auto", "--net"];

/// Whether the test `name` of this file's module is run by this call: in a user namespace, where namespaces cannot be made
/// without. A machine that lets nobody make any fails it.
pub(super) fn runs_as_root_of_its_own(name: &str) -> bool {
    let can = |args: &[&str]| {
        Command::new("unshare").args(args).arg("true").output().is_ok_and(|it| it.status.success())
    };
    if can(&["--net"]) {
        return false;
    }
    assert!(can(&AS_ROOT), "{NEEDS}");
    let mut again = Command::new("unshare");
    again.args(AS_ROOT).arg("--").arg(std::env::current_exe().unwrap());
    let ended = again.args(["--exact", &format!("transparent::{name}"), "--nocapture"]).status().unwrap();
    assert!(ended.success(), "{name} failed as root of a user namespace");
    true
}

/// A network namespace.
#[derive(Debug)]
pub(super) struct Namespace {
    holder: Child,
}

impl Namespace {
    pub(super) fn new() -> Self {
        let mut command = Command::new("unshare");
        command.args(["--net", "cat"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let holder = command.spawn().unwrap_or_else(|error| panic!("no `unshare`: {error}; {NEEDS}"));
        let mut namespace = Self { holder };
        // What is said back is said from inside.
        let (stdin, stdout) =
            (namespace.holder.stdin.as_mut().unwrap(), namespace.holder.stdout.as_mut().unwrap());
        let heard = stdin.write_all(b"!").and_then(|()| stdout.read_exact(&mut [0]));
        assert!(heard.is_ok(), "no network namespace can be made; {NEEDS}");
        namespace.run("ip link set lo up");
        namespace
    }

    fn path(&self) -> String {
        format!("/proc/{}/ns/net", self.holder.id())
    }

    /// The process whose namespace it is.
    pub(super) fn id(&self) -> u32 {
        self.holder.id()
    }

    /// A program that will run inside, as `user`.
    pub(super) fn command_as(&self, user: u32, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path())).arg("setpriv");
        command.args([format!("--reuid={user}"), format!("--regid={user}"), "--clear-groups".to_owned()]);
        command.arg("--").arg(program);
        command
    }

    /// Runs a program inside, as root; what it did is the caller's to judge.
    pub(super) fn output(&self, program: &str, args: &[&str]) -> Output {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path())).arg(program).args(args);
        command.output().unwrap_or_else(|error| panic!("no `nsenter`: {error}; {NEEDS}"))
    }

    /// Runs a line inside, as root; its words have no spaces.
    pub(super) fn run(&self, line: &str) -> String {
        let mut words = line.split(' ');
        let program = words.next().unwrap();
        let output = self.output(program, &words.collect::<Vec<_>>());
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "`{line}`: {said}\n{NEEDS}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Does something inside: sockets that are made meanwhile belong there for good.
    pub(super) fn within<T: Send>(&self, doing: impl Future<Output = T> + Send) -> T {
        let (handle, path) = (Handle::current(), self.path());
        std::thread::scope(|scope| {
            let inside = scope.spawn(move || {
                let namespace = File::open(path).unwrap();
                move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
                handle.block_on(doing)
            });
            inside.join().unwrap()
        })
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}
