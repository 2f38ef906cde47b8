//! One day's SQLite file: a single writing connection and a few that read.

use std::path::{Path, PathBuf};
use std::str::FromStr as _;
use std::sync::Arc;

use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{Connection as _, QueryBuilder, Row as _, Sqlite, SqliteConnection};
use tokio::sync::Mutex;

use super::column::{Block, Column};
use super::names;
use super::prune::{Bloom, Zone};
use super::rollup::{Rollup, Sums};
use super::segment::{LogEntry, SealedBlock, Sealing, StoreError};
use super::{codec, database};
use crate::record::Kind;

/// Queries that may read one file at once; more wait.
const READERS: u32 = 4;
/// Columns a statement inserts: four parameters each, of SQLite's 32,766.
const COLUMNS_A_STATEMENT: usize = 1000;

#[derive(Debug)]
pub(crate) struct DayFile {
    pub(crate) day: String,
    path: PathBuf,
    // Only the store's writer task takes it, so it is never waited for.
    writer: Mutex<SqliteConnection>,
    readers: SqlitePool,
}

impl DayFile {
    /// Opens a day's file, and creates it where there is none.
    pub(crate) async fn open(dir: &Path, day: &str, durable: bool) -> Result<Arc<Self>, StoreError> {
        let path = dir.join(format!("{day}.db"));
        let url = format!("sqlite://{}", path.display());
        let options = SqliteConnectOptions::from_str(&url)
            .map_err(database("cannot understand its path"))?
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(if durable { SqliteSynchronous::Full } else { SqliteSynchronous::Normal })
            .busy_timeout(std::time::Duration::from_secs(5));
        let mut writer =
            SqliteConnection::connect_with(&options).await.map_err(database("cannot open a day's file"))?;
        sqlx::raw_sql(include_str!("schema.sql"))
            .execute(&mut writer)
            .await
            .map_err(database("cannot create its tables"))?;
        let readers =
            SqlitePoolOptions::new().max_connections(READERS).connect_lazy_with(options.read_only(true));
        Ok(Arc::new(Self { day: day.to_owned(), path, writer: Mutex::new(writer), readers }))
    }

    pub(crate) async fn log(&self, entries: &[LogEntry]) -> Result<(), StoreError> {
        let failed = || database("cannot write the log");
        let mut writer = self.writer.lock().await;
        let mut transaction = writer.begin().await.map_err(failed())?;
        for entry in entries {
            sqlx::query("INSERT INTO wal (seq, signal, n, received, request) VALUES (?, ?, ?, ?, ?)")
                .bind(entry.seq)
                .bind(entry.signal)
                .bind(i64::try_from(entry.records).unwrap_or(i64::MAX))
                .bind(entry.received_ns)
                .bind(&entry.request)
                .execute(&mut *transaction)
                .await
                .map_err(failed())?;
        }
        transaction.commit().await.map_err(failed())
    }

    /// What was acknowledged and is in no block yet, oldest first.
    pub(crate) async fn logged(&self) -> Result<Vec<LogEntry>, StoreError> {
        let rows = sqlx::query("SELECT seq, signal, n, received, request FROM wal ORDER BY seq")
            .fetch_all(&self.readers)
            .await
            .map_err(database("cannot read the log"))?;
        Ok(rows
            .iter()
            .map(|row| LogEntry {
                seq: row.get(0),
                signal: row.get(1),
                records: usize::try_from(row.get::<i64, _>(2)).unwrap_or_default(),
                received_ns: row.get(3),
                request: row.get(4),
            })
            .collect())
    }

    /// The largest record number in the file.
    pub(crate) async fn last_seq(&self) -> Result<i64, StoreError> {
        let row = sqlx::query(
            "SELECT max(coalesce((SELECT max(smax) FROM block), 0), coalesce((SELECT max(seq + n) FROM wal), 0))",
        )
        .fetch_one(&self.readers)
        .await
        .map_err(database("cannot read the last number"))?;
        Ok(row.get(0))
    }

    pub(crate) async fn put(self: &Arc<Self>, sealing: Sealing) -> Result<Vec<Arc<SealedBlock>>, StoreError> {
        let failed = || database("cannot write a block");
        let encoded = tokio::task::spawn_blocking(move || EncodedSealing::of(sealing))
            .await
            .map_err(|_| StoreError::Stopping)?;
        let mut sealed = Vec::new();
        let mut writer = self.writer.lock().await;
        let mut transaction = writer.begin().await.map_err(failed())?;
        let mut rollup_owner = 0;
        for block in encoded.blocks {
            let id: i64 = sqlx::query(
                "INSERT INTO block (signal, tmin, tmax, n, smax, bloom, zone) VALUES (?, ?, ?, ?, ?, ?, ?) RETURNING id",
            )
            .bind(block.kind.number())
            .bind(block.tmin)
            .bind(block.tmax)
            .bind(i64::try_from(block.rows).unwrap_or(i64::MAX))
            .bind(block.smax)
            .bind(&block.bloom.0)
            .bind(serde_json::to_string(&block.zone).expect("strings and numbers always have a JSON form"))
            .fetch_one(&mut *transaction)
            .await
            .map_err(failed())?
            .get(0);
            for columns in block.columns.chunks(COLUMNS_A_STATEMENT) {
                let mut insert = QueryBuilder::<Sqlite>::new("INSERT INTO col (block, c, enc, data) ");
                insert.push_values(columns, |mut row, (name, column)| {
                    row.push_bind(id).push_bind(name).push_bind(column.encoding).push_bind(&column.data);
                });
                insert.build().execute(&mut *transaction).await.map_err(failed())?;
            }
            if block.kind == Kind::Access {
                rollup_owner = id;
            }
            sealed.push(Arc::new(SealedBlock {
                id,
                kind: block.kind,
                tmin: block.tmin,
                tmax: block.tmax,
                rows: block.rows,
                bloom: block.bloom,
                zone: block.zone,
                file: Arc::clone(self),
            }));
        }
        for (bucket, data) in &encoded.rollup {
            sqlx::query("INSERT INTO rollup (t, block, data) VALUES (?, ?, ?)")
                .bind(bucket)
                .bind(rollup_owner)
                .bind(data)
                .execute(&mut *transaction)
                .await
                .map_err(failed())?;
        }
        for id in encoded.replaces {
            // Queries that began before may still read its columns; `forget` takes those when nobody does.
            for statement in ["DELETE FROM rollup WHERE block = ?", "DELETE FROM block WHERE id = ?"] {
                sqlx::query(statement).bind(id).execute(&mut *transaction).await.map_err(failed())?;
            }
        }
        sqlx::query("DELETE FROM wal WHERE seq <= ?")
            .bind(encoded.up_to_seq)
            .execute(&mut *transaction)
            .await
            .map_err(failed())?;
        transaction.commit().await.map_err(failed())?;
        Ok(sealed)
    }

    /// Deletes the columns of a block that was replaced.
    pub(crate) async fn forget(&self, id: i64) -> Result<(), StoreError> {
        let mut writer = self.writer.lock().await;
        sqlx::query("DELETE FROM col WHERE block = ? AND block NOT IN (SELECT id FROM block)")
            .bind(id)
            .execute(&mut *writer)
            .await
            .map_err(database("cannot delete a replaced block"))?;
        Ok(())
    }

    /// Deletes the columns of every block that was replaced, before anybody reads.
    pub(crate) async fn forget_replaced(&self) -> Result<(), StoreError> {
        let mut writer = self.writer.lock().await;
        sqlx::query("DELETE FROM col WHERE block NOT IN (SELECT id FROM block)")
            .execute(&mut *writer)
            .await
            .map_err(database("cannot delete replaced blocks"))?;
        Ok(())
    }

    /// What is known of every block in the file.
    pub(crate) async fn blocks(self: &Arc<Self>) -> Result<Vec<Arc<SealedBlock>>, StoreError> {
        let rows = sqlx::query("SELECT id, signal, tmin, tmax, n, bloom, zone FROM block ORDER BY id")
            .fetch_all(&self.readers)
            .await
            .map_err(database("cannot list its blocks"))?;
        rows.iter()
            .map(|row| {
                Ok(Arc::new(SealedBlock {
                    id: row.get(0),
                    kind: Kind::of_number(row.get(1))
                        .ok_or_else(|| StoreError::Damaged("unknown signal".to_owned()))?,
                    tmin: row.get(2),
                    tmax: row.get(3),
                    rows: usize::try_from(row.get::<i64, _>(4)).unwrap_or_default(),
                    bloom: Bloom(row.get(5)),
                    zone: serde_json::from_str(row.get(6)).map_err(|e| StoreError::Damaged(e.to_string()))?,
                    file: Arc::clone(self),
                }))
            })
            .collect()
    }

    /// Some columns of a block, or all of them for an empty list. `None` if the block is gone.
    pub(crate) async fn columns(
        &self,
        block: &SealedBlock,
        wanted: &[&str],
    ) -> Result<Option<Vec<(String, Column)>>, StoreError> {
        let mut select = QueryBuilder::<Sqlite>::new("SELECT c, enc, data FROM col WHERE block = ");
        select.push_bind(block.id);
        if !wanted.is_empty() {
            select.push(" AND c IN (");
            let mut list = select.separated(", ");
            list.push_bind(names::TIME);
            for name in wanted.iter().filter(|name| **name != names::TIME) {
                list.push_bind((*name).to_owned());
            }
            select.push(")");
        }
        let rows = match select.build().fetch_all(&self.readers).await {
            Ok(rows) => rows,
            // Retention closed the file while we were on our way to it.
            Err(sqlx::Error::PoolClosed) => return Ok(None),
            Err(error) => return Err(database("cannot read a block")(error)),
        };
        if rows.is_empty() {
            return Ok(None);
        }
        rows.iter()
            .map(|row| Ok((row.get(0), codec::decode(row.get(1), row.get(2), block.rows)?)))
            .collect::<Result<_, StoreError>>()
            .map(Some)
    }

    /// The sums between two buckets, the second not included.
    pub(crate) async fn rollup(&self, from: i64, to: i64) -> Result<Rollup, StoreError> {
        let rows = match sqlx::query("SELECT t, data FROM rollup WHERE t >= ? AND t < ?")
            .bind(from)
            .bind(to)
            .fetch_all(&self.readers)
            .await
        {
            Ok(rows) => rows,
            Err(sqlx::Error::PoolClosed) => return Ok(Rollup::default()),
            Err(error) => return Err(database("cannot read sums")(error)),
        };
        let mut rollup = Rollup::default();
        for row in rows {
            rollup.0.entry(row.get(0)).or_default().merge(&Sums::decode(row.get(1))?);
        }
        Ok(rollup)
    }

    /// The sums that belong to some blocks.
    pub(crate) async fn rollup_of(&self, blocks: &[Arc<SealedBlock>]) -> Result<Rollup, StoreError> {
        let mut rollup = Rollup::default();
        for block in blocks {
            let rows = sqlx::query("SELECT t, data FROM rollup WHERE block = ?")
                .bind(block.id)
                .fetch_all(&self.readers)
                .await
                .map_err(database("cannot read sums"))?;
            for row in rows {
                rollup.0.entry(row.get(0)).or_default().merge(&Sums::decode(row.get(1))?);
            }
        }
        Ok(rollup)
    }

    /// Bytes on disk, the journal included.
    pub(crate) fn size(&self) -> u64 {
        self.files().iter().filter_map(|path| std::fs::metadata(path).ok()).map(|meta| meta.len()).sum()
    }

    fn files(&self) -> [PathBuf; 3] {
        let beside = |suffix: &str| PathBuf::from(format!("{}{suffix}", self.path.display()));
        [self.path.clone(), beside("-wal"), beside("-shm")]
    }

    /// Closes and deletes the file. Whoever still reads it gets "gone".
    pub(crate) async fn delete(&self) -> Result<(), StoreError> {
        self.readers.close().await;
        for path in self.files() {
            match std::fs::remove_file(&path) {
                Ok(()) => {}
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(source) => return Err(StoreError::File { what: "cannot delete a day's file", source }),
            }
        }
        Ok(())
    }
}

struct EncodedBlock {
    kind: Kind,
    rows: usize,
    tmin: i64,
    tmax: i64,
    smax: i64,
    bloom: Bloom,
    zone: Zone,
    columns: Vec<(String, codec::Encoded)>,
}

/// The part of sealing that costs CPU time, done away from the runtime's threads.
struct EncodedSealing {
    blocks: Vec<EncodedBlock>,
    rollup: Vec<(i64, Vec<u8>)>,
    up_to_seq: i64,
    replaces: Vec<i64>,
}

impl EncodedSealing {
    fn of(sealing: Sealing) -> Self {
        Self {
            blocks: sealing.blocks.into_iter().map(|(kind, block)| encode_block(kind, &block)).collect(),
            rollup: sealing.rollup.0.iter().map(|(bucket, sums)| (*bucket, sums.encode())).collect(),
            up_to_seq: sealing.up_to_seq,
            replaces: sealing.replaces.iter().map(|block| block.id).collect(),
        }
    }
}

fn encode_block(kind: Kind, block: &Block) -> EncodedBlock {
    let bounds = |name| {
        let values: &[i64] = block.ints(name);
        (values.iter().copied().min().unwrap_or_default(), values.iter().copied().max().unwrap_or_default())
    };
    let (tmin, tmax) = bounds(names::TIME);
    EncodedBlock {
        kind,
        rows: block.rows,
        tmin,
        tmax,
        smax: bounds(names::SEQ).1,
        bloom: Bloom::of(block),
        zone: Zone::of(block),
        columns: block.columns.iter().map(|(name, column)| (name.clone(), codec::encode(column))).collect(),
    }
}
