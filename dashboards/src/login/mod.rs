//! Who may look: one-use links, sessions, and what slows guessing down.
//!
//! ```text
//! issue_one_click -> token (256 bits, kept as its hash) --login, once--> session (cookie, kept as its hash) -> expiry
//! ```
//! Sessions live in `meta.db` beside the telemetry, so a restart signs nobody out.

use std::collections::VecDeque;
use std::path::Path;
use std::str::FromStr as _;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rand::Rng as _;
use sha2::{Digest as _, Sha256};
use sqlx::Row as _;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions};
use tollgate_runtime::clock::Clock;

use crate::record::hex;

/// Failed attempts within [`ATTEMPT_WINDOW_MS`] after which nobody may try for a while.
const MAX_FAILED: usize = 10;
const ATTEMPT_WINDOW_MS: u64 = 60_000;
/// Links and sessions kept at once; the oldest go first.
const MAX_ROWS: i64 = 1000;

/// Why somebody is not signed in.
#[derive(Debug, thiserror::Error)]
pub enum LoginError {
    /// The link was used, has expired, or never existed; which, is not said.
    #[error("this link does not work (any more); each works once")]
    Refused,
    /// Too many failed attempts.
    #[error("too many failed attempts; try again in a minute")]
    TooMany,
    /// The database said no.
    #[error("login store {what}")]
    Database {
        /// What we were doing.
        what: &'static str,
        /// Why it failed.
        #[source]
        source: sqlx::Error,
    },
}

fn database(what: &'static str) -> impl Fn(sqlx::Error) -> LoginError {
    move |source| LoginError::Database { what, source }
}

/// An open session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OpenSession {
    pub(crate) csrf: String,
    pub(crate) name: String,
    pub(crate) role: String,
    pub(crate) expires_ms: u64,
}

/// Issues links and keeps sessions. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Logins(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    db: SqlitePool,
    clock: Clock,
    session_ms: u64,
    link_ms: u64,
    failed: Mutex<VecDeque<u64>>,
}

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS one_click (hash BLOB PRIMARY KEY, expires_ms INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS session (
    hash BLOB PRIMARY KEY, csrf TEXT NOT NULL, name TEXT NOT NULL, role TEXT NOT NULL, expires_ms INTEGER NOT NULL
) WITHOUT ROWID;
PRAGMA user_version = 1;
";

impl Logins {
    pub(crate) async fn open(
        dir: &Path,
        clock: Clock,
        session: Duration,
        link: Duration,
    ) -> Result<Self, LoginError> {
        let options = SqliteConnectOptions::from_str(&format!("sqlite://{}", dir.join("meta.db").display()))
            .map_err(database("cannot understand its path"))?
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal);
        let db = SqlitePoolOptions::new()
            .max_connections(2)
            .connect_with(options)
            .await
            .map_err(database("cannot be opened"))?;
        sqlx::raw_sql(SCHEMA).execute(&db).await.map_err(database("cannot be created"))?;
        let millis = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX / 2);
        let failed = Mutex::default();
        Ok(Self(Arc::new(Inner { db, clock, session_ms: millis(session), link_ms: millis(link), failed })))
    }

    /// The logins of a dashboard's folder, for whoever can write it: the way in when the printed link is used up.
    pub async fn of_folder(dir: &Path) -> Result<Self, LoginError> {
        let defaults = crate::config::Config::default().web;
        Self::open(dir, Clock::system(), defaults.session, defaults.login_link).await
    }

    /// A token that signs its bearer in once.
    pub async fn issue_one_click(&self) -> Result<String, LoginError> {
        let token = random();
        let now = self.0.clock.unix_millis();
        let failed = || database("cannot keep a link");
        self.sweep("one_click", now).await?;
        sqlx::query("INSERT INTO one_click (hash, expires_ms) VALUES (?, ?)")
            .bind(hash(&token))
            .bind(sql(now + self.0.link_ms))
            .execute(&self.0.db)
            .await
            .map_err(failed())?;
        Ok(token)
    }

    /// Trades a one-use token for a session: the cookie's value and the session.
    pub(crate) async fn sign_in(&self, token: &str) -> Result<(String, OpenSession), LoginError> {
        let now = self.0.clock.unix_millis();
        {
            let mut failed = self.0.failed.lock();
            while failed.front().is_some_and(|at| at + ATTEMPT_WINDOW_MS <= now) {
                failed.pop_front();
            }
            if failed.len() >= MAX_FAILED {
                return Err(LoginError::TooMany);
            }
        }
        // Deleting is what makes it work once: of two at the same time, one deletes nothing.
        let deleted = sqlx::query("DELETE FROM one_click WHERE hash = ? AND expires_ms > ?")
            .bind(hash(token))
            .bind(sql(now))
            .execute(&self.0.db)
            .await
            .map_err(database("cannot use a link"))?
            .rows_affected();
        if deleted != 1 {
            self.0.failed.lock().push_back(now);
            return Err(LoginError::Refused);
        }
        self.sweep("session", now).await?;
        let (cookie, csrf) = (random(), random());
        // Whoever holds the link holds the machine's console; roles come with named users.
        let session = OpenSession {
            csrf,
            name: "operator".to_owned(),
            role: "operator".to_owned(),
            expires_ms: now + self.0.session_ms,
        };
        sqlx::query("INSERT INTO session (hash, csrf, name, role, expires_ms) VALUES (?, ?, ?, ?, ?)")
            .bind(hash(&cookie))
            .bind(&session.csrf)
            .bind(&session.name)
            .bind(&session.role)
            .bind(sql(session.expires_ms))
            .execute(&self.0.db)
            .await
            .map_err(database("cannot keep a session"))?;
        Ok((cookie, session))
    }

    /// The session of a cookie, if it is open.
    pub(crate) async fn session(&self, cookie: &str) -> Result<Option<OpenSession>, LoginError> {
        let row =
            sqlx::query("SELECT csrf, name, role, expires_ms FROM session WHERE hash = ? AND expires_ms > ?")
                .bind(hash(cookie))
                .bind(sql(self.0.clock.unix_millis()))
                .fetch_optional(&self.0.db)
                .await
                .map_err(database("cannot read a session"))?;
        Ok(row.map(|row| OpenSession {
            csrf: row.get(0),
            name: row.get(1),
            role: row.get(2),
            expires_ms: u64::try_from(row.get::<i64, _>(3)).unwrap_or_default(),
        }))
    }

    /// Ends a session.
    pub(crate) async fn sign_out(&self, cookie: &str) -> Result<(), LoginError> {
        sqlx::query("DELETE FROM session WHERE hash = ?")
            .bind(hash(cookie))
            .execute(&self.0.db)
            .await
            .map_err(database("cannot end a session"))?;
        Ok(())
    }

    async fn sweep(&self, table: &'static str, now: u64) -> Result<(), LoginError> {
        let (expired, oldest) = match table {
            "session" => (
                "DELETE FROM session WHERE expires_ms <= ?",
                "DELETE FROM session WHERE hash NOT IN (SELECT hash FROM session ORDER BY expires_ms DESC LIMIT ?)",
            ),
            _ => (
                "DELETE FROM one_click WHERE expires_ms <= ?",
                "DELETE FROM one_click WHERE hash NOT IN (SELECT hash FROM one_click ORDER BY expires_ms DESC LIMIT ?)",
            ),
        };
        for (statement, value) in [(expired, sql(now)), (oldest, MAX_ROWS)] {
            sqlx::query(statement)
                .bind(value)
                .execute(&self.0.db)
                .await
                .map_err(database("cannot be swept"))?;
        }
        Ok(())
    }
}

/// 256 random bits as hex.
fn random() -> String {
    let mut bytes = [0u8; 32];
    rand::rng().fill_bytes(&mut bytes);
    hex(&bytes)
}

fn hash(secret: &str) -> Vec<u8> {
    Sha256::digest(secret.as_bytes()).to_vec()
}

fn sql(millis: u64) -> i64 {
    i64::try_from(millis).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn logins() -> (Logins, tollgate_runtime::clock::ManualClock, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        let (clock, hand) = Clock::manual(1_000_000_000_000_000_000);
        let logins =
            Logins::open(dir.path(), clock, Duration::from_secs(60), Duration::from_secs(10)).await.unwrap();
        (logins, hand, dir)
    }

    #[tokio::test]
    async fn a_link_works_once_and_a_session_ends() {
        let (logins, hand, _dir) = logins().await;
        let token = logins.issue_one_click().await.unwrap();
        let (cookie, session) = logins.sign_in(&token).await.unwrap();
        assert!(matches!(logins.sign_in(&token).await, Err(LoginError::Refused)));
        assert_eq!(logins.session(&cookie).await.unwrap(), Some(session));
        assert_eq!(logins.session("other").await.unwrap(), None);
        hand.advance(Duration::from_secs(61));
        assert_eq!(logins.session(&cookie).await.unwrap(), None);
        let late = logins.issue_one_click().await.unwrap();
        hand.advance(Duration::from_secs(11));
        assert!(matches!(logins.sign_in(&late).await, Err(LoginError::Refused)));
    }

    #[tokio::test]
    async fn guessing_is_slowed_down() {
        let (logins, hand, _dir) = logins().await;
        let token = logins.issue_one_click().await.unwrap();
        for _ in 0..MAX_FAILED {
            assert!(matches!(logins.sign_in("guess").await, Err(LoginError::Refused)));
        }
        assert!(matches!(logins.sign_in(&token).await, Err(LoginError::TooMany)));
        hand.advance(Duration::from_secs(61));
        let token = logins.issue_one_click().await.unwrap();
        let (cookie, _) = logins.sign_in(&token).await.unwrap();
        logins.sign_out(&cookie).await.unwrap();
        assert_eq!(logins.session(&cookie).await.unwrap(), None);
    }
}
