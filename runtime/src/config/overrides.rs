//! One value laid over the file: from the environment or from `--set`.

use serde_json::{Map, Value};

use super::yaml;

/// A key path, its new value, and where it came from, for messages.
#[derive(Debug, Clone)]
pub(super) struct Override {
    pub(super) origin: String,
    pub(super) key: String,
    value: Value,
}

impl Override {
    /// The value is read as YAML, so that numbers, booleans and lists can be set.
    pub(super) fn new(origin: &str, key: &str, text: &str) -> Self {
        let value = serde_saphyr::from_str_with_options(text, yaml::strict(text));
        let value = value.unwrap_or_else(|_| Value::String(text.to_owned()));
        Self { origin: origin.to_owned(), key: key.to_owned(), value }
    }

    /// The value is taken as it is, as for URLs.
    pub(super) fn text(origin: &str, key: &str, text: &str) -> Self {
        Self { origin: origin.to_owned(), key: key.to_owned(), value: Value::String(text.to_owned()) }
    }

    /// Reads `key.path=value`.
    pub(super) fn parse_set(set: &str) -> Result<Self, String> {
        match set.split_once('=') {
            Some((key, value)) if !key.trim().is_empty() => {
                Ok(Self::new(&format!("--set {set}"), key.trim(), value))
            }
            _ => Err("expected key.path=value".to_owned()),
        }
    }

    /// Whether what is wrong with `key` may be its doing.
    pub(super) fn concerns(&self, key: &str) -> bool {
        // Entries of lists are `[0]` there and `.0` here.
        let key = key.replace('[', ".").replace(']', "");
        key.starts_with(&self.key) || self.key.starts_with(&key)
    }

    /// Sets the value, making the sections on the way; `clusters.0.name` reaches into lists.
    pub(super) fn apply(&self, root: &mut Value) -> Result<(), String> {
        let mut at = root;
        for part in self.key.split('.') {
            if at.is_null() {
                *at = Value::Object(Map::new());
            }
            at = match at {
                Value::Object(map) => map.entry(part.to_owned()).or_insert(Value::Null),
                Value::Array(list) => {
                    let length = list.len();
                    // One past the end adds an entry.
                    if part.parse() == Ok(length) {
                        list.push(Value::Null);
                    }
                    part.parse::<usize>().ok().and_then(|index| list.get_mut(index)).ok_or_else(|| {
                        format!("`{}`: `{part}` is not one of the {length} entries", self.key)
                    })?
                }
                _ => return Err(format!("`{}`: what stands before `{part}` is not a section", self.key)),
            };
        }
        *at = self.value.clone();
        Ok(())
    }
}
