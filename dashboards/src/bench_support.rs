//! What the benchmarks drive: the store without sockets. Not part of the library's interface.

use std::path::Path;
use std::time::Duration;

use tollgate_runtime::Service;

use crate::ingest::{Ingest, IngestLimits, OtlpRequest, replay};
use crate::metrics::Metrics;
use crate::query::{Filter, Range, count, facets};
use crate::record::Kind;
use crate::store::{Store, StoreOptions};

/// A store and its door.
#[derive(Debug)]
pub struct Bench {
    service: Service,
    store: Store,
    ingest: Ingest,
}

impl Bench {
    /// Opens a store in `dir`.
    pub async fn open(dir: &Path) -> anyhow::Result<Self> {
        let service = Service::for_test("bench");
        let metrics = Metrics::new(&service.telemetry().meter(), service.clock().clone());
        let options = StoreOptions {
            dir: dir.to_owned(),
            durable: true,
            seal_records: 8192,
            seal_after: Duration::from_secs(5),
            keep_days: 7,
            max_bytes: u64::MAX,
            queue: 1024,
        };
        let store = Store::open(options, &service, metrics, replay).await?;
        let limits = IngestLimits { max_request_bytes: 1 << 26, max_inflight_bytes: 1 << 30, keep_days: 7 };
        let ingest = Ingest::new(store.clone(), service.clock().clone(), limits);
        Ok(Self { service, store, ingest })
    }

    /// Takes a log request as it comes from the wire; returns once it is committed.
    pub async fn ingest(&self, wire: &[u8]) -> anyhow::Result<()> {
        self.ingest.accept(OtlpRequest::decode(0, wire)?, None).await?;
        Ok(())
    }

    /// How many requests a filter takes.
    pub async fn count(&self, q: &str) -> anyhow::Result<u64> {
        Ok(count(&self.store, Kind::Access, EVERYTHING, &Filter::parse(q)?).await?)
    }

    /// The values of six fields.
    pub async fn facets(&self, columns: &[String]) -> anyhow::Result<usize> {
        Ok(facets(&self.store, Kind::Access, EVERYTHING, &Filter::default(), columns).await?.len())
    }

    /// Ends the writer, which seals what is open.
    pub async fn close(self) {
        self.service.stop().await;
    }
}

const EVERYTHING: Range = Range { from: i64::MIN, to: i64::MAX };
