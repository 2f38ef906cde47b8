//! Small values that people write as one word.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserializer, Error, Visitor};
use serde::{Deserialize, Serialize, Serializer};

/// A workload or service by namespace and name, written `insurance/policies`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Workload {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl Serialize for Workload {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Workload {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        match text.split_once('/') {
            Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() && !name.contains('/') => {
                Ok(Self { namespace: namespace.to_owned(), name: name.to_owned() })
            }
            _ => Err(D::Error::custom(format!("`{text}` is not written `namespace/name`"))),
        }
    }
}

impl JsonSchema for Workload {
    fn schema_name() -> Cow<'static, str> {
        "Workload".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "pattern": "^[^/]+/[^/]+$", "description": "namespace/name"})
    }
}

/// Reads one of these words. Some YAML readers hand `on` and `off` over as booleans.
pub(super) fn one_of<'de, D: Deserializer<'de>, T, const N: usize>(
    deserializer: D,
    words: [(&str, T); N],
) -> Result<T, D::Error> {
    struct Word;

    impl Visitor<'_> for Word {
        type Value = String;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a word such as `on` or `off`")
        }

        fn visit_bool<E>(self, value: bool) -> Result<String, E> {
            Ok(if value { "on" } else { "off" }.to_owned())
        }

        fn visit_str<E>(self, value: &str) -> Result<String, E> {
            Ok(value.to_owned())
        }
    }

    let found = deserializer.deserialize_any(Word)?;
    let expected = words.each_ref().map(|(word, _)| *word).join(", ");
    let fits = words.into_iter().find(|(word, _)| *word == found).map(|(_, value)| value);
    fits.ok_or_else(|| D::Error::custom(format!("`{found}` is none of them; expected one of {expected}")))
}

/// A share of requests, written as a percentage: `10`, `0.5`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Percent {
    millionths: u32,
}

const MILLION: u32 = 1_000_000;

impl Percent {
    /// Every request.
    pub const fn all() -> Self {
        Self { millionths: MILLION }
    }

    /// So many of a hundred.
    pub const fn of_hundred(percent: u32) -> Self {
        Self { millionths: if percent > 100 { MILLION } else { percent * (MILLION / 100) } }
    }

    /// So many of a million.
    pub const fn of_millionths(millionths: u32) -> Self {
        Self { millionths: if millionths > MILLION { MILLION } else { millionths } }
    }

    /// How many of a million.
    pub const fn millionths(self) -> u32 {
        self.millionths
    }

    /// Whether the number `draw` falls into this share; evenly spread numbers do so in proportion.
    pub fn includes(self, draw: u64) -> bool {
        let point = (u128::from(draw) * u128::from(MILLION)) >> 64;
        point < u128::from(self.millionths)
    }

    /// The share as a number from 0 to 1.
    pub fn fraction(self) -> f64 {
        f64::from(self.millionths) / f64::from(MILLION)
    }

    /// How many of `count` that is, rounded down.
    pub fn of(self, count: usize) -> usize {
        usize::try_from(count as u128 * u128::from(self.millionths) / u128::from(MILLION)).unwrap_or(count)
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} %", self.fraction() * 100.0)
    }
}

impl Serialize for Percent {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(self.fraction() * 100.0)
    }
}

impl<'de> Deserialize<'de> for Percent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let percent = f64::deserialize(deserializer)?;
        if !(0.0..=100.0).contains(&percent) {
            return Err(D::Error::custom(format!("{percent} is not a percentage; expected 0 to 100")));
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the range was checked")]
        let millionths = (percent * f64::from(MILLION / 100)).round() as u32;
        Ok(Self { millionths })
    }
}

impl JsonSchema for Percent {
    fn schema_name() -> Cow<'static, str> {
        "Percent".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "number", "minimum": 0, "maximum": 100})
    }
}

/// How many times as much: `1.5`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Times {
    thousandths: u32,
}

impl Times {
    /// So many thousandths.
    pub const fn of_thousandths(thousandths: u32) -> Self {
        Self { thousandths }
    }

    /// How many thousandths.
    pub const fn thousandths(self) -> u32 {
        self.thousandths
    }
}

impl Serialize for Times {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(f64::from(self.thousandths) / 1000.0)
    }
}

impl<'de> Deserialize<'de> for Times {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let times = f64::deserialize(deserializer)?;
        if !(0.0..=1_000_000.0).contains(&times) {
            return Err(D::Error::custom(format!("{times} is no ratio; expected a number such as 1.5")));
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the range was checked")]
        let thousandths = (times * 1000.0).round() as u32;
        Ok(Self { thousandths })
    }
}

impl JsonSchema for Times {
    fn schema_name() -> Cow<'static, str> {
        "Times".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "number", "minimum": 0})
    }
}
