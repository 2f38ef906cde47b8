//! Which objects an object cannot do without. `check` refuses where one is missing.

use super::object::{Document, Kind, ObjectId};

/// What `document` refers to by name. Issuers are not among it: whom nobody vouches for, nobody believes.
pub fn references(document: &Document) -> Vec<ObjectId> {
    match document {
        Document::Issuer(_) | Document::Enforcer(_) | Document::Service(_) | Document::Revocation(_) => {
            Vec::new()
        }
        Document::Role(spec) => {
            let roles = spec.includes.iter().map(|name| ObjectId::new(Kind::Role, &spec.namespace, name));
            let named = spec.permissions.iter().map(|permission| &permission.service);
            let services = named.filter(|name| *name != "*");
            roles.chain(services.map(|name| ObjectId::new(Kind::Service, &spec.namespace, name))).collect()
        }
        Document::Denial(spec) if spec.service == "*" => Vec::new(),
        Document::Denial(spec) => vec![ObjectId::new(Kind::Service, &spec.namespace, &spec.service)],
        Document::Binding(spec) => vec![ObjectId::new(Kind::Role, &spec.namespace, &spec.role)],
    }
}
