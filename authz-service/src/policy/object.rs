//! The objects of a policy by kind and name, whatever is in them.
//!
//! This is how YAML, the admin API, the database and the `changes` table speak of the same thing.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

use super::spec::{BindingSpec, DenialSpec, EnforcerSpec, IssuerSpec, RevocationSpec, RoleSpec, ServiceSpec};

/// The namespace whose objects govern Tollgate itself.
pub const SYSTEM_NAMESPACE: &str = "tollgate-system";

/// The kinds of object there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
pub enum Kind {
    /// Whom we believe about users.
    Issuer,
    /// Who may ask this service.
    Enforcer,
    /// What is protected.
    Service,
    /// Named permissions.
    Role,
    /// Who holds a role.
    Binding,
    /// Who may not do something, whatever is granted.
    Denial,
    /// What was issued once and is good no more.
    Revocation,
}

impl Kind {
    /// In the order in which objects refer to each other.
    pub const ALL: [Self; 7] = [
        Self::Issuer,
        Self::Enforcer,
        Self::Service,
        Self::Role,
        Self::Binding,
        Self::Denial,
        Self::Revocation,
    ];

    /// As written after `kind:`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Issuer => "Issuer",
            Self::Enforcer => "Enforcer",
            Self::Service => "Service",
            Self::Role => "Role",
            Self::Binding => "Binding",
            Self::Denial => "Denial",
            Self::Revocation => "Revocation",
        }
    }

    /// As it stands in a REST path.
    pub const fn plural(self) -> &'static str {
        match self {
            Self::Issuer => "issuers",
            Self::Enforcer => "enforcers",
            Self::Service => "services",
            Self::Role => "roles",
            Self::Binding => "bindings",
            Self::Denial => "denials",
            Self::Revocation => "revocations",
        }
    }

    /// Whether objects of this kind live in a namespace.
    pub const fn is_namespaced(self) -> bool {
        matches!(self, Self::Service | Self::Role | Self::Binding | Self::Denial)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The name of one object. The namespace of a cluster-scoped one is empty.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
pub struct ObjectId {
    /// What it is.
    pub kind: Kind,
    /// Where it lives; empty for cluster-scoped kinds.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// Its name within the namespace.
    pub name: String,
}

impl ObjectId {
    /// Names an object.
    pub fn new(kind: Kind, namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { kind, namespace: namespace.into(), name: name.into() }
    }

    /// The object's path in the admin API, which is also what admin permissions are written against.
    pub fn rest_path(&self) -> String {
        if self.kind.is_namespaced() {
            format!("/v1/namespaces/{}/{}/{}", self.namespace, self.kind.plural(), self.name)
        } else {
            format!("/v1/{}/{}", self.kind.plural(), self.name)
        }
    }
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            write!(f, "{} {}", self.kind, self.name)
        } else {
            write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
        }
    }
}

/// All objects of a policy by name.
pub type PolicySet = BTreeMap<ObjectId, Document>;

/// One object of the policy.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(tag = "kind")]
pub enum Document {
    /// Whom we believe about users.
    Issuer(IssuerSpec),
    /// Who may ask this service.
    Enforcer(EnforcerSpec),
    /// What is protected.
    Service(ServiceSpec),
    /// Named permissions.
    Role(RoleSpec),
    /// Who holds a role.
    Binding(BindingSpec),
    /// Who may not do something, whatever is granted.
    Denial(DenialSpec),
    /// What was issued once and is good no more.
    Revocation(RevocationSpec),
}

impl Document {
    /// The object's name.
    pub fn id(&self) -> ObjectId {
        match self {
            Self::Issuer(spec) => ObjectId::new(Kind::Issuer, "", &spec.name),
            Self::Enforcer(spec) => ObjectId::new(Kind::Enforcer, "", &spec.name),
            Self::Service(spec) => ObjectId::new(Kind::Service, &spec.namespace, &spec.name),
            Self::Role(spec) => ObjectId::new(Kind::Role, &spec.namespace, &spec.name),
            Self::Binding(spec) => ObjectId::new(Kind::Binding, &spec.namespace, &spec.name),
            Self::Denial(spec) => ObjectId::new(Kind::Denial, &spec.namespace, &spec.name),
            Self::Revocation(spec) => ObjectId::new(Kind::Revocation, "", &spec.name),
        }
    }

    /// Reads an object of a known kind, as the admin API gets it.
    pub fn of_kind<'de, D: Deserializer<'de>>(kind: Kind, fields: D) -> Result<Self, D::Error> {
        Ok(match kind {
            Kind::Issuer => Self::Issuer(IssuerSpec::deserialize(fields)?),
            Kind::Enforcer => Self::Enforcer(EnforcerSpec::deserialize(fields)?),
            Kind::Service => Self::Service(ServiceSpec::deserialize(fields)?),
            Kind::Role => Self::Role(RoleSpec::deserialize(fields)?),
            Kind::Binding => Self::Binding(BindingSpec::deserialize(fields)?),
            Kind::Denial => Self::Denial(DenialSpec::deserialize(fields)?),
            Kind::Revocation => Self::Revocation(RevocationSpec::deserialize(fields)?),
        })
    }
}

/// Puts a set of documents into one that finds them by name; a name given twice is returned.
pub fn policy_set(documents: impl IntoIterator<Item = Document>) -> Result<PolicySet, ObjectId> {
    let mut set = PolicySet::new();
    for document in documents {
        let id = document.id();
        if set.insert(id.clone(), document).is_some() {
            return Err(id);
        }
    }
    Ok(set)
}

// Serde's own internally tagged enums buffer the whole object before they look at it, and then
// errors have lost their line. Where `kind` comes first, as people write it, nothing is buffered.
impl<'de> Deserialize<'de> for Document {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(DocumentVisitor)
    }
}

struct DocumentVisitor;

impl<'de> Visitor<'de> for DocumentVisitor {
    type Value = Document;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with a kind")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Document, A::Error> {
        let Some(first) = map.next_key::<String>()? else {
            return Err(A::Error::missing_field("kind"));
        };
        if first == "kind" {
            // Read as a kind at once, so that an unknown one is reported where it stands.
            let kind = map.next_value::<Kind>()?;
            return Document::of_kind(kind, MapAccessDeserializer::new(map));
        }
        let mut fields = serde_json::Map::new();
        fields.insert(first, map.next_value()?);
        while let Some((key, value)) = map.next_entry::<String, serde_json::Value>()? {
            if fields.insert(key.clone(), value).is_some() {
                return Err(A::Error::custom(format!("duplicate field `{key}`")));
            }
        }
        let kind = fields.shift_remove("kind").ok_or_else(|| A::Error::missing_field("kind"))?;
        let kind = Kind::deserialize(kind).map_err(A::Error::custom)?;
        Document::of_kind(kind, serde_json::Value::Object(fields)).map_err(A::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kind_may_come_first_or_last() {
        let first = r#"{"kind":"Role","namespace":"a","name":"b"}"#;
        let last = r#"{"namespace":"a","name":"b","kind":"Role"}"#;
        let parse = |text| serde_json::from_str::<Document>(text).unwrap();
        assert_eq!(parse(first), parse(last));
        assert_eq!(serde_json::to_string(&parse(last)).unwrap(), first);
    }

    #[test]
    fn what_is_not_known_is_refused() {
        for (text, needle) in [
            (r#"{"namespace":"a"}"#, "kind"),
            (r#"{"kind":"Sevice","name":"a"}"#, "unknown variant `Sevice`, expected one of `Issuer`"),
            (r#"{"kind":"Role","namespace":"a","name":"b","permisions":[]}"#, "permisions"),
            (r#"{"name":"b","name":"c","kind":"Enforcer","point":"ingress"}"#, "duplicate"),
            (
                r#"{"kind":"Role","namespace":"a","name":"b","permissions":[{"name":"r","service":"s","methods":["GET"],"paths":["/"],"wen":{}}]}"#,
                "wen",
            ),
        ] {
            let error = serde_json::from_str::<Document>(text).unwrap_err().to_string();
            assert!(error.contains(needle), "{text}: {error}");
        }
    }
}
