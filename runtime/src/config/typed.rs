//! A value of any shape, read into a type. What is wrong is told with the key that it stands at.
//!
//! One reader for everything that is laid together from files, the environment and flags: what a type needs to be read
//! is compiled once for each reader, and it is more than all else in a proxy.

use std::fmt;
use std::sync::LazyLock;

use serde::de::value::StrDeserializer;
use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, Error, Expected, IntoDeserializer,
    MapAccess, SeqAccess, Unexpected, VariantAccess, Visitor,
};
use serde::forward_to_deserialize_any;
use serde_json::{Map, Value};

/// What is wrong, and where.
#[derive(Debug)]
pub(super) struct Wrong(Box<Place>);

#[derive(Debug)]
struct Place {
    /// As `routes[2].backends`, from the outermost key; empty for the whole.
    key: String,
    problem: String,
}

impl Wrong {
    /// The key, as `routes[2].backends[0].cluster`, and the problem.
    pub(super) fn into_parts(self) -> (String, String) {
        (self.0.key, self.0.problem)
    }

    fn below(mut self, step: &str) -> Self {
        let dot = if self.0.key.is_empty() || self.0.key.starts_with('[') { "" } else { "." };
        self.0.key = format!("{step}{dot}{}", self.0.key);
        self
    }
}

impl Error for Wrong {
    fn custom<T: fmt::Display>(problem: T) -> Self {
        Self(Box::new(Place { key: String::new(), problem: problem.to_string() }))
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::custom(format_args!("{}; expected {expected}", kind(found)))
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        match found {
            // Where a number may stand, and this one may not: no secret is one.
            Unexpected::Unsigned(number) => Self::custom(format_args!("{number}; expected {expected}")),
            Unexpected::Signed(number) => Self::custom(format_args!("{number}; expected {expected}")),
            _ => Self::invalid_type(found, expected),
        }
    }
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.problem)
    }
}

impl std::error::Error for Wrong {}

/// Reads a value into a type.
pub(super) fn read<T: DeserializeOwned>(value: &Value) -> Result<T, Wrong> {
    T::deserialize(Reader(value))
}

static NO_KEYS: LazyLock<Value> = LazyLock::new(|| Value::Object(Map::new()));
static NO_ENTRIES: Value = Value::Array(Vec::new());

#[derive(Clone, Copy)]
struct Reader<'v>(&'v Value);

impl<'v> Reader<'v> {
    /// A section in which nothing stands has every default, a list has no entries.
    fn or(self, empty: &'v Value) -> Self {
        if self.0.is_null() { Self(empty) } else { self }
    }

    fn text<V: Visitor<'v>>(self, visitor: V) -> Result<V::Value, Wrong> {
        match self.0 {
            // Its own spelling is gone: 1.10 would be another text. It may be a secret, so it is not shown.
            Value::Number(_) => Err(Wrong::custom("a number; expected a text, in quotes")),
            Value::Bool(_) => Err(Wrong::custom("a boolean; expected a text, in quotes")),
            _ => self.deserialize_any(visitor),
        }
    }

    /// Numbers and booleans may stand in quotes, as templates write them.
    fn plain<V: Visitor<'v>>(self, visitor: V) -> Result<V::Value, Wrong> {
        let Value::String(text) = self.0 else { return self.deserialize_any(visitor) };
        match (text.as_str(), text.parse::<u64>(), text.parse::<i64>(), text.parse::<f64>()) {
            ("true", ..) => visitor.visit_bool(true),
            ("false", ..) => visitor.visit_bool(false),
            (_, Ok(value), ..) => visitor.visit_u64(value),
            (_, _, Ok(value), _) => visitor.visit_i64(value),
            (_, _, _, Ok(value)) if value.is_finite() => visitor.visit_f64(value),
            _ => self.deserialize_any(visitor),
        }
    }
}

/// What was found, without its value, which may be a secret.
fn kind(found: Unexpected<'_>) -> &'static str {
    match found {
        Unexpected::Bool(_) => "a boolean",
        Unexpected::Unsigned(_) | Unexpected::Signed(_) | Unexpected::Float(_) => "a number",
        Unexpected::Char(_) | Unexpected::Str(_) => "a text",
        Unexpected::Seq => "a list",
        Unexpected::Map => "keys with values",
        Unexpected::Unit | Unexpected::Option => "nothing",
        _ => "something else",
    }
}

macro_rules! plain {
    ($($method:ident)*) => {
        $(fn $method<V: Visitor<'v>>(self, visitor: V) -> Result<V::Value, Wrong> {
            self.plain(visitor)
        })*
    };
}

impl<'v> Deserializer<'v> for Reader<'v> {
    type Error = Wrong;

    fn deserialize_any<V: Visitor<'v>>(self, visitor: V) -> Result<V::Value, Wrong> {
        match self.0 {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::String(text) => visitor.visit_borrowed_str(text),
            Value::Array(list) => {
                let mut entries = Entries { left: list.iter(), at: 0 };
                let read = visitor.visit_seq(&mut entries)?;
                match entries.left.len() {
                    0 => Ok(read),
                    more => {
                        Err(Wrong::custom(format!("{} entries; expected {}", list.len(), list.len() - more)))
                    }
                }
            }
            Value::Object(map) => visitor.visit_map(Fields { left: map.iter(), current: None }),
            Value::Number(number) => match (number.as_u64(), number.as_i64(), number.as_f64()) {
                (Some(value), ..) => visitor.visit_u64(value),
                (None, Some(value), _) => visitor.visit_i64(value),
                (None, None, value) => visitor.visit_f64(value.unwrap_or(f64::NAN)),
            },
        }
    }

    fn deserialize_option<V: Visitor<'v>>(self, visitor: V) -> Result<V::Value, Wrong> {
        match self.0 {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_str<V: Visitor<'v>>(self, visitor: V) -> Result<V::Value, Wrong> {
        self.text(visitor)
    }

    fn deserialize_string<V: Visitor<'v>>(self, visitor: V) -> Result<V::Value, Wrong> {
        self.text(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'v>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Wrong> {
        visitor.visit_newtype_struct(self)
    }

    plain! {
        deserialize_bool deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_i128 deserialize_u8
        deserialize_u16 deserialize_u32 deserialize_u64 deserialize_u128 deserialize_f32 deserialize_f64
    }

    fn deserialize_map<V: Visitor<'v>>(self, visitor: V) -> Result<V::Value, Wrong> {
        self.or(&NO_KEYS).deserialize_any(visitor)
    }

    fn deserialize_seq<V: Visitor<'v>>(self, visitor: V) -> Result<V::Value, Wrong> {
        self.or(&NO_ENTRIES).deserialize_any(visitor)
    }

    fn deserialize_struct<V: Visitor<'v>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Wrong> {
        match self.0 {
            // Values without their keys.
            Value::Array(_) => Err(Wrong::invalid_type(Unexpected::Seq, &visitor)),
            _ => self.deserialize_map(visitor),
        }
    }

    fn deserialize_enum<V: Visitor<'v>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Wrong> {
        match self.0 {
            Value::String(name) => visitor.visit_enum(Variant { name, content: None }),
            Value::Object(map) => match single(map) {
                Some((name, content)) => visitor.visit_enum(Variant { name, content: Some(content) }),
                None => Err(Wrong::invalid_value(Unexpected::Map, &"a map with one key")),
            },
            _ => self.text(visitor),
        }
    }

    forward_to_deserialize_any! {
        <W: Visitor<'v>>
        char bytes byte_buf unit unit_struct tuple tuple_struct identifier ignored_any
    }
}

fn single(map: &Map<String, Value>) -> Option<(&str, &Value)> {
    let mut entries = map.iter();
    let (name, content) = entries.next()?;
    entries.next().is_none().then_some((name, content))
}

struct Entries<'v> {
    left: std::slice::Iter<'v, Value>,
    at: usize,
}

impl<'v> SeqAccess<'v> for Entries<'v> {
    type Error = Wrong;

    fn next_element_seed<S: DeserializeSeed<'v>>(&mut self, seed: S) -> Result<Option<S::Value>, Wrong> {
        let Some(value) = self.left.next() else { return Ok(None) };
        let at = self.at;
        self.at += 1;
        seed.deserialize(Reader(value)).map(Some).map_err(|wrong| wrong.below(&format!("[{at}]")))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.left.len())
    }
}

struct Fields<'v> {
    left: serde_json::map::Iter<'v>,
    current: Option<(&'v str, &'v Value)>,
}

impl<'v> MapAccess<'v> for Fields<'v> {
    type Error = Wrong;

    fn next_key_seed<S: DeserializeSeed<'v>>(&mut self, seed: S) -> Result<Option<S::Value>, Wrong> {
        let Some((name, value)) = self.left.next() else { return Ok(None) };
        self.current = Some((name, value));
        seed.deserialize(name_of(name)).map(Some).map_err(|wrong| wrong.below(name))
    }

    fn next_value_seed<S: DeserializeSeed<'v>>(&mut self, seed: S) -> Result<S::Value, Wrong> {
        // serde asks for a key first.
        let (name, value) = self.current.take().unwrap_or(("", &Value::Null));
        seed.deserialize(Reader(value)).map_err(|wrong| wrong.below(name))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.left.len())
    }
}

fn name_of(name: &str) -> StrDeserializer<'_, Wrong> {
    name.into_deserializer()
}

struct Variant<'v> {
    name: &'v str,
    content: Option<&'v Value>,
}

impl<'v> EnumAccess<'v> for Variant<'v> {
    type Error = Wrong;
    type Variant = Self;

    fn variant_seed<S: DeserializeSeed<'v>>(self, seed: S) -> Result<(S::Value, Self), Wrong> {
        let place = if self.content.is_some() { self.name } else { "" };
        let variant = seed.deserialize(name_of(self.name)).map_err(|wrong| match place {
            "" => wrong,
            name => wrong.below(name),
        })?;
        Ok((variant, self))
    }
}

impl<'v> Variant<'v> {
    fn content(&self, expected: &str) -> Result<Reader<'v>, Wrong> {
        let missing =
            || Wrong::custom(format!("`{}` says too little; expected {expected} below it", self.name));
        self.content.map(Reader).ok_or_else(missing)
    }
}

impl<'v> VariantAccess<'v> for Variant<'v> {
    type Error = Wrong;

    fn unit_variant(self) -> Result<(), Wrong> {
        match self.content {
            None | Some(Value::Null) => Ok(()),
            Some(_) => Err(Wrong::custom(format!("nothing stands below `{}`", self.name)).below(self.name)),
        }
    }

    fn newtype_variant_seed<S: DeserializeSeed<'v>>(self, seed: S) -> Result<S::Value, Wrong> {
        let content = self.content("a value")?;
        seed.deserialize(content).map_err(|wrong| wrong.below(self.name))
    }

    fn tuple_variant<V: Visitor<'v>>(self, _: usize, visitor: V) -> Result<V::Value, Wrong> {
        let content = self.content("a list")?;
        content.deserialize_any(visitor).map_err(|wrong| wrong.below(self.name))
    }

    fn struct_variant<V: Visitor<'v>>(
        self,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Wrong> {
        let content = self.content("keys")?;
        content.deserialize_struct("", &[], visitor).map_err(|wrong| wrong.below(self.name))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;
    use serde_json::json;

    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Shop {
        name: String,
        #[serde(default)]
        ratio: Option<f64>,
        #[serde(default)]
        pair: Option<(u8, i64)>,
        #[serde(default)]
        goods: Vec<Goods>,
        #[serde(default)]
        prices: BTreeMap<String, u32>,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Goods {
        Nothing,
        Apples(u32),
        Bread { loaves: u32 },
        Both(u32, u32),
    }

    #[test]
    fn every_shape_is_read() {
        let value = json!({
            "name": "corner", "ratio": 1, "pair": [7, -3], "prices": {"apple": 3},
            "goods": ["nothing", {"apples": 2}, {"bread": {"loaves": 1}}, {"both": [1, 2]}],
        });
        let shop = Shop {
            name: "corner".to_owned(),
            ratio: Some(1.0),
            pair: Some((7, -3)),
            goods: vec![Goods::Nothing, Goods::Apples(2), Goods::Bread { loaves: 1 }, Goods::Both(1, 2)],
            prices: BTreeMap::from([("apple".to_owned(), 3)]),
        };
        assert_eq!(read::<Shop>(&value).unwrap(), shop);
        assert_eq!(read::<Shop>(&json!({"name": "n", "ratio": null})).unwrap().ratio, None);
        let quoted = json!({"name": "n", "ratio": "0.5", "pair": ["7", "-3"], "goods": null, "prices": null});
        let shop = read::<Shop>(&quoted).unwrap();
        assert_eq!((shop.ratio, shop.pair, shop.goods.len()), (Some(0.5), Some((7, -3)), 0));
    }

    #[test]
    fn what_is_wrong_is_told_with_its_key() {
        for (value, key, problem) in [
            (json!({}), "", "missing field `name`"),
            (json!({"name": 404}), "name", "a number; expected a text, in quotes"),
            (json!({"name": true}), "name", "a boolean; expected a text, in quotes"),
            (json!({"name": "n", "nam": 1}), "nam", "unknown field `nam`, expected one of"),
            (json!({"name": "n", "pair": [1, 2, 3]}), "pair", "3 entries; expected 2"),
            (json!({"name": "n", "pair": [1]}), "pair", "invalid length 1"),
            (json!({"name": "n", "pair": [1, "x"]}), "pair[1]", "a text; expected i64"),
            (json!({"name": "n", "pair": [300, 0]}), "pair[0]", "300; expected u8"),
            (json!({"name": "n", "prices": {"a": -1}}), "prices.a", "-1; expected u32"),
            (json!({"name": "n", "goods": ["pears"]}), "goods[0]", "unknown variant `pears`"),
            (json!({"name": "n", "goods": [{"pears": 1}]}), "goods[0].pears", "unknown variant `pears`"),
            (json!({"name": "n", "goods": [{"apples": "x"}]}), "goods[0].apples", "expected u32"),
            (json!({"name": "n", "goods": ["apples"]}), "goods[0]", "expected a value below it"),
            (json!({"name": "n", "goods": [{"nothing": 1}]}), "goods[0].nothing", "nothing stands below"),
            (
                json!({"name": "n", "goods": [{"bread": {"loaves": []}}]}),
                "goods[0].bread.loaves",
                "expected u32",
            ),
            (json!({"name": "n", "goods": [{"apples": 1, "nothing": 1}]}), "goods[0]", "a map with one key"),
            (
                json!({"name": "n", "goods": [{"bread": [1]}]}),
                "goods[0].bread",
                "a list; expected struct variant",
            ),
            (json!({"name": "n", "goods": [7]}), "goods[0]", "a number; expected a text, in quotes"),
            (json!({"name": "n", "goods": "s3cret"}), "goods", "a text; expected a sequence"),
            (json!(["name"]), "", "a list; expected struct Shop"),
        ] {
            let (at, told) = read::<Shop>(&value).unwrap_err().into_parts();
            assert_eq!(at, key, "{value}");
            assert!(told.contains(problem), "{value}: {told}");
            assert!(!told.contains("s3cret"), "{told}");
        }
    }
}
