//! What reads the whole policy, or much of its history: export, diff, rollback, the linter, explanations by an earlier
//! policy.
//!
//! Each takes the memory of a policy and seconds of a core, so there are few places, none waits for one, and the work is
//! done away from the threads that answer requests. A place is held until the work ends, whether or not anybody still
//! waits for it.

use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::problem::Problem;

/// How many at once.
const MAX_WHOLE_READS: usize = 4;

/// The places.
#[derive(Debug, Clone)]
pub(super) struct WholeReads(Arc<Semaphore>);

impl Default for WholeReads {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(MAX_WHOLE_READS)))
    }
}

impl WholeReads {
    /// One of the places.
    pub(super) fn place(&self) -> Result<OwnedSemaphorePermit, Problem> {
        Arc::clone(&self.0).try_acquire_owned().map_err(|_| {
            Problem::busy(format!("{MAX_WHOLE_READS} requests read the whole policy already; try again"))
        })
    }

    /// Does `work` in one of the places.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, Problem>> + Send + 'static,
    ) -> Result<T, Problem> {
        let place = self.place()?;
        let runtime = Handle::current();
        let working = tokio::task::spawn_blocking(move || {
            let _place = place;
            runtime.block_on(work)
        });
        match working.await {
            Ok(done) => done,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => Err(Problem::busy("this service is stopping")),
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use axum::http::header::RETRY_AFTER;
    use axum::response::IntoResponse as _;
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn there_are_few_places_and_nobody_waits_for_one() {
        let places = WholeReads::default();
        let mut working = Vec::new();
        for _ in 0..MAX_WHOLE_READS {
            let (end, ended) = oneshot::channel::<()>();
            let mut run = Box::pin(places.run(async move {
                let _ = ended.await;
                Ok(())
            }));
            assert!(futures_util::poll!(&mut run).is_pending());
            working.push((run, end));
        }
        let refused = places.run(async { Ok(()) }).await.unwrap_err();
        assert_eq!(refused.reason(), "busy");
        let response = refused.into_response();
        assert_eq!(
            (response.status().as_u16(), &response.headers()[RETRY_AFTER]),
            (503, &HeaderValue::from(1))
        );
        // Who goes away leaves the work, and its place is free when it ends.
        let (gone, end) = working.pop().unwrap();
        drop(gone);
        assert!(places.place().is_err());
        end.send(()).unwrap();
        for (run, end) in working {
            end.send(()).unwrap();
            run.await.unwrap();
        }
        assert!(places.run(async { Ok(()) }).await.is_ok());
    }
}
