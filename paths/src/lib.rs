//! What a request path means: its normal form, and the templates that match it.
//!
//! The proxy routes by path and the authorization service grants by path. Both use this crate, because a path
//! that the two of them read differently is a way around the policy. Everything here is pure: text in, text or
//! a verdict out, and no allocation for a path that is already in its normal form.
//!
//! * [`normalize()`]: one spelling for every path, at the level that an upstream needs.
//! * [`SentPath::readings`]: every way in which an upstream may read a path, by what it declares ([`Upstream`]).
//! * [`Template`]: `/policies/{id}`, `/files/{**}`.
//! * [`TemplateTrie`]: all templates that match a path, the most specific first.

mod normalize;
mod readings;
mod spell;
mod template;
mod trie;
mod upstream;

pub use normalize::{Level, PathError, is_normal, normalize};
pub use readings::{MAX_READINGS, Readings, SentPath, TooManyReadings, shown};
pub use template::{MAX_SEGMENTS, Template, TemplateError};
pub use trie::{Matches, TemplateTrie};
pub use upstream::{Spelling, Upstream};
