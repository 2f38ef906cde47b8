//! What may pass: from what people write to a snapshot that answers in a microsecond.
//!
//! ```text
//! YAML / REST / rows ──> object, spec ──check──> model ──compile──> snapshot ──evaluate──> Decision
//!   what people write     shape only        checked once           immutable        pure
//! ```

pub mod cases;
pub mod check;
pub mod compile;
pub mod condition;
pub mod cover;
pub mod delegation;
pub mod diff;
pub mod documents;
pub mod evaluate;
pub mod explain;
pub mod footprint;
pub mod hypothetical;
pub mod lint;
pub mod model;
pub mod nearest;
pub mod object;
mod reader;
pub mod references;
pub mod revocations;
pub mod roles;
pub mod shards;
pub mod snapshot;
pub mod spec;
pub mod subjects;
pub mod who;

pub use evaluate::{Decision, DryRun, Verdict, evaluate};
pub use object::{Document, Kind, ObjectId, PolicySet};
pub use snapshot::{Snapshot, SnapshotCell};

#[cfg(test)]
mod tests;
