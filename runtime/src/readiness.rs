//! What still keeps a part from being ready.
//!
//! Each thing that must happen first holds a [`Blocker`]; when the last is dropped the part is
//! ready. Draining adds a blocker that is never dropped, so readiness turns red before anything
//! else happens.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;

/// The set of named blockers of one part.
#[derive(Debug, Clone)]
pub struct Readiness {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    // Counted, since two parts of one service may wait for things of the same name.
    blockers: Mutex<BTreeMap<&'static str, usize>>,
    ready: watch::Sender<bool>,
}

/// Keeps its part from being ready until it is dropped.
#[derive(Debug)]
#[must_use = "a blocker that is dropped at once blocks nothing"]
pub struct Blocker {
    inner: Arc<Inner>,
    name: &'static str,
}

impl Readiness {
    pub(crate) fn new() -> Self {
        let (ready, _) = watch::channel(true);
        Self { inner: Arc::new(Inner { blockers: Mutex::default(), ready }) }
    }

    /// Adds a reason not to be ready.
    pub fn blocker(&self, name: &'static str) -> Blocker {
        let mut blockers = self.inner.blockers.lock();
        *blockers.entry(name).or_default() += 1;
        self.inner.ready.send_replace(false);
        Blocker { inner: Arc::clone(&self.inner), name }
    }

    /// As [`Self::blocker`], until the process ends.
    pub(crate) fn block_for_ever(&self, name: &'static str) {
        std::mem::forget(self.blocker(name));
    }

    /// Whether nothing blocks.
    pub fn is_ready(&self) -> bool {
        *self.inner.ready.borrow()
    }

    /// The names of what blocks now.
    pub fn blockers(&self) -> Vec<&'static str> {
        self.inner.blockers.lock().keys().copied().collect()
    }

    /// Returns once nothing blocks.
    pub async fn ready(&self) {
        let mut watching = self.inner.ready.subscribe();
        // The sender lives in `self.inner`, so the channel cannot close while we wait.
        let _ = watching.wait_for(|ready| *ready).await;
    }
}

impl Drop for Blocker {
    fn drop(&mut self) {
        let mut blockers = self.inner.blockers.lock();
        if let Some(count) = blockers.get_mut(self.name) {
            *count -= 1;
            if *count == 0 {
                blockers.remove(self.name);
            }
        }
        self.inner.ready.send_replace(blockers.is_empty());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn ready_when_the_last_blocker_is_dropped() {
        let readiness = Readiness::new();
        let first = readiness.blocker("snapshot");
        let second = readiness.blocker("snapshot");
        assert_eq!(readiness.blockers(), ["snapshot"]);
        drop(first);
        assert!(!readiness.is_ready());
        drop(second);
        readiness.ready().await;
        assert!(readiness.blockers().is_empty());
    }
}
