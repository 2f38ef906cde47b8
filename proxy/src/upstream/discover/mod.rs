//! Finding endpoints that the configuration does not list: by name, in a file, or by what Kubernetes tells.

pub(super) mod dns;
pub(super) mod file;
mod public;
#[cfg(feature = "kubernetes")]
pub(super) mod slices;

pub(crate) use public::is_public;
