//! AuthZEN's messages, as far as policy can answer them. Unknown members are passed over: the standard allows them.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Map, Value};
use smol_str::SmolStr;

use crate::policy::Snapshot;
use crate::token::VerifiedToken;

/// One question.
#[derive(Debug, Clone, Default, Deserialize)]
pub(super) struct Evaluation {
    pub(super) subject: Option<Arc<Subject>>,
    pub(super) action: Option<Arc<Action>>,
    pub(super) resource: Option<Arc<Resource>>,
}

/// Several questions, and what they have in common.
#[derive(Debug, Deserialize)]
pub(super) struct Evaluations {
    #[serde(flatten)]
    pub(super) common: Evaluation,
    #[serde(default)]
    pub(super) evaluations: Vec<Evaluation>,
    #[serde(default)]
    pub(super) options: Options,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct Options {
    #[serde(default)]
    pub(super) evaluations_semantic: Semantic,
}

/// When to stop.
#[derive(Debug, Default, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Semantic {
    #[default]
    ExecuteAll,
    DenyOnFirstDeny,
    PermitOnFirstPermit,
}

/// Who.
#[derive(Debug, Deserialize)]
pub(super) struct Subject {
    #[serde(rename = "type")]
    pub(super) kind: String,
    id: String,
    #[serde(default)]
    properties: SubjectProperties,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct SubjectProperties {
    /// The issuer's name in the policy.
    issuer: Option<String>,
    client: Option<String>,
    groups: Vec<String>,
    scopes: Vec<String>,
    claims: Map<String, Value>,
    /// The workload that the user came by.
    workload: Option<String>,
}

/// What is to be done.
#[derive(Debug, Deserialize)]
pub(super) struct Action {
    /// The method.
    pub(super) name: String,
}

/// To what.
#[derive(Debug, Deserialize)]
pub(super) struct Resource {
    #[serde(rename = "type")]
    pub(super) kind: String,
    /// `namespace/name` of a service.
    pub(super) id: String,
    #[serde(default)]
    pub(super) properties: ResourceProperties,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ResourceProperties {
    pub(super) path: Option<String>,
    pub(super) host: Option<String>,
    /// Headers that conditions may ask for, in lower case.
    pub(super) headers: HashMap<String, String>,
    /// The client's address.
    pub(super) source: Option<IpAddr>,
}

impl Evaluation {
    /// This question, with what it leaves out taken from `common`.
    pub(super) fn or(self, common: &Self) -> Self {
        Self {
            subject: self.subject.or_else(|| common.subject.clone()),
            action: self.action.or_else(|| common.action.clone()),
            resource: self.resource.or_else(|| common.resource.clone()),
        }
    }
}

impl Subject {
    /// The workload that asks, or by which a user asks.
    pub(super) fn workload(&self) -> Option<&str> {
        if self.kind == "workload" { Some(&self.id) } else { self.properties.workload.as_deref() }
    }

    /// The user as the asker describes him. The issuer is one that the policy knows, and the service has to accept it:
    /// what is asked is what that issuer's word would be worth.
    pub(super) fn user(&self, snapshot: &Snapshot) -> Result<VerifiedToken, String> {
        let properties = &self.properties;
        let issuer = properties.issuer.as_deref().ok_or("subject.properties.issuer is missing")?;
        let trusted = (snapshot.issuer_named(issuer))
            .ok_or_else(|| format!("subject.properties.issuer: there is no issuer `{issuer}`"))?;
        if self.id.is_empty() {
            return Err("subject.id is empty".to_owned());
        }
        Ok(VerifiedToken {
            issuer_url: trusted.issuer.url.clone(),
            client_id: properties.client.as_deref().map(SmolStr::new),
            scopes: properties.scopes.iter().map(SmolStr::new).collect(),
            groups: properties.groups.iter().map(SmolStr::new).collect(),
            claims: properties.claims.clone().into(),
            ..VerifiedToken::of_subject(issuer, &self.id)
        })
    }

    /// The token that it is, where it is one.
    pub(super) fn token(&self) -> &str {
        &self.id
    }
}
