//! What a change would do, as a person reads it before it happens.

use similar::TextDiff;

use super::object::{Document, ObjectId, PolicySet};
use crate::store::Change;

/// Every object that differs between two policies.
pub fn changes(before: &PolicySet, after: &PolicySet) -> Vec<Change> {
    let mut ids: Vec<&ObjectId> = before.keys().chain(after.keys()).collect();
    ids.sort();
    ids.dedup();
    ids.into_iter()
        .map(|id| Change {
            object: id.clone(),
            before: before.get(id).cloned(),
            after: after.get(id).cloned(),
        })
        .filter(|change| change.before != change.after)
        .collect()
}

/// A diff of two policies: `+` for new, `-` for removed, `~` with the changed lines for changed objects.
pub fn diff(before: &PolicySet, after: &PolicySet) -> String {
    print(&changes(before, after))
}

/// Prints changes; empty where there are none.
pub fn print(changes: &[Change]) -> String {
    let mut text = String::new();
    for change in changes {
        match (&change.before, &change.after) {
            (None, Some(after)) => section(&mut text, '+', &change.object, "", &yaml(after)),
            (Some(before), None) => section(&mut text, '-', &change.object, &yaml(before), ""),
            (Some(before), Some(after)) => {
                section(&mut text, '~', &change.object, &yaml(before), &yaml(after));
            }
            (None, None) => {}
        }
    }
    text
}

fn section(text: &mut String, sign: char, id: &ObjectId, before: &str, after: &str) {
    text.push_str(&format!("{sign} {id}\n"));
    let diff = TextDiff::from_lines(before, after);
    for group in diff.grouped_ops(1) {
        for change in group.iter().flat_map(|op| diff.iter_changes(op)) {
            let sign = match change.tag() {
                similar::ChangeTag::Delete => '-',
                similar::ChangeTag::Insert => '+',
                similar::ChangeTag::Equal => ' ',
            };
            text.push_str(&format!("    {sign} {}\n", change.value().trim_end()));
        }
    }
}

fn yaml(document: &Document) -> String {
    super::documents::to_yaml(document)
}
