//! What systemd is told (`sd_notify(3)`): that the process is ready, reloads, stops, and which process goes on.
//!
//! Where `NOTIFY_SOCKET` is not set nobody is told anything.

use sd_notify::NotifyState;

/// It is ready; said again, a reload is over.
pub(crate) fn ready() {
    tell(&[NotifyState::Ready]);
}

/// It finishes what is under way.
pub(crate) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// The process with this number has taken over.
pub(crate) fn goes_on_as(pid: u32) {
    tell(&[NotifyState::MainPid(pid)]);
}

/// Reads its configuration again, until this is dropped.
#[derive(Debug)]
#[must_use = "a reload that is dropped at once is over"]
pub struct Reloading(());

impl Reloading {
    /// Says so.
    pub fn begin() -> Self {
        if let Ok(now) = NotifyState::monotonic_usec_now() {
            tell(&[NotifyState::Reloading, now]);
        }
        Self(())
    }
}

impl Drop for Reloading {
    fn drop(&mut self) {
        ready();
    }
}

fn tell(what: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(what) {
        tracing::warn!(%error, "the service manager cannot be told");
    }
}
