//! List, watch, and again: for as long as somebody wants to know.
//!
//! ```text
//! list ──> watch from its version ──> over ──> watch from the last version
//!  ^            └── 410, or an event that cannot be read ──> list
//!  └── pause, longer each time ── the API is away, refuses, or says what cannot be read
//! ```
//!
//! What was found stays found until something else is: whoever is told of a failure keeps what there was.

use std::time::{Duration, Instant};

use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::core::WatchEvent;

use crate::api::{Api, Fault, Reader};
use crate::pods::{Family, Found, Port, Table};

/// The pause after a first failure; each further one is twice as long, up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// The longest pause that the API may ask for.
const LONGEST_ASKED: Duration = Duration::from_secs(60);
/// A watch that stood for so long was a good one, even if nothing happened.
const STEADY: Duration = Duration::from_secs(5);

/// Which Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Its namespace; ours, if not given.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
    /// Which port of its pods.
    pub port: Port,
    /// Whether one family of addresses alone is wanted.
    pub family: Option<Family>,
}

/// What there is to tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// These are its pods now. All is well with the API.
    Found(Found),
    /// Why nothing new is known.
    Failed(String),
}

/// Tells of the pods of a service, and of every change, until it is dropped.
pub async fn follow(api: &Api, service: &Service, tell: impl FnMut(News)) {
    let mut follower = Follower { api, service, tell, told: None, reader: None, known: None, steady: false };
    let mut failures = 0;
    loop {
        let ended = follower.round().await;
        let steady = std::mem::take(&mut follower.steady);
        failures = if steady { 0 } else { failures + 1 };
        let asked = match ended {
            Ok(()) => None,
            Err(fault) => {
                failures = failures.max(1);
                follower.failed(&fault);
                fault.after()
            }
        };
        tokio::time::sleep(pause(failures, asked, rand::random_range(0.5..1.0))).await;
    }
}

/// How long to wait after so many failures. `draw` is between a half and one.
fn pause(failures: u32, asked: Option<Duration>, draw: f64) -> Duration {
    let doubled = FIRST_PAUSE.saturating_mul(1 << failures.saturating_sub(1).min(16));
    let ours = doubled.min(LONGEST_PAUSE).mul_f64(draw);
    ours.max(asked.unwrap_or_default().min(LONGEST_ASKED))
}

struct Follower<'f, F> {
    api: &'f Api,
    service: &'f Service,
    tell: F,
    /// What was found last, if that is what was told last.
    told: Option<Found>,
    reader: Option<Reader>,
    known: Option<Known>,
    /// Whether the last round went well, however it ended.
    steady: bool,
}

struct Known {
    table: Table,
    version: String,
}

impl<F: FnMut(News)> Follower<'_, F> {
    /// One watch to its end, and a list before it where there is no version to begin from.
    async fn round(&mut self) -> Result<(), Fault> {
        // After a failure all is opened anew: files may be others by now.
        let reader = match self.reader.take() {
            Some(reader) => reader,
            None => self.api.open(self.service).await?,
        };
        let mut known = match self.known.take() {
            Some(known) => known,
            None => {
                let listed = reader.list().await?;
                let (port, family) = (self.service.port.clone(), self.service.family);
                let mut table = Table::new(&reader.service, port, family);
                listed.slices.iter().for_each(|slice| table.set(slice));
                self.found(&table);
                Known { table, version: listed.version }
            }
        };
        let ended = self.watch(&reader, &mut known).await;
        if !ended.as_ref().is_err_and(Fault::loses_count) {
            self.known = Some(known);
        }
        ended?;
        self.reader = Some(reader);
        Ok(())
    }

    async fn watch(&mut self, reader: &Reader, known: &mut Known) -> Result<(), Fault> {
        let mut watch = reader.watch(&known.version).await?;
        let began = Instant::now();
        // It is heard again, if it was not.
        self.found(&known.table);
        while let Some(events) = watch.next().await? {
            for event in events {
                known.take(event)?;
            }
            self.steady = true;
            self.found(&known.table);
        }
        self.steady |= began.elapsed() >= STEADY;
        Ok(())
    }

    fn found(&mut self, table: &Table) {
        let found = table.found();
        if self.told.as_ref() != Some(&found) {
            (self.tell)(News::Found(found.clone()));
            self.told = Some(found);
        }
    }

    fn failed(&mut self, fault: &Fault) {
        let service = &self.service.name;
        if matches!(fault, Fault::Gone) {
            return tracing::debug!("the slices of `{service}` are listed again: their last version is gone");
        }
        let service = match &self.service.namespace {
            Some(namespace) => format!("{namespace}/{service}"),
            None => service.clone(),
        };
        self.told = None;
        (self.tell)(News::Failed(format!("`{service}`: {fault}")));
    }
}

impl Known {
    fn take(&mut self, event: WatchEvent<EndpointSlice>) -> Result<(), Fault> {
        let version = match event {
            WatchEvent::Added(slice) | WatchEvent::Modified(slice) => {
                self.table.set(&slice);
                slice.metadata.resource_version
            }
            WatchEvent::Deleted(slice) => {
                self.table.remove(&slice);
                slice.metadata.resource_version
            }
            WatchEvent::Bookmark(bookmark) => Some(bookmark.metadata.resource_version),
            WatchEvent::Error(status) if status.code == 410 => return Err(Fault::Gone),
            WatchEvent::Error(status) => {
                return Err(Fault::Garbage(format!("the watch says {}: {}", status.code, status.message)));
            }
        };
        let version = version.filter(|version| !version.is_empty());
        self.version = version.ok_or_else(|| Fault::Garbage("an event has no version".to_owned()))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_up_to_the_longest_and_are_never_shorter_than_what_is_asked_for() {
        let seconds = Duration::from_secs_f64;
        for (failures, asked, draw, expected) in [
            (0, None, 1.0, seconds(0.25)),
            (1, None, 1.0, seconds(0.25)),
            (1, None, 0.5, seconds(0.125)),
            (2, None, 1.0, seconds(0.5)),
            (7, None, 1.0, seconds(16.0)),
            (8, None, 1.0, seconds(30.0)),
            (u32::MAX, None, 0.5, seconds(15.0)),
            (1, Some(seconds(7.0)), 1.0, seconds(7.0)),
            (9, Some(seconds(7.0)), 1.0, seconds(30.0)),
            (1, Some(seconds(1e6)), 1.0, seconds(60.0)),
        ] {
            assert_eq!(pause(failures, asked, draw), expected, "{failures} {asked:?} {draw}");
        }
    }
}
