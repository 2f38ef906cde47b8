//! The demo's policy, put into an empty database and then left to its operators.

use std::path::Path;

use anyhow::Context as _;
use tollgate_authz::policy::documents;
use tollgate_authz::policy::object::Document;
use tollgate_authz::policy::spec::IssuerSpec;
use tollgate_authz::store::{Authorship, Store};

use crate::demo::issuer::{self, Issuer};

/// The namespace of the demo's services.
const NAMESPACE: &str = "insurance";

/// The files of `config/policy`, in the binary.
const FILES: &[(&str, &str)] = &[
    ("config/policy/services.yaml", include_str!("../../../config/policy/services.yaml")),
    ("config/policy/roles.yaml", include_str!("../../../config/policy/roles.yaml")),
    ("config/policy/bindings.yaml", include_str!("../../../config/policy/bindings.yaml")),
];

/// Who may ask: needed by every demo, so what is missing is added, and what is there is left to its operators.
const ENFORCERS: (&str, &str) =
    ("config/policy/enforcers.yaml", include_str!("../../../config/policy/enforcers.yaml"));

/// Seeds an empty policy. The issuer is put right on every start: its key belongs to the data folder.
pub(super) async fn seed(store: &Store, issuer: &Issuer) -> anyhow::Result<()> {
    let mut documents = vec![issuer_document(issuer)?];
    let loaded = store.load().await.context("cannot read the policy")?;
    let is_empty = !loaded.objects.keys().any(|id| id.namespace == NAMESPACE);
    if is_empty {
        for (name, text) in FILES {
            documents
                .extend(documents::parse(Path::new(name), text)?.into_iter().map(|written| written.document));
        }
    }
    let (name, text) = ENFORCERS;
    let enforcers = documents::parse(Path::new(name), text)?.into_iter().map(|written| written.document);
    documents.extend(enforcers.filter(|enforcer| !loaded.objects.contains_key(&enforcer.id())));
    let by =
        Authorship::new("tollgate up", if is_empty { "the demo's policy" } else { "the demo issuer's key" });
    store.apply(documents, by, false, false).await.context("cannot write the demo's policy")?;
    Ok(())
}

fn issuer_document(issuer: &Issuer) -> anyhow::Result<Document> {
    let spec = serde_json::json!({
        "name": issuer::NAME,
        "issuer": issuer::URL,
        "jwks": issuer.jwks(),
        "audiences": [issuer::AUDIENCE],
    });
    Ok(Document::Issuer(serde_json::from_value::<IssuerSpec>(spec)?))
}
