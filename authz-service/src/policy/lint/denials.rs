//! What takes away: denials that can be walked around, and ends that have passed.

use super::Linter;
use crate::policy::object::{Document, ObjectId};

pub(super) fn other(_linter: &mut Linter<'_>, _id: &ObjectId, _document: &Document) {}
