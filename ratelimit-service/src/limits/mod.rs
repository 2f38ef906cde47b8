//! Which rule a descriptor falls under.
//!
//! Limits are written in envoyproxy/ratelimit's YAML. A folder of such files ([`folder`]) is read
//! into the shapes of [`mod@file`], checked and turned into a tree by [`compile`], and asked by
//! [`matching`]. The result is an immutable [`LimitSet`], swapped whole when the files change.

pub mod compile;
pub mod file;
pub mod folder;
pub mod matching;
pub mod rule;

pub use folder::{Domains, Folder};
pub use matching::{Domain, LimitSet};
pub use rule::{Algorithm, Allowance, Enforced, Limit, Mode, Rule, Source};
