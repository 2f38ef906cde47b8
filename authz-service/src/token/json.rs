//! JSON in which no object names a member twice, at any depth.
//!
//! Two parsers that disagree about which of two `sub` members counts see two users in one token. A token is read as a
//! tree that borrows its texts, because most of it is looked at once.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// Objects with fewer members are searched as they stand. Larger ones are looked up by a keyed hash: their names are
/// an attacker's, and time must not grow with their square.
const FEW: usize = 24;

/// One JSON value, its texts borrowed wherever they hold no escape.
#[derive(Debug, PartialEq)]
pub(super) enum Tree<'t> {
    Null,
    Bool(bool),
    Number(Number),
    Text(Cow<'t, str>),
    List(Vec<Self>),
    Object(Members<'t>),
}

/// The members of an object, in their order.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Members<'t>(Vec<(Cow<'t, str>, Tree<'t>)>);

/// Reads one JSON object.
pub(super) fn parse_members(bytes: &[u8]) -> Result<Members<'_>, serde_json::Error> {
    match serde_json::from_slice(bytes)? {
        Tree::Object(members) => Ok(members),
        _ => Err(serde_json::Error::custom("not an object")),
    }
}

/// Reads one JSON object that will be kept.
pub(super) fn parse_object(bytes: &[u8]) -> Result<Map<String, Value>, serde_json::Error> {
    Ok(parse_members(bytes)?.to_map())
}

impl<'t> Members<'t> {
    /// The member of this name.
    pub(super) fn get(&self, name: &str) -> Option<&Tree<'t>> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value)
    }

    /// The member, where there is just one.
    pub(super) fn only(&self) -> Option<(&str, &Tree<'t>)> {
        if let [(name, value)] = &self.0[..] { Some((name, value)) } else { None }
    }

    /// The same, owned.
    pub(super) fn to_map(&self) -> Map<String, Value> {
        self.0.iter().map(|(name, value)| (name.clone().into_owned(), value.to_value())).collect()
    }

    /// How many values there are, at every depth.
    pub(super) fn values(&self) -> usize {
        self.0.iter().map(|(_, value)| value.values()).sum()
    }
}

impl<'t> Tree<'t> {
    pub(super) fn as_text(&self) -> Option<&str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }

    pub(super) fn as_list(&self) -> Option<&[Self]> {
        if let Self::List(items) = self { Some(items) } else { None }
    }

    pub(super) fn as_object(&self) -> Option<&Members<'t>> {
        if let Self::Object(members) = self { Some(members) } else { None }
    }

    fn to_value(&self) -> Value {
        match self {
            Self::Null => Value::Null,
            Self::Bool(value) => Value::Bool(*value),
            Self::Number(number) => Value::Number(number.clone()),
            Self::Text(text) => Value::String(text.clone().into_owned()),
            Self::List(items) => Value::Array(items.iter().map(Self::to_value).collect()),
            Self::Object(members) => Value::Object(members.to_map()),
        }
    }

    fn values(&self) -> usize {
        match self {
            Self::List(items) => 1 + items.iter().map(Self::values).sum::<usize>(),
            Self::Object(members) => 1 + members.values(),
            _ => 1,
        }
    }
}

impl<'de> Deserialize<'de> for Tree<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TreeVisitor)
    }
}

struct TreeVisitor;

impl<'de> Visitor<'de> for TreeVisitor {
    type Value = Tree<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Tree::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Self::Value, E> {
        Ok(Tree::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Self::Value, E> {
        Ok(Tree::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Self::Value, E> {
        Ok(Tree::Number(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Self::Value, E> {
        Ok(Number::from_f64(value).map_or(Tree::Null, Tree::Number))
    }

    fn visit_borrowed_str<E>(self, value: &'de str) -> Result<Self::Value, E> {
        Ok(Tree::Text(Cow::Borrowed(value)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Self::Value, E> {
        Ok(Tree::Text(Cow::Owned(value.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = items.next_element()? {
            values.push(value);
        }
        Ok(Tree::List(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
        let mut members = Vec::new();
        while let Some((Name(name), value)) = entries.next_entry()? {
            members.push((name, value));
        }
        if any_twice(&members) {
            return Err(A::Error::custom("a member stands twice"));
        }
        Ok(Tree::Object(Members(members)))
    }
}

fn any_twice(members: &[(Cow<'_, str>, Tree<'_>)]) -> bool {
    let mut names = members.iter().map(|(name, _)| name);
    if members.len() < FEW {
        return members.iter().enumerate().any(|(at, (name, _))| names.clone().take(at).any(|n| n == name));
    }
    let mut seen = HashSet::with_capacity(members.len());
    !names.all(|name| seen.insert(name))
}

/// A member's name, borrowed where it can be.
struct Name<'t>(Cow<'t, str>);

impl<'de> Deserialize<'de> for Name<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Tree::deserialize(deserializer)? {
            Tree::Text(name) => Ok(Self(name)),
            _ => Err(D::Error::custom("the name of a member is no text")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_may_stand_once_at_every_depth() {
        assert!(parse_object(br#"{"a":1,"b":{"a":[1.5,-2,null,true,"x"]}}"#).is_ok());
        for text in [r#"{"a":1,"a":1}"#, r#"{"b":[{"a":1,"\u0061":2}]}"#, "[]", "1", "{", r#"{"a":1}x"#] {
            assert!(parse_object(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn a_member_stands_once_in_small_objects_and_in_large_ones() {
        for size in [1, 2, FEW - 1, FEW, FEW + 1, 500] {
            for twice in [None, Some(0), Some(size / 2), Some(size - 1)] {
                let names = (0..size).chain(twice).map(|n| format!(r#""n{n}":{n}"#)).collect::<Vec<_>>();
                let text = format!("{{{}}}", names.join(","));
                assert_eq!(parse_object(text.as_bytes()).is_err(), twice.is_some(), "{size} {twice:?}");
            }
        }
    }

    #[test]
    fn what_is_read_is_what_serde_reads() {
        let text =
            br#"{"a":"\u00e9\n","\"":[1,-1,1.5,1e400,{}],"big":18446744073709551615,"n":null,"t":[true,[]]}"#;
        assert!(parse_object(text).is_err(), "a number beyond all numbers");
        let text =
            br#"{"a":"\u00e9\n","\"":[1,-1,1.5,1e40,{}],"big":18446744073709551615,"n":null,"t":[true,[]]}"#;
        let known: Map<String, Value> = serde_json::from_slice(text).unwrap();
        assert_eq!(parse_object(text).unwrap(), known);
        assert_eq!(parse_members(text).unwrap().values(), 12);
    }
}
