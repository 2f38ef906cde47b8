//! A request that nobody sent: who would do what, and what policy would say. Pure.
//!
//! `explain`, test cases and the records of old decisions are all questions of this shape.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use smol_str::SmolStr;
use utoipa::ToSchema;

use super::check::{self, Fault};
use super::compile::{Parts, compile};
use super::explain::{Explanation, explain};
use super::object::PolicySet;
use super::snapshot::Snapshot;
use super::{Decision, Verdict, evaluate};
use crate::authorize::{Presented, Question, facts_of, service_of};
use crate::decisions::{self, DecisionRecord, VerdictName};
use crate::facts::{Entry, Facts, PathReadings};
use crate::token::{Check, Refusal, VerifiedToken};

/// Who would do it. Nobody in particular where nothing is said.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Who {
    /// The token's issuer, by its name in the policy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// The token's subject.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// The token's client.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// The token's scopes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub scopes: Vec<String>,
    /// The token's groups.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    /// Other claims of the token.
    #[serde(skip_serializing_if = "serde_json::Map::is_empty")]
    #[schema(value_type = Object)]
    pub claims: serde_json::Map<String, serde_json::Value>,
    /// The SPIFFE id of the calling workload.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workload: Option<String>,
}

impl Who {
    /// Whether there is a token.
    fn has_token(&self) -> bool {
        self.issuer.is_some() || self.subject.is_some() || self.client.is_some()
    }
}

/// Where it would come into the mesh.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum From {
    /// By an ingress.
    #[default]
    Outside,
    /// From a workload.
    Inside,
}

/// What would be done.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct What {
    /// The service, as `namespace/name`; else the host says which it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// The host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// The method; `GET` unless said.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub method: String,
    /// Path and query.
    pub path: String,
    /// Where it comes from.
    pub from: From,
    /// Headers, by their names in lower case.
    #[serde(skip_serializing_if = "HashMap::is_empty")]
    pub headers: HashMap<String, String>,
    /// The client's address.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub source: Option<IpAddr>,
    /// When; now unless said.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub at: Option<Timestamp>,
}

/// A request that nobody sent.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Hypothetical {
    /// Who.
    #[serde(default)]
    pub who: Who,
    /// What.
    pub what: What,
}

/// What policy says to it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Judged {
    /// The policy that was asked.
    pub epoch: u64,
    /// The answer.
    pub verdict: VerdictName,
    /// Why, from the closed set of reasons.
    pub reason: String,
    /// What decides.
    pub rule: String,
    /// What would be enough.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<String>,
    /// One line that says why it is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub explanation: Option<String>,
    /// In audit mode: the reason for which it would be refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forgiven: Option<String>,
    /// What rules on trial would decide, where that is another answer: verdict and rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dry_run: Option<String>,
    /// Which parts of the request the answer depends on.
    pub read: Vec<String>,
}

/// A policy of its own, compiled: a draft, or an earlier state.
pub fn snapshot_of(set: &PolicySet, epoch: u64) -> Result<Snapshot, Vec<Fault>> {
    let model = check::check(set)?;
    Ok(compile(model, Parts { epoch, ..Parts::default() }, &Snapshot::default()))
}

impl Hypothetical {
    /// Asks a policy, at `now` in Unix seconds unless the request says when it is. Fails where the path is none.
    pub fn judge(&self, snapshot: &Snapshot, now: i64) -> Result<Judged, String> {
        self.ask(snapshot, now, |decision, question, presented| {
            let service = service_of(snapshot, question);
            let explanation = (decision.verdict == Verdict::Deny)
                .then(|| decisions::line(decision, question, service, presented));
            let dry_run = decision.dry_run.map(|tried| {
                let verdict = if tried.verdict == Verdict::Allow { "allow" } else { "deny" };
                format!("{verdict} by {}", tried.rule)
            });
            Judged {
                epoch: snapshot.epoch,
                verdict: decision.verdict.into(),
                reason: decision.reason.as_str().to_owned(),
                rule: decision.rule.to_string(),
                missing: decision.missing(presented.credential().scopes()),
                explanation,
                forgiven: decision.forgiven.map(|reason| reason.as_str().to_owned()),
                dry_run,
                read: decision.footprint.names().map(std::borrow::Cow::into_owned).collect(),
            }
        })
    }

    /// Every rule that speaks of it, at `now` in Unix seconds unless the request says when it is.
    pub fn explain(&self, snapshot: &Snapshot, now: i64) -> Result<Explanation, String> {
        self.believed(snapshot, now, |facts, now, _, _| explain(snapshot, facts, now))
    }

    /// `namespace/name` of the service that it is about, if policy knows it.
    pub fn service(&self, snapshot: &Snapshot) -> Option<String> {
        let question = self.question();
        service_of(snapshot, &question).map(|rules| rules.service.key.to_string())
    }

    /// What was kept of a request that was decided.
    pub fn of_record(record: &DecisionRecord) -> Self {
        let token = &record.token;
        Self {
            who: Who {
                issuer: token.issuer.clone(),
                subject: token.subject.clone(),
                client: token.client_id.clone(),
                scopes: token.scopes.clone(),
                groups: token.groups.clone(),
                claims: serde_json::Map::new(),
                workload: record.peer.clone(),
            },
            what: What {
                service: record.service.clone(),
                host: Some(record.host.clone()),
                method: record.method.clone(),
                path: record.path.clone(),
                from: if record.entry == "inside" { From::Inside } else { From::Outside },
                at: i64::try_from(record.at_ms).ok().and_then(|at| Timestamp::from_millisecond(at).ok()),
                ..What::default()
            },
        }
    }

    fn ask<T>(
        &self,
        snapshot: &Snapshot,
        now: i64,
        then: impl FnOnce(&Decision<'_>, &Question<'_>, &Presented) -> T,
    ) -> Result<T, String> {
        self.believed(snapshot, now, |facts, now, question, presented| {
            then(&evaluate(snapshot, facts, now), question, presented)
        })
    }

    /// Makes facts of it.
    fn believed<T>(
        &self,
        snapshot: &Snapshot,
        now: i64,
        then: impl FnOnce(&Facts<'_>, i64, &Question<'_>, &Presented) -> T,
    ) -> Result<T, String> {
        let now = self.what.at.map_or(now, |at| at.as_second());
        let question = self.question();
        let presented = self.presented(snapshot, &question);
        let path = PathReadings::of_target(&self.what.path).map_err(|error| format!("what.path: {error}"))?;
        let facts = facts_of(snapshot, &question, path, &presented);
        Ok(then(&facts, now, &question, &presented))
    }

    fn question(&self) -> Question<'_> {
        let what = &self.what;
        Question {
            guard: crate::facts::Guard::Deny,
            service: what.service.as_deref(),
            destination: None,
            entry: match what.from {
                From::Outside => Entry::Outside,
                From::Inside => Entry::Inside,
            },
            peer: self.who.workload.as_deref(),
            certificate: None,
            holder: None,
            method: if what.method.is_empty() { "GET" } else { &what.method },
            host: what.host.as_deref().unwrap_or_default(),
            target: &what.path,
            request_id: None,
            headers: &what.headers,
            source: what.source,
        }
    }

    /// The token that would be presented: good in itself, so that policy decides and not a signature.
    fn presented(&self, snapshot: &Snapshot, question: &Question<'_>) -> Presented {
        let who = &self.who;
        if !who.has_token() {
            return Presented::Absent;
        }
        let issuer = who.issuer.as_deref().unwrap_or_default();
        let accepted = service_of(snapshot, question)
            .is_none_or(|rules| rules.service.issuers.iter().any(|known| **known == *issuer));
        if !accepted {
            let detail = format!("the service does not accept this issuer (`{issuer}`)");
            return Presented::Refused(Refusal::new(Check::IssuerAccepted, detail));
        }
        let mut token = VerifiedToken::of_subject(issuer, who.subject.as_deref().unwrap_or_default());
        token.client_id = who.client.as_deref().map(SmolStr::new);
        token.scopes = who.scopes.iter().map(SmolStr::new).collect();
        token.groups = who.groups.iter().map(SmolStr::new).collect();
        token.claims = who.claims.clone().into();
        Presented::Verified(Arc::new(token))
    }
}
