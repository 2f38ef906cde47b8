//! Conditions: from what was written to something that can be asked.

use serde_json::Value;

use super::Checker;
use crate::policy::condition::{ClaimPath, Condition, Network, Scalar, Test, Week};
use crate::policy::object::ObjectId;
use crate::policy::spec::ConditionSpec;

/// How deep conditions may stand in each other.
const MAX_DEPTH: usize = 8;
/// How many comparisons one `when` may have.
const MAX_TERMS: usize = 64;

const KINDS: &str = "give exactly one of claim, header, source_cidr, time, all, any and not";
const TESTS: &str = "give exactly one of equals, in, prefix and contains";

impl Checker<'_> {
    /// The condition of a permission, a binding or a denial, if it has one.
    pub(super) fn when(
        &mut self,
        id: &ObjectId,
        at: &str,
        spec: Option<&ConditionSpec>,
    ) -> Option<Box<Condition>> {
        let mut terms = 0;
        let condition = self.condition(id, at, spec?, (1, &mut terms));
        if terms > MAX_TERMS {
            self.fault(id, at, format!("makes {terms} comparisons, more than {MAX_TERMS}"));
        }
        condition.map(Box::new)
    }

    fn condition(
        &mut self,
        id: &ObjectId,
        at: &str,
        spec: &ConditionSpec,
        (depth, terms): (usize, &mut usize),
    ) -> Option<Condition> {
        if depth > MAX_DEPTH {
            self.fault(id, at, format!("conditions stand in each other more than {MAX_DEPTH} deep"));
            return None;
        }
        if !self.is_one_condition(id, at, spec) {
            return None;
        }
        if let Some(name) = &spec.claim {
            *terms += 1;
            let path = ClaimPath::parse(name).ok_or_else(|| "names no claim".to_owned());
            let path = self.take(id, || format!("{at}.claim"), path);
            let test = self.test(id, at, spec);
            return path.zip(test).map(|(path, test)| Condition::Claim(path, test));
        }
        if let Some(name) = &spec.header {
            *terms += 1;
            let lower = name.to_ascii_lowercase();
            let sound =
                is_header_name(&lower).then_some(lower).ok_or_else(|| format!("`{name}` is no header"));
            let name = self.take(id, || format!("{at}.header"), sound);
            let test = self.test(id, at, spec);
            if test.as_ref().is_some_and(|test| !test.is_of_texts()) {
                self.fault(id, at, "headers are texts; write what they are compared with in quotes");
            }
            return name.zip(test).map(|(name, test)| Condition::Header(name.into(), test));
        }
        if let Some(networks) = &spec.source_cidr {
            *terms += networks.len();
            if networks.is_empty() {
                self.fault(id, format!("{at}.source_cidr"), "names no network");
            }
            let mut parsed = Vec::new();
            for (index, network) in networks.iter().enumerate() {
                let network = Network::parse(network);
                parsed.extend(self.take(id, || format!("{at}.source_cidr[{index}]"), network));
            }
            return Some(Condition::Source(parsed.into()));
        }
        if let Some(time) = &spec.time {
            *terms += 1;
            return match Week::parse(time) {
                Ok(week) => Some(Condition::Time(Box::new(week))),
                Err((key, problem)) => {
                    self.fault(id, format!("{at}.time.{key}"), problem);
                    None
                }
            };
        }
        if let Some(inner) = &spec.not {
            let inner = self.condition(id, &format!("{at}.not"), inner, (depth + 1, terms))?;
            return Some(Condition::Not(Box::new(inner)));
        }
        let (word, parts) = match (&spec.all, &spec.any) {
            (Some(parts), _) => ("all", parts),
            (None, Some(parts)) => ("any", parts),
            (None, None) => return None,
        };
        if parts.is_empty() {
            self.fault(id, format!("{at}.{word}"), "has no parts");
        }
        let mut conditions = Vec::with_capacity(parts.len());
        for (index, part) in parts.iter().enumerate() {
            conditions.extend(self.condition(id, &format!("{at}.{word}[{index}]"), part, (depth + 1, terms)));
        }
        let conditions = conditions.into();
        Some(if word == "all" { Condition::All(conditions) } else { Condition::Any(conditions) })
    }

    fn is_one_condition(&mut self, id: &ObjectId, at: &str, spec: &ConditionSpec) -> bool {
        let kinds = [
            spec.claim.is_some(),
            spec.header.is_some(),
            spec.source_cidr.is_some(),
            spec.time.is_some(),
            spec.all.is_some(),
            spec.any.is_some(),
            spec.not.is_some(),
        ];
        let tests =
            [spec.equals.is_some(), spec.one_of.is_some(), spec.prefix.is_some(), spec.contains.is_some()];
        let count = |given: &[bool]| given.iter().filter(|given| **given).count();
        let compares = spec.claim.is_some() || spec.header.is_some();
        let problem = match (count(&kinds), count(&tests)) {
            (1, 1) if compares => return true,
            (1, 0) if !compares => return true,
            (1, _) if compares => TESTS,
            (1, _) => "equals, in, prefix and contains go with a claim or a header",
            _ => KINDS,
        };
        self.fault(id, at, problem);
        false
    }

    fn test(&mut self, id: &ObjectId, at: &str, spec: &ConditionSpec) -> Option<Test> {
        if let Some(value) = &spec.equals {
            let value = self.scalar(id, &format!("{at}.equals"), value)?;
            return Some(Test::OneOf(Box::from([value])));
        }
        if let Some(values) = &spec.one_of {
            let key = format!("{at}.in");
            let mut scalars = Vec::new();
            for (index, value) in values.iter().enumerate() {
                scalars.extend(self.scalar(id, &format!("{key}[{index}]"), value));
            }
            let Some(first) = scalars.first() else {
                self.fault(id, key, "has no values");
                return None;
            };
            if scalars.iter().any(|scalar| !scalar.is_like(first)) {
                self.fault(id, key, "values must be all texts, all numbers or all truth values");
            }
            return Some(Test::OneOf(scalars.into()));
        }
        if let Some(value) = &spec.contains {
            return self.scalar(id, &format!("{at}.contains"), value).map(Test::Contains);
        }
        spec.prefix.as_deref().map(|prefix| Test::Prefix(prefix.into()))
    }

    fn scalar(&mut self, id: &ObjectId, at: &str, value: &Value) -> Option<Scalar> {
        let scalar = Scalar::of(value).ok_or_else(|| "must be a text, a number, true or false".to_owned());
        self.take(id, || at.to_owned(), scalar)
    }
}

/// A field name (RFC 9110 §5.1) in lower case.
fn is_header_name(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|byte| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"!#$%&'*+-.^_`|~".contains(&byte)
        })
}
