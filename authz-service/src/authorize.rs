//! One question from beginning to end: which service, which token, may it pass?
//!
//! ```text
//! question ──> service ──> token (place, issuer, keys) ──> facts ──> evaluate ──> decision
//! ```
//!
//! Every wire ends up here. With keys at hand nothing in here waits; a token that names a key we do
//! not know is worth one question to its issuer, and a short wait for the answer.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use opentelemetry::Context;
use opentelemetry::trace::{SpanRef, TraceContextExt as _, Tracer as _};
use opentelemetry_sdk::trace::SdkTracer;
use tollgate_proto::Reason;
use tollgate_runtime::clock::Clock;
use uuid::Uuid;

use crate::decisions::{self, Decisions, Hasher, Kept, Record, TokenSeen};
use crate::facts::{Credential, Entry, Facts, Guard, Headers, PathReadings};
use crate::metrics::Metrics;
use crate::policy::check::significant_digits;
use crate::policy::footprint::Parts;
use crate::policy::model::Service;
use crate::policy::snapshot::ServiceRules;
use crate::policy::{Decision, Snapshot, SnapshotCell, Verdict, evaluate};
use crate::token::keys::SharedSecrets;
use crate::token::keys::refresh::KeyRefresh;
use crate::token::{self, Failure, Judge, Occasion, Refusal, Remembered, TokenDigest, VerifiedToken};
use crate::x509::PeerCertificate;

/// How long a request waits for an issuer's new keys. It must end well before the 200 ms that an enforcer waits for
/// us, or anybody who invents a `kid` turns a 401 into a failure of ours. What comes later serves the next request.
const KEY_WAIT: Duration = Duration::from_millis(100);

/// What a wire knows about a request.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// The service, where the asker says which: `namespace/name`.
    pub service: Option<&'a str>,
    /// The identity of the destination.
    pub destination: Option<&'a str>,
    /// Where it came into the mesh.
    pub entry: Entry,
    /// The calling workload.
    pub peer: Option<&'a str>,
    /// The certificate that the caller has shown to the asker.
    pub certificate: Option<&'a PeerCertificate>,
    /// The thumbprint of the certificate that bound tokens are held to (`x5t#S256` of RFC 8705).
    pub holder: Option<&'a str>,
    /// The method.
    pub method: &'a str,
    /// The host.
    pub host: &'a str,
    /// Path and query, as sent.
    pub target: &'a str,
    /// The request's id, where the asker says one.
    pub request_id: Option<&'a str>,
    /// What becomes of a path whose readings disagree.
    pub guard: Guard,
    /// The headers.
    pub headers: &'a dyn Headers,
    /// The client's address, where the asker knows it.
    pub source: Option<IpAddr>,
}

/// A decision with the name under which it is kept, and with its words.
#[derive(Debug)]
pub struct Decided<'s> {
    /// The decision's own id.
    pub id: Uuid,
    /// The decision.
    pub decision: Decision<'s>,
    /// The rule that decided, as an operator reads it.
    pub rule: String,
    /// What would have been enough, as `scope:…` and `role:…`.
    pub missing: Vec<String>,
    /// Of a refusal: why, in one line for an operator. Never for the client.
    pub explanation: Option<String>,
}

/// Who the user is, as far as a token says.
#[derive(Debug)]
pub enum Presented {
    /// No token.
    Absent,
    /// Nobody could present one: it is about a connection.
    Unasked,
    /// A bad one.
    Refused(Refusal),
    /// A good one.
    Verified(Arc<VerifiedToken>),
}

impl Presented {
    /// For evaluation.
    pub fn credential(&self) -> Credential<'_> {
        match self {
            Self::Absent => Credential::Absent,
            Self::Unasked => Credential::Unasked,
            Self::Refused(refusal) => Credential::Refused(refusal),
            Self::Verified(token) => Credential::Verified(token),
        }
    }

    /// The token, also one that was refused after its signature was found good.
    pub fn token(&self) -> Option<&VerifiedToken> {
        match self {
            Self::Absent | Self::Unasked => None,
            Self::Refused(refusal) => refusal.token.as_deref(),
            Self::Verified(token) => Some(token),
        }
    }

    /// What is kept of it.
    fn seen(&self) -> TokenSeen<'_> {
        let detail = if let Self::Refused(refusal) = self { refusal.detail.as_str() } else { "" };
        TokenSeen { state: self.state(), token: self.token(), detail }
    }

    /// The value of `tollgate.token.state`.
    pub fn state(&self) -> &'static str {
        match self {
            Self::Absent | Self::Unasked => "absent",
            Self::Refused(refusal) => refusal.state(),
            Self::Verified(_) => "valid",
        }
    }
}

/// Where keys of issuers come from that do not stand in the policy.
#[derive(Debug)]
pub struct KeyAccess {
    /// Fetches them.
    pub refresh: KeyRefresh,
    /// The age beyond which fetched keys are used no more.
    pub max_stale: Duration,
    /// Holds those that are secrets.
    pub secrets: SharedSecrets,
}

/// Answers questions; cheap to clone.
#[derive(Debug, Clone)]
pub struct Authorizer {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    cell: Arc<SnapshotCell>,
    keys: KeyAccess,
    remembered: Remembered,
    decisions: Arc<Decisions>,
    clock: Clock,
    tracer: SdkTracer,
    metrics: Metrics,
}

impl Authorizer {
    /// Puts the parts together.
    pub fn new(
        cell: Arc<SnapshotCell>,
        keys: KeyAccess,
        decisions: Arc<Decisions>,
        (clock, tracer, metrics): (Clock, SdkTracer, Metrics),
    ) -> Self {
        Self {
            inner: Arc::new(Inner {
                cell,
                keys,
                remembered: Remembered::default(),
                decisions,
                clock,
                tracer,
                metrics,
            }),
        }
    }

    /// The rules in force.
    pub fn cell(&self) -> &Arc<SnapshotCell> {
        &self.inner.cell
    }

    /// What was decided lately.
    pub fn decisions(&self) -> &Decisions {
        &self.inner.decisions
    }

    /// The time, in Unix seconds.
    pub fn now(&self) -> i64 {
        self.inner.clock.unix_seconds().cast_signed()
    }

    /// The time.
    pub fn clock(&self) -> &Clock {
        &self.inner.clock
    }

    /// Finds and verifies the token. May swap `snapshot` for a newer one, if the token needed a new key.
    pub async fn identify<'a>(
        &self,
        snapshot: &mut Arc<Snapshot>,
        question: &Question<'a>,
        header: impl Fn(&str) -> Option<&'a str> + Send,
        context: &Context,
    ) -> Presented {
        let service = service_of(snapshot, question).cloned();
        let places = service.as_ref().map_or(NO_SERVICE_PLACES, |rules| &rules.token_places);
        match token::find(places, question.target, |name| header(name)) {
            Ok(None) => Presented::Absent,
            Ok(Some(found)) => {
                self.believe(snapshot, question, found.token, Some(found.place), context).await
            }
            Err(refusal) => Presented::Refused(refusal),
        }
    }

    /// Verifies a token, wherever it comes from. May swap `snapshot` for a newer one, if the token needed a new key.
    pub async fn believe(
        &self,
        snapshot: &mut Arc<Snapshot>,
        question: &Question<'_>,
        token: &str,
        place: Option<&token::TokenPlace>,
        context: &Context,
    ) -> Presented {
        let now = self.now();
        let span = self.span(context, "jwt.verify");
        let digest = TokenDigest::of(token);
        if let Some(known) = self.remembered(snapshot, question, &digest, place, now) {
            end(span);
            return Presented::Verified(known);
        }
        beside_other_calls().await;
        let mut verified = self.verify_anew(snapshot, question, (token, place), digest, now);
        if let Err(Failure { ask: Some((issuer, kid)), .. }) = &verified {
            // Too late is as good as nothing new: the answer then comes from what is known.
            let refetch = self.inner.keys.refresh.refetch(issuer, kid.as_deref());
            let _ = tokio::time::timeout(KEY_WAIT, refetch).await;
            let newer = self.inner.cell.load_full();
            // A fetch that brought the same keys again has at least confirmed them.
            if !Arc::ptr_eq(snapshot, &newer) || issuer.keys_age(now) <= self.max_stale() {
                *snapshot = newer;
                verified = self.verify_anew(snapshot, question, (token, place), digest, now);
            }
        }
        end(span);
        match verified {
            Ok(token) => Presented::Verified(token),
            Err(failure) => Presented::Refused(failure.refusal),
        }
    }

    /// As [`Authorizer::identify`], with the keys that are at hand and without waiting.
    pub fn recognise<'a>(
        &self,
        snapshot: &Snapshot,
        question: &Question<'a>,
        header: impl Fn(&str) -> Option<&'a str>,
    ) -> Presented {
        let places = service_of(snapshot, question).map_or(NO_SERVICE_PLACES, |rules| &rules.token_places);
        let found = match token::find(places, question.target, |name| header(name)) {
            Ok(Some(found)) => found,
            Ok(None) => return Presented::Absent,
            Err(refusal) => return Presented::Refused(refusal),
        };
        match self.verify(snapshot, question, (found.token, Some(found.place)), self.now()) {
            Ok(token) => Presented::Verified(token),
            Err(failure) => Presented::Refused(failure.refusal),
        }
    }

    fn verify(
        &self,
        snapshot: &Snapshot,
        question: &Question<'_>,
        (token, place): (&str, Option<&token::TokenPlace>),
        now: i64,
    ) -> Result<Arc<VerifiedToken>, Failure> {
        let digest = TokenDigest::of(token);
        match self.remembered(snapshot, question, &digest, place, now) {
            Some(known) => Ok(known),
            None => self.verify_anew(snapshot, question, (token, place), digest, now),
        }
    }

    /// What became of the token when it was here before, if that still holds.
    fn remembered(
        &self,
        snapshot: &Snapshot,
        question: &Question<'_>,
        digest: &TokenDigest,
        place: Option<&token::TokenPlace>,
        now: i64,
    ) -> Option<Arc<VerifiedToken>> {
        let known = self.inner.remembered.get(digest)?;
        let service = service_of(snapshot, question).map(|rules| &*rules.service);
        let occasion = occasion(question, service, now);
        self.judge(snapshot).still_holds(&known, place, service, &occasion).then_some(known.token)
    }

    fn verify_anew(
        &self,
        snapshot: &Snapshot,
        question: &Question<'_>,
        (token, place): (&str, Option<&token::TokenPlace>),
        digest: TokenDigest,
        now: i64,
    ) -> Result<Arc<VerifiedToken>, Failure> {
        let service = service_of(snapshot, question).map(|rules| &*rules.service);
        let judge = self.judge(snapshot);
        let token = Arc::new(judge.verify(token, place, service, &occasion(question, service, now))?);
        if let Some(verification) = judge.verification(Arc::clone(&token), now) {
            self.inner.remembered.keep(digest, verification);
        }
        Ok(token)
    }

    /// What tokens are judged by.
    pub fn judge<'s>(&'s self, snapshot: &'s Snapshot) -> Judge<'s> {
        Judge { snapshot, secrets: &self.inner.keys.secrets, max_stale: self.max_stale() }
    }

    fn max_stale(&self) -> i64 {
        i64::try_from(self.inner.keys.max_stale.as_secs()).unwrap_or(i64::MAX)
    }

    /// What would be decided, without a trace of having asked.
    pub fn weigh<'s>(
        &self,
        snapshot: &'s Snapshot,
        question: &Question<'s>,
        path: PathReadings<'s>,
        presented: &'s Presented,
    ) -> Decision<'s> {
        evaluate(snapshot, &facts_of(snapshot, question, path, presented), self.now())
    }

    /// Decides, counts, keeps a record, and leaves a span if the request is traced.
    pub fn decide<'s>(
        &self,
        snapshot: &'s Snapshot,
        question: &Question<'s>,
        path: PathReadings<'s>,
        presented: &'s Presented,
        context: &Context,
    ) -> Decided<'s> {
        let facts = facts_of(snapshot, question, path, presented);
        let span = self.span(context, "policy.eval");
        let decision = evaluate(snapshot, &facts, self.now());
        end(span);
        self.inner.metrics.decided(decision.verdict, decision.reason);
        self.keep(snapshot.epoch, question, facts.service, presented, decision)
    }

    /// Gives a decision its name and its words, and keeps them.
    fn keep<'s>(
        &self,
        epoch: u64,
        question: &Question<'s>,
        service: Option<&ServiceRules>,
        presented: &Presented,
        decision: Decision<'s>,
    ) -> Decided<'s> {
        let refused = decision.verdict == Verdict::Deny;
        let decided = Decided {
            id: Uuid::now_v7(),
            rule: decision.rule.to_string(),
            missing: decision.missing(presented.credential().scopes()),
            explanation: refused.then(|| decisions::line(&decision, question, service, presented)),
            decision,
        };
        let kept = Kept {
            rule: &decided.rule,
            missing: &decided.missing,
            explanation: decided.explanation.as_deref().unwrap_or_default(),
            verdict: decided.decision.verdict,
            reason: decided.decision.reason,
            forgiven: decided.decision.forgiven,
            read: decided.decision.footprint.parts,
            names: decided.decision.footprint.named().collect(),
            expires: decided.decision.expires,
            service: service.map_or("", |rules| &rules.service.key),
            token: presented.seen(),
            ..self.blank(decided.id, epoch, question)
        };
        let headers = decided.decision.footprint.headers.iter();
        let values = headers.filter_map(|name| Some((*name, question.headers.header(name)?.value)));
        let write = |record: &mut Record, hasher: &Hasher| record.write(&kept, values, hasher);
        self.inner.decisions.keep(decided.id, kept.verdict, write);
        decided
    }

    /// Counts and keeps the refusal of a request that is no proper one; answers its id.
    pub fn malformed(&self, epoch: u64, question: &Question<'_>, detail: &str) -> Uuid {
        let id = Uuid::now_v7();
        let kept = Kept { explanation: detail, ..self.blank(id, epoch, question) };
        self.inner.metrics.decided(kept.verdict, kept.reason);
        self.inner.decisions.keep(id, kept.verdict, |record, hasher| record.write(&kept, [], hasher));
        id
    }

    /// What is known of every question: that it was asked, and that nothing else was looked at.
    fn blank<'q>(&self, id: Uuid, epoch: u64, question: &Question<'q>) -> Kept<'q> {
        Kept {
            id,
            at_millis: self.inner.clock.unix_millis(),
            epoch,
            verdict: Verdict::Deny,
            reason: Reason::RequestMalformed,
            forgiven: None,
            read: Parts::NONE,
            names: Vec::new(),
            expires: None,
            request_id: question.request_id.unwrap_or_default(),
            service: "",
            entry: question.entry,
            peer: question.peer.unwrap_or_default(),
            method: question.method,
            host: question.host,
            path: decisions::path_of(question.target),
            rule: "",
            missing: &[],
            explanation: "",
            token: TokenSeen { state: "absent", token: None, detail: "" },
        }
    }

    fn span(&self, context: &Context, name: &'static str) -> Option<Context> {
        let parent: SpanRef<'_> = context.span();
        if !parent.span_context().is_sampled() {
            return None;
        }
        Some(Context::new().with_span(self.inner.tracer.start_with_context(name, context)))
    }
}

/// What we believe about the request of a question.
pub(crate) fn facts_of<'s>(
    snapshot: &'s Snapshot,
    question: &Question<'s>,
    path: PathReadings<'s>,
    presented: &'s Presented,
) -> Facts<'s> {
    Facts {
        service: service_of(snapshot, question),
        entry: question.entry,
        peer: question.peer,
        method: question.method,
        host: question.host,
        path,
        guard: question.guard,
        credential: presented.credential(),
        headers: question.headers,
        source: question.source,
        certificate_serial: question.certificate.map(|shown| significant_digits(&shown.serial)),
    }
}

/// A signature takes long, for a machine: where there is another core it is checked in a task of its own, so that the
/// calls that came with it on the same connection do not wait for it.
async fn beside_other_calls() {
    if tokio::runtime::Handle::current().metrics().num_workers() > 1 {
        tokio::task::yield_now().await;
    }
}

fn occasion<'a>(question: &Question<'a>, service: Option<&'a Service>, now: i64) -> Occasion<'a> {
    let audiences = service.map_or(&[][..], |service| &service.audiences);
    Occasion { audiences, holder: question.holder, now }
}

fn end(span: Option<Context>) {
    if let Some(span) = span {
        span.span().end();
    }
}

/// A request about a service we do not know may still carry a token, and a bad one is still a 401.
const NO_SERVICE_PLACES: &[token::TokenPlace] = &[token::TokenPlace::Bearer];

/// Which service a question is about: said, else by the destination's identity, else by host.
pub fn service_of<'s>(snapshot: &'s Snapshot, question: &Question<'_>) -> Option<&'s ServiceRules> {
    match (question.service, question.destination) {
        // Who says a service means that one: falling back to the host would answer another question.
        (Some(key), _) => snapshot.service(key),
        // At a sidecar the destination is the workload beside it. Who that is is not the client's to say.
        (None, Some(identity)) if question.entry == Entry::Inside => snapshot.service_of_identity(identity),
        (None, Some(identity)) => {
            snapshot.service_of_identity(identity).or_else(|| snapshot.service_of_host(question.host))
        }
        (None, None) => snapshot.service_of_host(question.host),
    }
}
