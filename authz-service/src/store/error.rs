//! Every way in which the store can fail.

use tollgate_runtime::config::Invalid;

use crate::policy::check::Fault;
use crate::policy::object::ObjectId;

/// Why the store did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The URL names no database that we know.
    #[error("database.url `{url}` is not understood; write sqlite://FILE or postgres://…")]
    Url {
        /// Without its secrets.
        url: String,
    },
    /// The database cannot be reached.
    #[error("cannot open the database {url}")]
    Open {
        /// Without its secrets.
        url: String,
        /// What it said.
        source: sqlx::Error,
    },
    /// The schema cannot be brought up to date.
    #[error("cannot bring the database's schema up to date")]
    Migrate(#[source] sqlx::migrate::MigrateError),
    /// A statement failed.
    #[error("cannot {doing} in the database")]
    Query {
        /// What we were doing.
        doing: &'static str,
        /// What it said.
        source: sqlx::Error,
    },
    /// The row that holds the epoch is gone.
    #[error("the database has no epoch; it is not one of ours, or it is damaged")]
    NoEpoch,
    /// A row holds what this version cannot read.
    #[error("a row in the database cannot be used: {what}: {problem}")]
    BadRow {
        /// Which row and column.
        what: String,
        /// What is wrong.
        problem: String,
    },
    /// The policy would be wrong after the change.
    #[error("the policy would be invalid: {}", faults(.0))]
    Invalid(Vec<Fault>),
    /// Nobody would be left to administer.
    #[error("this would remove the last administrator; make another one first")]
    LastAdministrator,
    /// There is no such object.
    #[error("there is no {0}")]
    NotFound(ObjectId),
    /// Somebody else changed it meanwhile.
    #[error("{object} was changed meanwhile: expected revision {expected}, found {found}")]
    Moved {
        /// Which object.
        object: ObjectId,
        /// The revision that the caller knew.
        expected: u64,
        /// The revision that it has; 0 where there is none.
        found: u64,
    },
    /// Somebody else changed the policy meanwhile.
    #[error("the policy was changed meanwhile: expected epoch {expected}, found {found}")]
    PolicyMoved {
        /// The epoch that the caller knew.
        expected: u64,
        /// The epoch in force.
        found: u64,
    },
    /// There is no such state of the policy yet.
    #[error("there is no epoch {asked}; the newest is {newest}")]
    NoSuchEpoch {
        /// The epoch that was asked for.
        asked: u64,
        /// The last one there is.
        newest: u64,
    },
    /// The state lies further back than is undone for a question.
    #[error(
        "epoch {asked} lies more than {most} changed objects back (the newest is {newest}); ask about a later one, or about one object"
    )]
    TooFarBack {
        /// The epoch that was asked for.
        asked: u64,
        /// The last one there is.
        newest: u64,
        /// So many rows of the history are undone.
        most: u32,
    },
    /// Who may do what was changed after the guard's own policy.
    #[error("rights were changed by epoch {found}, and only epoch {judged} is in force here; try again")]
    Overtaken {
        /// What the guard judges by.
        judged: u64,
        /// What it must have seen.
        found: u64,
    },
    /// The caller has used this idempotency key for something else.
    #[error("this idempotency key was used for another request; take a new key for each")]
    KeyReused,
    /// The one-use token is wrong, used or too old.
    #[error("the bootstrap token is wrong, used or expired")]
    BootstrapRefused,
    /// The name is taken.
    #[error("there is an administrator `{0}` already")]
    AdministratorExists(String),
}

fn faults(faults: &[Fault]) -> String {
    faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

impl StoreError {
    /// Where a mistake in the configuration caused it, the key and what would be right.
    pub fn as_invalid(&self) -> Option<Invalid> {
        match self {
            Self::Url { url } => Some(Invalid::new(
                "database.url",
                format!("`{url}` names no database that is supported"),
                "sqlite://FILE or postgres://USER@HOST/DATABASE",
            )),
            _ => None,
        }
    }
}
