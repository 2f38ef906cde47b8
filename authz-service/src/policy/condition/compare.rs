//! Comparing claims and headers with what a policy names.

use serde_json::{Map, Number, Value};

use super::Truth;

/// Where a claim stands: its name, which may also be a path into nested objects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimPath {
    name: Box<str>,
    nested: Option<Nested>,
}

/// The same name, cut at its dots.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Nested {
    outer: Box<str>,
    inner: Box<[Box<str>]>,
}

impl ClaimPath {
    /// Reads `name` or `outer.inner`.
    pub fn parse(text: &str) -> Option<Self> {
        if text.split('.').any(str::is_empty) {
            return None;
        }
        let nested = text.split_once('.').map(|(outer, rest)| Nested {
            outer: outer.into(),
            inner: rest.split('.').map(Into::into).collect(),
        });
        Some(Self { name: text.into(), nested })
    }

    /// As written.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The claim. One whose name has dots in it (`https://example.com/tier`) comes before a path; `null` is absent.
    pub fn find<'c>(&self, claims: &'c Map<String, Value>) -> Option<&'c Value> {
        let found = claims.get(&*self.name).or_else(|| {
            let Nested { outer, inner } = self.nested.as_ref()?;
            inner.iter().try_fold(claims.get(&**outer)?, |value, part| value.get(&**part))
        });
        found.filter(|value| !value.is_null())
    }
}

/// A value that can be compared.
#[derive(Debug, Clone, PartialEq)]
pub enum Scalar {
    /// A text.
    Text(Box<str>),
    /// A number.
    Number(Number),
    /// A truth value.
    Truth(bool),
}

impl Scalar {
    /// Reads a value of one of these types.
    pub fn of(value: &Value) -> Option<Self> {
        match value {
            Value::String(text) => Some(Self::Text(text.as_str().into())),
            Value::Number(number) => Some(Self::Number(number.clone())),
            Value::Bool(truth) => Some(Self::Truth(*truth)),
            Value::Null | Value::Array(_) | Value::Object(_) => None,
        }
    }

    /// Whether both have the same type.
    pub const fn is_like(&self, other: &Self) -> bool {
        matches!(
            (self, other),
            (Self::Text(_), Self::Text(_))
                | (Self::Number(_), Self::Number(_))
                | (Self::Truth(_), Self::Truth(_))
        )
    }

    /// Whether it is this text.
    pub fn is_text(&self, text: &str) -> bool {
        matches!(self, Self::Text(own) if **own == *text)
    }

    fn is(&self, value: &Value) -> Truth {
        match (self, value) {
            (Self::Text(text), Value::String(other)) => Truth::from(**text == **other),
            (Self::Number(number), Value::Number(other)) => Truth::from(same_number(number, other)),
            (Self::Truth(truth), Value::Bool(other)) => Truth::from(truth == other),
            _ => Truth::Error,
        }
    }
}

/// `1` and `1.0` are the same number, however they are written.
fn same_number(one: &Number, other: &Number) -> bool {
    one == other || (one.is_f64() || other.is_f64()) && one.as_f64() == other.as_f64()
}

/// What a claim or a header is compared with.
#[derive(Debug, Clone, PartialEq)]
pub enum Test {
    /// It is one of these, which have one type.
    OneOf(Box<[Scalar]>),
    /// It is a text that starts so.
    Prefix(Box<str>),
    /// It is a list that has this.
    Contains(Scalar),
}

impl Test {
    /// Whether it can be asked of a text.
    pub fn is_of_texts(&self) -> bool {
        match self {
            Self::OneOf(values) => values.iter().all(|value| matches!(value, Scalar::Text(_))),
            Self::Prefix(_) => true,
            Self::Contains(value) => matches!(value, Scalar::Text(_)),
        }
    }

    /// Asks a claim that is present.
    pub(super) fn of_claim(&self, claim: &Value) -> Truth {
        match (self, claim) {
            (Self::OneOf(values), claim) => any(values.iter().map(|value| value.is(claim))),
            (Self::Prefix(prefix), Value::String(text)) => Truth::from(text.starts_with(&**prefix)),
            (Self::Prefix(_), _) => Truth::Error,
            (Self::Contains(value), Value::Array(items)) => any(items.iter().map(|item| value.is(item))),
            (Self::Contains(value), lone) => value.is(lone),
        }
    }

    /// Asks a text.
    pub(super) fn of_text(&self, text: &str) -> bool {
        match self {
            Self::OneOf(values) => values.iter().any(|value| value.is_text(text)),
            Self::Prefix(prefix) => text.starts_with(&**prefix),
            Self::Contains(value) => value.is_text(text),
        }
    }
}

fn any(mut truths: impl Iterator<Item = Truth>) -> Truth {
    let found = truths.try_fold(Truth::False, |sofar, truth| match truth {
        Truth::True => Err(()),
        Truth::Error => Ok(Truth::Error),
        Truth::False => Ok(sofar),
    });
    found.unwrap_or(Truth::True)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn claims_are_found_by_name_and_by_path() {
        let claims = json!({"tier": "gold", "a": {"b": {"c": 1}}, "a.b": 2, "none": null});
        let claims = claims.as_object().unwrap();
        for (path, expected) in [
            ("tier", Some(json!("gold"))),
            ("a.b.c", Some(json!(1))),
            ("a.b", Some(json!(2))),
            ("a.x", None),
            ("tier.x", None),
            ("none", None),
        ] {
            let path = ClaimPath::parse(path).unwrap();
            assert_eq!(path.find(claims), expected.as_ref(), "{path:?}");
        }
        assert!(ClaimPath::parse("").is_none() && ClaimPath::parse("a..b").is_none());
    }

    #[test]
    fn a_wrong_type_is_an_error_and_never_an_answer() {
        let scalar = |value| Scalar::of(&value).unwrap();
        let one_of = |value| Test::OneOf(Box::from([scalar(value)]));
        for (test, claim, expected) in [
            (one_of(json!("gold")), json!("gold"), Truth::True),
            (one_of(json!("gold")), json!("silver"), Truth::False),
            (one_of(json!("gold")), json!(["gold"]), Truth::Error),
            (one_of(json!("1")), json!(1), Truth::Error),
            (one_of(json!(1)), json!(1.0), Truth::True),
            (one_of(json!(true)), json!(false), Truth::False),
            (Test::Prefix("go".into()), json!("gold"), Truth::True),
            (Test::Prefix("go".into()), json!({"go": 1}), Truth::Error),
            (Test::Contains(scalar(json!("a"))), json!(["b", "a"]), Truth::True),
            (Test::Contains(scalar(json!("a"))), json!([1, "a"]), Truth::True),
            (Test::Contains(scalar(json!("a"))), json!([1, "b"]), Truth::Error),
            (Test::Contains(scalar(json!("a"))), json!([]), Truth::False),
            (Test::Contains(scalar(json!("a"))), json!("a"), Truth::True),
            (Test::Contains(scalar(json!("a"))), json!({}), Truth::Error),
        ] {
            assert_eq!(test.of_claim(&claim), expected, "{test:?} of {claim}");
        }
    }
}
