//! One decision as it is kept, and as it is shown.
//!
//! All texts lie one behind the other in one string, with their ends in a list: two pieces of memory a record, both
//! used again when the record makes room for another.

use serde::Serialize;
use tollgate_proto::Reason;
use utoipa::ToSchema;
use uuid::Uuid;

use super::Hasher;
use crate::facts::Entry;
use crate::policy::Verdict;
use crate::policy::footprint::Parts;
use crate::token::VerifiedToken;

/// A text is cut here; what is longer was made to be a nuisance.
const MAX_TEXT_BYTES: usize = 1024;
/// A member of a list is cut here.
const MAX_ITEM_BYTES: usize = 128;
/// Lists are cut here.
const MAX_ITEMS: usize = 32;
/// Memory that is larger is not used again.
const MAX_REUSED_BYTES: usize = 4 * 1024;

const _: () = assert!(
    Text::COUNT * MAX_TEXT_BYTES + List::COUNT * MAX_ITEMS * MAX_ITEM_BYTES + 4 * 1024
        <= super::MAX_RECORD_BYTES
);

/// The texts of a record, in the order in which they lie.
#[derive(Debug, Clone, Copy)]
#[repr(usize)]
enum Text {
    RequestId,
    Service,
    Peer,
    Method,
    Host,
    Path,
    Issuer,
    Subject,
    Client,
    Rule,
    Explanation,
    Detail,
}

impl Text {
    const COUNT: usize = 12;
}

#[derive(Debug, Clone, Copy)]
#[repr(usize)]
enum List {
    Scopes,
    Groups,
    Missing,
    Hashed,
}

impl List {
    const COUNT: usize = 4;
}

/// One decision as it is kept.
#[derive(Debug, Clone)]
pub struct Record {
    pub(super) id: Uuid,
    pub(super) verdict: Verdict,
    pub(super) reason: Reason,
    forgiven: Option<Reason>,
    at_millis: u64,
    epoch: u64,
    entry: Entry,
    parts: Parts,
    /// Headers and claims that were read; nearly always none.
    names: Vec<String>,
    expires: Option<i64>,
    token_state: &'static str,
    text: String,
    ends: Vec<u32>,
    lists: [u8; List::COUNT],
}

impl Default for Record {
    fn default() -> Self {
        Self {
            id: Uuid::nil(),
            verdict: Verdict::Deny,
            reason: Reason::Internal,
            forgiven: None,
            at_millis: 0,
            epoch: 0,
            entry: Entry::Inside,
            parts: Parts::NONE,
            names: Vec::new(),
            expires: None,
            token_state: "absent",
            text: String::new(),
            ends: Vec::new(),
            lists: [0; List::COUNT],
        }
    }
}

/// What a decision is kept as: everything borrowed, so that keeping it copies once.
#[derive(Debug)]
pub struct Kept<'a> {
    /// Its name.
    pub id: Uuid,
    /// When, in Unix milliseconds.
    pub at_millis: u64,
    /// The policy that decided.
    pub epoch: u64,
    /// The answer.
    pub verdict: Verdict,
    /// Why.
    pub reason: Reason,
    /// In audit mode: why it would have been refused.
    pub forgiven: Option<Reason>,
    /// What was read.
    pub read: Parts,
    /// Headers and claims that were read, as a footprint names them.
    pub names: Vec<String>,
    /// Unix seconds at which the same question may have another answer.
    pub expires: Option<i64>,
    /// The request's id, where it has one.
    pub request_id: &'a str,
    /// `namespace/name`, empty where no service was found.
    pub service: &'a str,
    /// Where it came into the mesh.
    pub entry: Entry,
    /// The calling workload, empty where none is known.
    pub peer: &'a str,
    /// The method.
    pub method: &'a str,
    /// The host.
    pub host: &'a str,
    /// The path, without its query.
    pub path: &'a str,
    /// What decided.
    pub rule: &'a str,
    /// What would have been enough.
    pub missing: &'a [String],
    /// One line for an operator; empty for an allow.
    pub explanation: &'a str,
    /// The token, as far as it was read.
    pub token: TokenSeen<'a>,
}

/// What is kept of a token: never the token.
#[derive(Debug)]
pub struct TokenSeen<'a> {
    /// `absent`, `valid`, `expired`, …
    pub state: &'static str,
    /// What it says, where its signature was good.
    pub token: Option<&'a VerifiedToken>,
    /// What was wrong with it.
    pub detail: &'a str,
}

impl Record {
    /// Writes a decision down; `hashed` are names and values of what may be kept as a hash only.
    pub fn write<'h>(
        &mut self,
        kept: &Kept<'_>,
        hashed: impl IntoIterator<Item = (&'h str, &'h str)>,
        hasher: &Hasher,
    ) {
        (self.id, self.at_millis, self.epoch) = (kept.id, kept.at_millis, kept.epoch);
        (self.verdict, self.reason, self.forgiven) = (kept.verdict, kept.reason, kept.forgiven);
        (self.entry, self.parts, self.expires) = (kept.entry, kept.read, kept.expires);
        self.names.clone_from(&kept.names);
        self.token_state = kept.token.state;
        let token = kept.token.token;
        let of_token = |part: fn(&VerifiedToken) -> &str| token.map_or("", part);
        // In the order of `Text`.
        for text in [
            kept.request_id,
            kept.service,
            kept.peer,
            kept.method,
            kept.host,
            kept.path,
            of_token(|token| &token.issuer),
            of_token(|token| &token.subject),
            of_token(|token| token.client_id.as_deref().unwrap_or_default()),
            kept.rule,
            kept.explanation,
            kept.token.detail,
        ] {
            self.push(text, MAX_TEXT_BYTES);
        }
        self.list(List::Scopes, token.map_or(&[][..], |token| &token.scopes));
        self.list(List::Groups, token.map_or(&[][..], |token| &token.groups));
        self.list(List::Missing, kept.missing);
        for (name, value) in hashed.into_iter().take(MAX_ITEMS) {
            self.push_hash(name, hasher.hash(value));
            self.lists[List::Hashed as usize] += 1;
        }
    }

    pub(super) fn clear(&mut self) {
        if self.text.capacity() > MAX_REUSED_BYTES {
            self.text = String::new();
        }
        self.text.clear();
        self.ends.clear();
        self.lists = [0; List::COUNT];
    }

    fn push(&mut self, text: &str, most: usize) {
        let cut = if text.len() <= most { text } else { &text[..text.floor_char_boundary(most)] };
        self.text.push_str(cut);
        self.end();
    }

    fn push_hash(&mut self, name: &str, hash: u64) {
        use std::fmt::Write as _;

        let name = &name[..name.floor_char_boundary(MAX_ITEM_BYTES / 2)];
        write!(self.text, "{name}={hash:016x}").expect("a String takes everything");
        self.end();
    }

    fn end(&mut self) {
        // A record is far smaller than what does not fit.
        self.ends.push(u32::try_from(self.text.len()).unwrap_or(u32::MAX));
    }

    fn list(&mut self, list: List, items: &[impl AsRef<str>]) {
        for item in items.iter().take(MAX_ITEMS) {
            self.push(item.as_ref(), MAX_ITEM_BYTES);
            self.lists[list as usize] += 1;
        }
    }

    /// Its share of the memory that is bounded.
    pub(super) fn bytes(&self) -> usize {
        size_of::<Self>() + self.text.capacity() + self.ends.capacity() * size_of::<u32>()
    }

    fn piece(&self, index: usize) -> &str {
        let end = |index: usize| self.ends.get(index).map_or(self.text.len(), |end| *end as usize);
        let start = if index == 0 { 0 } else { end(index - 1) };
        self.text.get(start..end(index)).unwrap_or_default()
    }

    fn text(&self, text: Text) -> &str {
        self.piece(text as usize)
    }

    fn items(&self, list: List) -> impl Iterator<Item = &str> {
        let before: usize = self.lists[..list as usize].iter().copied().map(usize::from).sum();
        let first = Text::COUNT + before;
        (first..first + usize::from(self.lists[list as usize])).map(|index| self.piece(index))
    }

    /// Its name.
    pub fn id(&self) -> Uuid {
        self.id
    }

    /// The policy that decided.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// `namespace/name`; empty where the request was about no service that is known.
    pub fn service(&self) -> &str {
        self.text(Text::Service)
    }

    /// Whether it was no allow.
    pub fn is_refusal(&self) -> bool {
        self.verdict == Verdict::Deny
    }

    pub(super) fn request_id(&self) -> &str {
        self.text(Text::RequestId)
    }

    pub(super) fn subject(&self) -> &str {
        self.text(Text::Subject)
    }

    pub(super) fn peer(&self) -> &str {
        self.text(Text::Peer)
    }

    /// Everything, for people and programs.
    pub fn shown(&self) -> DecisionRecord {
        let optional = |text: Text| Some(self.text(text)).filter(|text| !text.is_empty()).map(str::to_owned);
        let list = |list: List| self.items(list).map(str::to_owned).collect();
        DecisionRecord {
            id: self.id.to_string(),
            request_id: optional(Text::RequestId),
            at_ms: self.at_millis,
            epoch: self.epoch,
            verdict: self.verdict.into(),
            reason: self.reason.as_str().to_owned(),
            forgiven: self.forgiven.map(|reason| reason.as_str().to_owned()),
            rule: optional(Text::Rule),
            missing: list(List::Missing),
            explanation: optional(Text::Explanation),
            service: optional(Text::Service),
            entry: match self.entry {
                Entry::Outside => "outside",
                Entry::Inside => "inside",
            }
            .to_owned(),
            peer: optional(Text::Peer),
            method: self.text(Text::Method).to_owned(),
            host: self.text(Text::Host).to_owned(),
            path: self.text(Text::Path).to_owned(),
            token: TokenRecord {
                state: self.token_state.to_owned(),
                issuer: optional(Text::Issuer),
                subject: optional(Text::Subject),
                client_id: optional(Text::Client),
                scopes: list(List::Scopes),
                groups: list(List::Groups),
                detail: optional(Text::Detail),
            },
            hashed: list(List::Hashed),
            read: self.parts.names().map(str::to_owned).chain(self.names.iter().cloned()).collect(),
            expires_at: self.expires,
        }
    }
}

/// The two answers there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, serde::Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum VerdictName {
    /// It may pass.
    Allow,
    /// It may not.
    Deny,
}

impl From<Verdict> for VerdictName {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Allow => Self::Allow,
            Verdict::Deny => Self::Deny,
        }
    }
}

/// One decision, as it is answered.
#[derive(Debug, Clone, PartialEq, Serialize, serde::Deserialize, ToSchema)]
pub struct DecisionRecord {
    /// The decision's id.
    pub id: String,
    /// The request's id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// When, in Unix milliseconds.
    pub at_ms: u64,
    /// The policy that decided.
    pub epoch: u64,
    /// The answer.
    pub verdict: VerdictName,
    /// Why, from the closed set of reasons.
    pub reason: String,
    /// In audit mode: the reason for which it would have been refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub forgiven: Option<String>,
    /// The rule that decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// What would have been enough.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<String>,
    /// One line that says why it was refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub explanation: Option<String>,
    /// What it was about: `namespace/name`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// `outside` where it entered by an ingress, else `inside`.
    pub entry: String,
    /// The calling workload.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
    /// The method.
    pub method: String,
    /// The host.
    pub host: String,
    /// The path as it was sent, without its query.
    pub path: String,
    /// The user's token, as far as it was read.
    pub token: TokenRecord,
    /// `name=hash` of values that are not kept; equal hashes of one process are equal values.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hashed: Vec<String>,
    /// Which parts of the request were read for the decision.
    pub read: Vec<String>,
    /// Unix seconds at which the same question may have another answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<i64>,
}

/// What is kept of a token.
#[derive(Debug, Clone, PartialEq, Serialize, serde::Deserialize, ToSchema)]
pub struct TokenRecord {
    /// `absent`, `valid`, `expired`, …
    pub state: String,
    /// The issuer's name in the policy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// The subject.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// The client.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
    /// The scopes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scopes: Vec<String>,
    /// The groups.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    /// What was wrong with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}
