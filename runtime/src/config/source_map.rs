//! Where each key of a YAML text stands, for checks that run after parsing.

use indexmap::IndexMap;
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;

/// Lines and columns of the keys of one document.
#[derive(Debug, Default)]
pub struct SourceMap(Option<Spanned<Node>>);

#[derive(Debug)]
enum Node {
    Map(IndexMap<String, Spanned<Node>>),
    List(Vec<Spanned<Node>>),
    Leaf,
}

impl SourceMap {
    /// Reads the shape of `text`; a text that does not parse has no places.
    pub fn of(text: &str) -> Self {
        Self(serde_saphyr::from_str_with_options(text, super::yaml::options(text)).ok())
    }

    /// Line and column of `routes[2].backends[0].cluster`, or of the nearest key above it that exists.
    pub fn line_of(&self, key: &str) -> Option<(u32, u32)> {
        let mut at = self.0.as_ref()?;
        for step in key.split(['.', '[', ']']).filter(|step| !step.is_empty()) {
            let next = match &at.value {
                Node::Map(map) => map.get(step),
                Node::List(list) => step.parse::<usize>().ok().and_then(|index| list.get(index)),
                Node::Leaf => None,
            };
            match next {
                Some(next) => at = next,
                None => break,
            }
        }
        let place = at.referenced;
        Some((u32::try_from(place.line()).ok()?, u32::try_from(place.column()).ok()?))
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Shape;

        impl<'de> Visitor<'de> for Shape {
            type Value = Node;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("any YAML")
            }

            fn visit_bool<E>(self, _: bool) -> Result<Node, E> {
                Ok(Node::Leaf)
            }

            fn visit_i64<E>(self, _: i64) -> Result<Node, E> {
                Ok(Node::Leaf)
            }

            fn visit_u64<E>(self, _: u64) -> Result<Node, E> {
                Ok(Node::Leaf)
            }

            fn visit_f64<E>(self, _: f64) -> Result<Node, E> {
                Ok(Node::Leaf)
            }

            fn visit_str<E>(self, _: &str) -> Result<Node, E> {
                Ok(Node::Leaf)
            }

            fn visit_unit<E>(self) -> Result<Node, E> {
                Ok(Node::Leaf)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Node, A::Error> {
                let mut list = Vec::new();
                while let Some(item) = seq.next_element()? {
                    list.push(item);
                }
                Ok(Node::List(list))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Node, A::Error> {
                let mut map = IndexMap::new();
                while let Some(key) = access.next_key::<String>()? {
                    map.insert(key, access.next_value()?);
                }
                Ok(Node::Map(map))
            }
        }

        deserializer.deserialize_any(Shape)
    }
}
