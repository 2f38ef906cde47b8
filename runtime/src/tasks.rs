//! Every task has an owner.
//!
//! ```text
//! running --leave()--> leaving --stop()--> stopping --all done--------------> drained
//!                                             |-----grace over: abort all---> drained, with the number of the forced
//! ```
//!
//! A service that leaves still serves, and says to whoever comes that they should go elsewhere. A long-lived task selects on [`Stopping::cancelled`]; a task that serves one request just ends.

use std::future::Future;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};
use tokio_util::task::TaskTracker;

use crate::readiness::Readiness;
use crate::telemetry::{Telemetry, process_log};

/// The tasks of one service.
#[derive(Debug, Clone)]
pub struct Tasks {
    tracker: TaskTracker,
    leaving: CancellationToken,
    stopping: CancellationToken,
    abort: CancellationToken,
    telemetry: Telemetry,
    readiness: Readiness,
}

/// Says when the service begins to stop, or to leave.
#[derive(Debug, Clone)]
pub struct Stopping(CancellationToken);

impl Stopping {
    /// Returns when the service begins to stop, at once if it already has.
    pub fn cancelled(&self) -> WaitForCancellationFuture<'_> {
        self.0.cancelled()
    }

    /// As [`Self::cancelled`], for places that need an owned future.
    pub async fn wait(self) {
        self.0.cancelled().await;
    }

    /// Whether the service has begun to stop.
    pub fn is_cancelled(&self) -> bool {
        self.0.is_cancelled()
    }
}

impl Tasks {
    pub(crate) fn new(telemetry: Telemetry, readiness: Readiness) -> Self {
        Self {
            tracker: TaskTracker::new(),
            leaving: CancellationToken::new(),
            stopping: CancellationToken::new(),
            abort: CancellationToken::new(),
            telemetry,
            readiness,
        }
    }

    /// Starts a task. It yields `None` when it was cut off at the end of the grace.
    #[expect(clippy::disallowed_methods, reason = "this is the home of spawn")]
    pub fn spawn<F>(&self, name: &'static str, future: F) -> JoinHandle<Option<F::Output>>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let abort = self.abort.clone();
        let tracked = self.tracker.track_future(async move {
            tokio::select! {
                biased;
                output = future => Some(output),
                () = abort.cancelled() => {
                    tracing::debug!(task = name, "task cut off at the end of the grace");
                    None
                }
            }
        });
        tokio::spawn(process_log::within(self.telemetry.clone(), tracked))
    }

    /// Starts a task that must run as long as the service: should it end before, by a panic or otherwise, that is
    /// logged and the service is not ready any more, so that nobody goes on trusting it.
    pub fn spawn_essential<F>(&self, name: &'static str, future: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let task = self.spawn(name, future);
        let (stopping, readiness) = (self.stopping(), self.readiness.clone());
        self.spawn(name, async move {
            let ended = task.await;
            if !stopping.is_cancelled() {
                let how = if ended.is_err_and(|e| e.is_panic()) { "panicked" } else { "ended" };
                tracing::error!(task = name, how, "a part of this service does not run any more");
                readiness.block_for_ever(name);
            }
        });
    }

    /// Runs what would block a worker thread, such as file and password work.
    pub async fn blocking<T, F>(&self, work: F) -> anyhow::Result<T>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        Ok(tokio::task::spawn_blocking(work).await?)
    }

    /// A handle that tells when to stop.
    pub fn stopping(&self) -> Stopping {
        Stopping(self.stopping.clone())
    }

    /// A handle that tells when to send others elsewhere, while they are still served.
    pub fn leaving(&self) -> Stopping {
        Stopping(self.leaving.clone())
    }

    /// Tells every task that the service is about to stop; returns at once.
    pub fn leave(&self) {
        self.leaving.cancel();
    }

    /// Tells every task to stop; returns at once.
    pub fn stop(&self) {
        self.leave();
        self.stopping.cancel();
        self.tracker.close();
    }

    /// Stops, waits for the tasks up to `grace`, then cuts off the rest and says how many those were.
    pub async fn drain(&self, grace: Duration) -> usize {
        self.stop();
        if tokio::time::timeout(grace, self.tracker.wait()).await.is_ok() {
            return 0;
        }
        let forced = self.tracker.len();
        self.abort.cancel();
        self.tracker.wait().await;
        forced
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn drain_waits_for_the_willing_and_cuts_off_the_rest() {
        let tasks = Tasks::new(Telemetry::off("test"), Readiness::new());
        let stopping = tasks.stopping();
        let willing = tasks.spawn("willing", async move { stopping.wait().await });
        let stubborn = tasks.spawn("stubborn", std::future::pending::<()>());
        assert_eq!(tasks.drain(Duration::from_secs(5)).await, 1);
        assert_eq!(willing.await.ok().flatten(), Some(()));
        assert_eq!(stubborn.await.ok().flatten(), None);
    }

    #[tokio::test]
    async fn a_service_whose_essential_task_panics_is_not_ready() {
        let readiness = Readiness::new();
        let tasks = Tasks::new(Telemetry::off("test"), readiness.clone());
        tasks.spawn_essential("follow", async { panic!("on purpose") });
        while readiness.is_ready() {
            tokio::task::yield_now().await;
        }
        assert_eq!(readiness.blockers(), ["follow"]);
    }

    #[tokio::test]
    async fn an_essential_task_may_end_once_the_service_stops() {
        let readiness = Readiness::new();
        let tasks = Tasks::new(Telemetry::off("test"), readiness.clone());
        let stopping = tasks.stopping();
        tasks.spawn_essential("follow", async move { stopping.cancelled().await });
        assert_eq!(tasks.drain(Duration::from_secs(5)).await, 0);
        assert!(readiness.is_ready());
    }
}
