//! Finding endpoints that the configuration does not list: by name, or in a file.

pub(super) mod dns;
pub(super) mod file;
mod public;

pub(crate) use public::is_public;
