//! The one place that knows that there are two databases.
//!
//! Every statement is written once, with `$1` placeholders, which both understand, over three types that
//! both have: text, whole numbers and their absence. What differs (how a transaction begins, how a
//! connection is set up) is here.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr as _;
use std::time::Duration;

use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions, PgRow, PgSslMode};
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteRow, SqliteSynchronous,
};
use sqlx::{Postgres, Row as _, SqlSafeStr as _, Sqlite, Transaction};
use tollgate_runtime::config::Secret;

use super::StoreError;

/// How long one writer waits for another, in another process perhaps.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a request for a connection waits.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);
const MAX_READERS: u32 = 4;
const MAX_CONNECTIONS: u32 = 8;

/// An open database.
#[derive(Debug, Clone)]
pub(super) enum Database {
    /// A file. All writes go through one connection, so none is ever turned away as busy.
    Sqlite { write: SqlitePool, read: SqlitePool },
    /// A server.
    Postgres(PgPool),
}

impl Database {
    pub(super) async fn open(url: &Secret) -> Result<Self, StoreError> {
        let text = url.expose();
        let failed = |source| StoreError::Open { url: url.redacted_url(), source };
        if let Some(path) = sqlite_path(text) {
            return open_sqlite(&path).await.map_err(failed);
        }
        if text.starts_with("postgres://") || text.starts_with("postgresql://") {
            let options = careful(PgConnectOptions::from_str(text).map_err(failed)?);
            let pool = PgPoolOptions::new()
                .max_connections(MAX_CONNECTIONS)
                .acquire_timeout(ACQUIRE_TIMEOUT)
                .connect_with(options)
                .await
                .map_err(failed)?;
            return Ok(Self::Postgres(pool));
        }
        Err(StoreError::Url { url: url.redacted_url() })
    }

    pub(super) async fn migrate(&self) -> Result<(), StoreError> {
        let migrated = match self {
            Self::Sqlite { write, .. } => migrator(SQLITE).run(write).await,
            Self::Postgres(pool) => migrator(POSTGRES).run(pool).await,
        };
        migrated.map_err(StoreError::Migrate)
    }

    /// A transaction that may write. It must begin with a write, which takes the lock.
    pub(super) async fn begin(&self) -> Result<Tx, StoreError> {
        let begun = match self {
            Self::Sqlite { write, .. } => write.begin_with("BEGIN IMMEDIATE").await.map(Tx::Sqlite),
            Self::Postgres(pool) => pool.begin().await.map(Tx::Postgres),
        };
        begun.map_err(|source| StoreError::Query { doing: "begin a transaction", source })
    }

    /// A transaction that sees one state of the database and writes nothing.
    pub(super) async fn begin_read(&self) -> Result<Tx, StoreError> {
        let begun = match self {
            Self::Sqlite { read, .. } => read.begin().await.map(Tx::Sqlite),
            Self::Postgres(pool) => {
                pool.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await.map(Tx::Postgres)
            }
        };
        begun.map_err(|source| StoreError::Query { doing: "begin to read", source })
    }

    /// The pool of a server, which can tell of changes; a file cannot.
    pub(super) fn notifier(&self) -> Option<&PgPool> {
        match self {
            Self::Sqlite { .. } => None,
            Self::Postgres(pool) => Some(pool),
        }
    }

    pub(super) async fn close(&self) {
        match self {
            Self::Sqlite { write, read } => {
                read.close().await;
                write.close().await;
            }
            Self::Postgres(pool) => pool.close().await,
        }
    }
}

/// The file that a URL names, if it names one.
fn sqlite_path(url: &str) -> Option<PathBuf> {
    let path = url.strip_prefix("sqlite://").or_else(|| url.strip_prefix("sqlite:"))?;
    Some(PathBuf::from(path))
}

/// A server over a network proves its name to us, unless the URL asks for less in so many words. sqlx by itself would
/// take plaintext from whoever answers.
fn careful(options: PgConnectOptions) -> PgConnectOptions {
    let host = options.get_host();
    let is_here = options.get_socket().is_some()
        || host.starts_with('/')
        || host.eq_ignore_ascii_case("localhost")
        || host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    match options.get_ssl_mode() {
        PgSslMode::VerifyFull => options,
        _ if is_here => options,
        // What nobody has chosen.
        PgSslMode::Prefer => options.ssl_mode(PgSslMode::VerifyFull),
        weak => {
            tracing::warn!(
                host,
                sslmode = ?weak,
                "whoever is between us and the database may read or change what it says; use sslmode=verify-full"
            );
            options
        }
    }
}

async fn open_sqlite(path: &Path) -> Result<Database, sqlx::Error> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        tokio::fs::create_dir_all(folder).await.map_err(sqlx::Error::Io)?;
    }
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        // What was answered must survive a crash of the machine, not only of the process.
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(BUSY_TIMEOUT);
    let pool = |most| SqlitePoolOptions::new().max_connections(most).acquire_timeout(ACQUIRE_TIMEOUT);
    let write = pool(1).connect_with(options.clone()).await?;
    let read = pool(MAX_READERS).connect_lazy_with(options);
    Ok(Database::Sqlite { write, read })
}

/// The migrations of one dialect, from its folder.
macro_rules! migrations {
    ($dialect:literal, [$(($number:literal, $name:literal, $file:literal)),* $(,)?]) => {
        &[$(($number, $name, include_str!(concat!("../../../migrations/authz/", $dialect, "/", $file)))),*]
    };
}

const SQLITE: &[(i64, &str, &str)] = migrations!(
    "sqlite",
    [
        (1, "policy", "0001_policy.sql"),
        (2, "conditions", "0002_conditions.sql"),
        (3, "references", "0003_references.sql"),
        (4, "issuers", "0004_issuers.sql"),
        (5, "idempotency", "0005_idempotency.sql"),
        (6, "certificate authority", "0006_certificate_authority.sql"),
        (7, "foreign keys", "0007_foreign_keys.sql"),
        (8, "claim parameters", "0008_claim_parameters.sql"),
        (9, "issued by", "0009_issued_by.sql"),
        (10, "rollouts", "0010_rollouts.sql"),
    ]
);
const POSTGRES: &[(i64, &str, &str)] = migrations!(
    "postgres",
    [
        (1, "policy", "0001_policy.sql"),
        (2, "conditions", "0002_conditions.sql"),
        (3, "references", "0003_references.sql"),
        (4, "issuers", "0004_issuers.sql"),
        (5, "idempotency", "0005_idempotency.sql"),
        (6, "certificate authority", "0006_certificate_authority.sql"),
        (7, "foreign keys", "0007_foreign_keys.sql"),
        (8, "claim parameters", "0008_claim_parameters.sql"),
        (9, "issued by", "0009_issued_by.sql"),
        (10, "rollouts", "0010_rollouts.sql"),
    ]
);

fn migrator(files: &'static [(i64, &str, &str)]) -> Migrator {
    let migration = |&(version, description, sql): &(i64, &'static str, &'static str)| {
        Migration::new(version, description.into(), MigrationType::Simple, sql.into_sql_str(), false)
    };
    Migrator::with_migrations(files.iter().map(migration).collect())
}

/// A value on its way into a statement.
#[derive(Debug, Clone, Copy)]
pub(super) enum Value<'a> {
    Text(&'a str),
    OptionalText(Option<&'a str>),
    Int(i64),
    OptionalInt(Option<i64>),
}

/// An open transaction; dropped, it rolls back.
#[derive(Debug)]
pub(super) enum Tx {
    Sqlite(Transaction<'static, Sqlite>),
    Postgres(Transaction<'static, Postgres>),
}

macro_rules! bound {
    ($sql:expr, $values:expr) => {{
        let mut query = sqlx::query($sql);
        for value in $values {
            query = match *value {
                Value::Text(text) => query.bind(text.to_owned()),
                Value::OptionalText(text) => query.bind(text.map(str::to_owned)),
                Value::Int(number) => query.bind(number),
                Value::OptionalInt(number) => query.bind(number),
            };
        }
        query
    }};
}

impl Tx {
    /// Runs a statement; answers how many rows it changed.
    pub(super) async fn execute(
        &mut self,
        doing: &'static str,
        sql: &'static str,
        values: &[Value<'_>],
    ) -> Result<u64, StoreError> {
        let changed = match self {
            Self::Sqlite(tx) => bound!(sql, values).execute(&mut **tx).await.map(|done| done.rows_affected()),
            Self::Postgres(tx) => {
                bound!(sql, values).execute(&mut **tx).await.map(|done| done.rows_affected())
            }
        };
        changed.map_err(|source| StoreError::Query { doing, source })
    }

    /// Runs a query.
    pub(super) async fn fetch(
        &mut self,
        doing: &'static str,
        sql: &'static str,
        values: &[Value<'_>],
    ) -> Result<Vec<Row>, StoreError> {
        let rows = match self {
            Self::Sqlite(tx) => (bound!(sql, values).fetch_all(&mut **tx).await)
                .map(|rows| rows.into_iter().map(Row::Sqlite).collect()),
            Self::Postgres(tx) => (bound!(sql, values).fetch_all(&mut **tx).await)
                .map(|rows| rows.into_iter().map(Row::Postgres).collect()),
        };
        rows.map_err(|source| StoreError::Query { doing, source })
    }

    /// Whether other processes can be told of a commit.
    pub(super) fn can_notify(&self) -> bool {
        matches!(self, Self::Postgres(_))
    }

    pub(super) async fn commit(self) -> Result<(), StoreError> {
        let committed = match self {
            Self::Sqlite(tx) => tx.commit().await,
            Self::Postgres(tx) => tx.commit().await,
        };
        committed.map_err(|source| StoreError::Query { doing: "commit", source })
    }

    pub(super) async fn rollback(self) -> Result<(), StoreError> {
        let done = match self {
            Self::Sqlite(tx) => tx.rollback().await,
            Self::Postgres(tx) => tx.rollback().await,
        };
        done.map_err(|source| StoreError::Query { doing: "roll back", source })
    }
}

/// A row of an answer.
#[derive(Debug)]
pub(super) enum Row {
    Sqlite(SqliteRow),
    Postgres(PgRow),
}

macro_rules! column {
    ($name:ident, $type:ty) => {
        pub(super) fn $name(&self, column: &'static str) -> Result<$type, StoreError> {
            let value = match self {
                Self::Sqlite(row) => row.try_get(column),
                Self::Postgres(row) => row.try_get(column),
            };
            value.map_err(|source| StoreError::Query { doing: "read a column", source })
        }
    };
}

impl Row {
    column!(text, String);
    column!(optional_text, Option<String>);
    column!(int, i64);
    column!(optional_int, Option<i64>);

    /// A column that may not even be there: for naming a row that is in error.
    pub(super) fn text_or_empty(&self, column: &'static str) -> String {
        self.text(column).unwrap_or_default()
    }

    /// A column that holds JSON.
    pub(super) fn json<T: serde::de::DeserializeOwned>(&self, column: &'static str) -> Result<T, StoreError> {
        let text = self.text(column)?;
        serde_json::from_str(&text)
            .map_err(|error| StoreError::BadRow { what: column.to_owned(), problem: error.to_string() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_over_a_network_proves_its_name_unless_less_is_asked_for() {
        for (url, expected) in [
            ("postgres://u@db.example/authz", PgSslMode::VerifyFull),
            ("postgres://u@10.1.2.3:5433/authz", PgSslMode::VerifyFull),
            ("postgres://u@db.example/authz?sslmode=verify-full&sslrootcert=/x", PgSslMode::VerifyFull),
            ("postgres://u@db.example/authz?sslmode=require", PgSslMode::Require),
            ("postgres://u@db.example/authz?sslmode=disable", PgSslMode::Disable),
            ("postgres://u@127.0.0.1/authz", PgSslMode::Prefer),
            ("postgres://u@localhost/authz", PgSslMode::Prefer),
            ("postgres://u@localhost/authz?sslmode=verify-full", PgSslMode::VerifyFull),
            ("postgres:///authz?host=/var/run/postgresql", PgSslMode::Prefer),
        ] {
            let options = careful(PgConnectOptions::from_str(url).unwrap());
            assert_eq!(format!("{:?}", options.get_ssl_mode()), format!("{expected:?}"), "{url}");
        }
    }

    /// What an older release wrote is there afterwards; a grant that points nowhere is not.
    #[tokio::test]
    async fn an_older_database_is_brought_up_to_date() {
        let folder = tempfile::TempDir::new().unwrap();
        let database = open_sqlite(&folder.path().join("authz.db")).await.unwrap();
        let Database::Sqlite { write, .. } = &database else { panic!("a file is SQLite") };
        let first = SQLITE.iter().position(|(number, ..)| *number == 3).unwrap();
        migrator(&SQLITE[..first]).run(write).await.unwrap();
        for sql in [
            "INSERT INTO services VALUES ('a', 's', '[\"H.example\"]', NULL, '[]', '[]', '[]', '\"enforce\"', '{}', 1)",
            "INSERT INTO roles VALUES ('a', 'r', '[]', 1), ('a', 'q', '[\"r\",\"gone\"]', 1), ('a', 'x', 'nonsense', 1)",
            "INSERT INTO permissions (namespace, role, position, name, service, methods, paths, hosts, scopes) VALUES
                ('a', 'r', 0, 'one', 's', '[]', '[]', '[]', '{}'), ('a', 'r', 1, 'two', '*', '[]', '[]', '[]', '{}'),
                ('a', 'r', 2, 'three', 'gone', '[]', '[]', '[]', '{}')",
            "INSERT INTO bindings (namespace, name, role, who, epoch) VALUES
                ('a', 'b', 'r', '{}', 1), ('a', 'c', 'gone', '{}', 1)",
        ] {
            sqlx::query(sql).execute(write).await.unwrap();
        }
        database.migrate().await.unwrap();
        for (sql, left) in [
            ("SELECT name FROM permissions ORDER BY name", &["one", "two"][..]),
            ("SELECT name FROM bindings", &["b"]),
            ("SELECT name FROM roles ORDER BY name", &["q", "r", "x"]),
            ("SELECT included AS name FROM role_includes", &["r"]),
            ("SELECT host AS name FROM service_hosts", &["h.example"]),
        ] {
            let rows = sqlx::query(sql).fetch_all(write).await.unwrap();
            let found: Vec<String> = rows.iter().map(|row| row.get("name")).collect();
            assert_eq!(found, left, "{sql}");
        }
        for sql in [
            "INSERT INTO bindings (namespace, name, role, who, epoch) VALUES ('a', 'd', 'gone', '{}', 1)",
            "DELETE FROM services WHERE name = 's'",
            "DELETE FROM roles WHERE name = 'r'",
        ] {
            assert!(sqlx::query(sql).execute(write).await.is_err(), "{sql}");
        }
    }
}
