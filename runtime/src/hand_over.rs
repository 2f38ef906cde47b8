//! One process takes over from another without a moment in which nobody serves.
//!
//! ```text
//! the old one                                    the new one
//! SIGUSR2: starts its executable anew,
//!          with all its sockets           -->    reads its configuration, takes the sockets, builds
//!                                      <ready--  as soon as nothing blocks its readiness
//!                                        --go>   accepts
//!                                     <serving-- accepts
//! closes its sockets, finishes what it
//! has accepted, ends
//! ```
//!
//! Until `go` the new one has accepted nothing, so it can be ended without harm: when it fails, ends, or is not ready in
//! time, the old one goes on. The sockets are the same ones in both, so that what waits in their queues is accepted by
//! whoever is there.
//!
//! Whatever goes wrong between them, one process serves and the other ends:
//!
//! | what | then |
//! |---|---|
//! | the new one does not say `serving` in time after `go` | it is killed, the old one goes on |
//! | the new one is told to stop before `go` | it never accepts and closes the channel, the old one goes on |
//! | the old one stands still, before or after `go` | the new one waits; or serves alone, until the old one finds `serving` and ends |
//! | the old one is gone | the channel ends, the new one serves |
//! | the old one is told to stop before it found `serving` | it kills the new one, finishes what it has, and ends: nobody is to serve |

use std::ffi::OsString;
use std::io;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::PathBuf;
use std::process::{Command, ExitStatus};
use std::sync::Arc;
use std::time::Duration;

use command_fds::{CommandFdExt as _, FdMapping};
use parking_lot::Mutex;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::process::Child;
use tokio_util::sync::CancellationToken;

use crate::Service;
use crate::sockets::{HAND_OVER, Offer};

/// The first descriptor that a new process finds.
const FIRST: i32 = 3;
/// How long a new process may take from `go` to its first accepting, and a failed one to end.
const PROMPT: Duration = Duration::from_secs(10);
/// What one line between the two may be.
const READY: &str = "ready";
const GO: &str = "go";
const SERVING: &str = "serving";
const FAILED: &str = "failed: ";

/// Why a process goes on itself.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HandOverError {
    #[error("the sockets cannot be passed on")]
    Sockets(#[source] io::Error),
    #[error("{} cannot be started", path.display())]
    Start { path: PathBuf, source: io::Error },
    #[error("the new process failed: {0}")]
    Failed(String),
    #[error("the new process ended before it was ready: {0}")]
    Ended(ExitStatus),
    #[error("the new process was not ready within {0:?} (`process.hand_over_timeout`)")]
    Late(Duration),
    #[error("the new process did not accept within {:?}, though it was ready and told to", PROMPT)]
    Stalled,
    #[error("the new process gave up, and did not end within {:?}", PROMPT)]
    Lingers,
    #[error("the new process does not answer")]
    Channel(#[source] io::Error),
}

/// How this process was started.
#[derive(Debug)]
pub(crate) struct Program {
    called: OsString,
    /// Where its executable was then.
    executable: Option<PathBuf>,
    arguments: Vec<OsString>,
}

impl Program {
    pub(crate) fn of_process() -> Self {
        let mut words = std::env::args_os();
        let called = words.next().unwrap_or_default();
        Self { called, executable: std::env::current_exe().ok(), arguments: words.collect() }
    }

    /// What to start: as it was called, if by a path, since that may be a link which leads elsewhere by now; else what was found
    /// then. Either may be another file than this process runs.
    fn path(&self) -> PathBuf {
        let called = PathBuf::from(&self.called);
        let by_path = called.components().count() > 1 && called.exists();
        match &self.executable {
            Some(executable) if !by_path => undeleted(executable),
            _ => called,
        }
    }
}

/// Linux says of a file that was replaced ` (deleted)`.
fn undeleted(executable: &std::path::Path) -> PathBuf {
    let text = executable.to_string_lossy();
    text.strip_suffix(" (deleted)").map_or_else(|| executable.to_owned(), PathBuf::from)
}

/// Lets a new process take over and gives its number; this one may then stop.
pub(crate) async fn to_successor(service: &Service, program: &Program) -> Result<u32, HandOverError> {
    let patience = service.process().hand_over_timeout;
    let (child, channel) = start(service, program)?;
    let mut channel = BufReader::new(channel);
    // Dropped before the channel, whose end would tell it to serve.
    let mut child = child;
    match line_within(patience, &mut channel).await.map_err(HandOverError::Channel)? {
        None => return Err(HandOverError::Late(patience)),
        Some(said) if said == READY => {}
        Some(said) => return Err(why(&said, &mut child).await),
    }
    channel.get_mut().write_all(format!("{GO}\n").as_bytes()).await.map_err(HandOverError::Channel)?;
    match line_within(PROMPT, &mut channel).await.map_err(HandOverError::Channel)? {
        None => return Err(HandOverError::Stalled),
        Some(said) if said == SERVING => {}
        Some(said) => return Err(why(&said, &mut child).await),
    }
    let pid = child.id().unwrap_or_default();
    // It outlives this process.
    std::mem::forget(child);
    Ok(pid)
}

/// A child that is killed when it is dropped.
fn start(service: &Service, program: &Program) -> Result<(Child, UnixStream), HandOverError> {
    let offers = service.sockets().offers().map_err(HandOverError::Sockets)?;
    let (ours, theirs) = StdUnixStream::pair().map_err(HandOverError::Channel)?;
    ours.set_nonblocking(true).map_err(HandOverError::Channel)?;
    let ours = UnixStream::from_std(ours).map_err(HandOverError::Channel)?;
    let path = program.path();
    tracing::info!(program = %path.display(), sockets = offers.len(), "a new process is started to take over");
    let mut command = Command::new(&path);
    command
        .args(&program.arguments)
        .env_remove("LISTEN_PID")
        .env("LISTEN_FDS", (offers.len() + 1).to_string())
        .env("LISTEN_FDNAMES", names(&offers))
        .env(HAND_OVER, binds(&offers));
    let passed = offers.into_iter().map(|offer| offer.socket).chain([theirs.into()]);
    let mappings =
        passed.zip(FIRST..).map(|(parent_fd, child_fd)| FdMapping { parent_fd, child_fd }).collect();
    let failed = |source| HandOverError::Start { path: path.clone(), source };
    command.fd_mappings(mappings).map_err(|error| failed(io::Error::other(error)))?;
    let child = tokio::process::Command::from(command).kill_on_drop(true).spawn().map_err(failed)?;
    Ok((child, ours))
}

fn names(offers: &[Offer]) -> String {
    // A name that would be read as two is found by its address.
    let name = |offer: &Offer| if offer.name.contains(':') { String::new() } else { offer.name.clone() };
    offers.iter().map(name).chain(["hand-over".to_owned()]).collect::<Vec<_>>().join(":")
}

fn binds(offers: &[Offer]) -> String {
    let own = std::process::id().to_string();
    [own].into_iter().chain(offers.iter().map(|offer| offer.bind.to_string())).collect::<Vec<_>>().join(" ")
}

/// One line; empty at the end.
async fn line(channel: &mut BufReader<UnixStream>) -> io::Result<String> {
    let mut line = String::new();
    channel.read_line(&mut line).await?;
    Ok(line.trim_end().to_owned())
}

/// One line, if it comes in time; this process may itself have stood still meanwhile.
async fn line_within(time: Duration, channel: &mut BufReader<UnixStream>) -> io::Result<Option<String>> {
    if let Ok(said) = tokio::time::timeout(time, line(channel)).await {
        return said.map(Some);
    }
    // Of a process that goes on, timers may be found before what has arrived.
    arrived(channel.get_ref())
}

/// What has arrived, though the runtime may not have heard of it yet.
fn arrived(channel: &UnixStream) -> io::Result<Option<String>> {
    let mut said = [0; 256];
    match rustix::io::read(channel, &mut said) {
        Ok(count) => Ok(Some(String::from_utf8_lossy(&said[..count]).trim_end().to_owned())),
        Err(rustix::io::Errno::AGAIN) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Why a new process said something else than it should.
async fn why(said: &str, child: &mut Child) -> HandOverError {
    if let Some(reason) = said.strip_prefix(FAILED) {
        return HandOverError::Failed(reason.to_owned());
    }
    match tokio::time::timeout(PROMPT, child.wait()).await {
        Ok(Ok(status)) => HandOverError::Ended(status),
        Ok(Err(error)) => HandOverError::Channel(error),
        Err(_late) => HandOverError::Lingers,
    }
}

/// The process before this one, if there is one that serves until this one does.
#[derive(Debug, Clone)]
pub struct Succession(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    channel: Mutex<Option<StdUnixStream>>,
    going: tokio::sync::Mutex<Option<BufReader<UnixStream>>>,
    came: CancellationToken,
    succeeds: bool,
}

impl Succession {
    /// Nobody was before.
    pub(crate) fn none() -> Self {
        Self::of(None)
    }

    pub(crate) fn of(channel: Option<StdUnixStream>) -> Self {
        let (succeeds, came) = (channel.is_some(), CancellationToken::new());
        if !succeeds {
            came.cancel();
        }
        let (channel, going) = (Mutex::new(channel), tokio::sync::Mutex::new(None));
        Self(Arc::new(Inner { channel, going, came, succeeds }))
    }

    /// Whether another process serves, or did before this one.
    pub fn succeeds(&self) -> bool {
        self.0.succeeds
    }

    /// Returns when this process may accept: once `service` is ready and the one before it knows, at once where nobody was, and
    /// never if `service` is told to stop before.
    pub async fn turn(&self, service: &Service) {
        let Some(channel) = self.0.channel.lock().take() else { return };
        let leaving = service.tasks().leaving();
        let asked = async {
            service.readiness().ready().await;
            channel.set_nonblocking(true)?;
            let mut channel = BufReader::new(UnixStream::from_std(channel)?);
            channel.get_mut().write_all(format!("{READY}\n").as_bytes()).await?;
            // Its end is an answer too: who is gone does not serve.
            let said = line(&mut channel).await?;
            Ok::<_, io::Error>((said == GO).then_some(channel))
        };
        let answer = tokio::select! {
            biased;
            () = leaving.cancelled() => None,
            answer = asked => Some(answer),
        };
        match answer {
            Some(Ok(channel)) => *self.0.going.lock().await = channel,
            Some(Err(error)) => tracing::warn!(%error, "the process before this one is gone"),
            // The channel is closed, so that one goes on.
            None => std::future::pending().await,
        }
    }

    /// Says that this process accepts.
    pub async fn serves(&self) {
        self.0.came.cancel();
        if let Some(mut channel) = self.0.going.lock().await.take() {
            let said = channel.get_mut().write_all(format!("{SERVING}\n").as_bytes()).await;
            if let Err(error) = said {
                tracing::warn!(%error, "the process before this one is gone");
            }
        }
    }

    /// Says why this process does not take over.
    pub(crate) fn failed(&self, error: &anyhow::Error) {
        use std::io::Write as _;

        if let Some(mut channel) = self.0.channel.lock().take() {
            let reason = format!("{error:#}").replace('\n', " ");
            // Who is gone need not know.
            let _ = writeln!(channel, "{FAILED}{reason}");
        }
    }

    /// Returns once this process serves.
    pub(crate) async fn came(&self) {
        self.0.came.cancelled().await;
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[tokio::test]
    async fn who_is_told_to_stop_before_its_turn_never_has_it() {
        let (before, after) = StdUnixStream::pair().unwrap();
        before.set_nonblocking(true).unwrap();
        let mut before = BufReader::new(UnixStream::from_std(before).unwrap());
        let (service, succession) = (Service::for_test("new"), Succession::of(Some(after)));
        let mut turn = std::pin::pin!(succession.turn(&service));
        tokio::select! {
            () = &mut turn => panic!("nobody has said so"),
            said = line(&mut before) => assert_eq!(said.unwrap(), READY),
        }
        service.tasks().leave();
        // Too late; the channel may be closed by now.
        let _ = before.get_mut().write_all(format!("{GO}\n").as_bytes()).await;
        tokio::select! {
            () = &mut turn => panic!("it would serve for a moment, and then nobody"),
            said = line(&mut before) => assert_ne!(said.unwrap_or_default(), SERVING),
        }
    }

    #[tokio::test]
    async fn what_has_arrived_is_heard_before_the_runtime_knows() {
        let (here, mut there) = StdUnixStream::pair().unwrap();
        here.set_nonblocking(true).unwrap();
        let here = UnixStream::from_std(here).unwrap();
        assert_eq!(arrived(&here).unwrap(), None);
        writeln!(there, "{SERVING}").unwrap();
        assert_eq!(arrived(&here).unwrap().as_deref(), Some(SERVING));
        drop(there);
        assert_eq!(arrived(&here).unwrap().as_deref(), Some(""));
    }

    #[test]
    fn what_is_started_is_what_the_path_leads_to_now() {
        let program = |called: &str, executable: &str| Program {
            called: called.into(),
            executable: Some(executable.into()),
            arguments: Vec::new(),
        };
        let here = std::env::current_exe().unwrap();
        let here = here.to_str().unwrap();
        for (called, executable, path) in [
            (here, "/releases/1/proxy", here),
            ("/gone/proxy", "/releases/1/proxy", "/releases/1/proxy"),
            ("tollgate-proxy", "/usr/bin/tollgate-proxy", "/usr/bin/tollgate-proxy"),
            ("tollgate-proxy", "/usr/bin/tollgate-proxy (deleted)", "/usr/bin/tollgate-proxy"),
        ] {
            assert_eq!(program(called, executable).path(), PathBuf::from(path), "{called}");
        }
    }
}
