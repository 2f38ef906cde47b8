//! How a person names an object: `role/insurance/policy-reader`, `issuer/demo`.

use std::str::FromStr;

use tollgate_authz::policy::object::{Kind, ObjectId};

/// The name of an object as an argument.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectName(pub(super) ObjectId);

impl FromStr for ObjectName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts: Vec<&str> = text.split('/').collect();
        let kinds: Vec<String> = Kind::ALL.iter().map(|kind| kind.as_str().to_lowercase()).collect();
        let wrong = || {
            format!(
                "write KIND/NAMESPACE/NAME, or KIND/NAME for what has no namespace; kinds are {}",
                kinds.join(", ")
            )
        };
        let first = parts.first().copied().unwrap_or_default();
        let kind = Kind::ALL
            .into_iter()
            .find(|kind| kind.as_str().eq_ignore_ascii_case(first) || kind.plural() == first)
            .ok_or_else(wrong)?;
        match (&parts[1..], kind.is_namespaced()) {
            ([namespace, name], true) => Ok(Self(ObjectId::new(kind, *namespace, *name))),
            ([name], false) => Ok(Self(ObjectId::new(kind, "", *name))),
            _ => Err(wrong()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_named_by_kind_namespace_and_name() {
        for (text, expected) in [
            ("role/a/b", Some(ObjectId::new(Kind::Role, "a", "b"))),
            ("Role/a/b", Some(ObjectId::new(Kind::Role, "a", "b"))),
            ("roles/a/b", Some(ObjectId::new(Kind::Role, "a", "b"))),
            ("issuer/x", Some(ObjectId::new(Kind::Issuer, "", "x"))),
            ("issuer/a/x", None),
            ("role/b", None),
            ("rule/a/b", None),
            ("", None),
        ] {
            let found = text.parse::<ObjectName>().ok().map(|name| name.0);
            assert_eq!(found, expected, "{text}");
        }
    }
}
