//! Who the user is: finding a token in a request and verifying it.
//!
//! ```text
//! place ──> Unverified ──(issuer from the snapshot)──> signature ──> claims ──> VerifiedToken ──> admitted
//!              └──────── every failure is a Refusal that names its Check ────────────┘   (time, audience, binding)
//! ```
//!
//! Pure: no clock, no network. Keys come from the snapshot; `keys::refresh` keeps fetched ones current.
//! `jsonwebtoken` verifies signatures and nothing else; everything it leaves to its caller is checked here.

mod admission;
mod check;
mod claim_header;
mod claim_parameter;
mod claim_set;
mod claims;
pub mod explain;
mod issuer;
mod json;
mod judge;
mod jws;
pub mod keys;
mod place;
mod remembered;
mod unverified;

use std::sync::Arc;

use jsonwebtoken::Algorithm;
use smol_str::SmolStr;
use tollgate_proto::Reason;

pub use admission::Occasion;
pub use check::Check;
pub use claim_header::ClaimHeader;
pub use claim_parameter::ClaimParameter;
pub use claim_set::ClaimSet;
pub use issuer::{Issuer, KeyOrigin, TrustedIssuer};
pub use judge::{Failure, Judge};
pub use jws::Jws;
pub use place::{Found, TokenPlace, find};
pub use remembered::{Remembered, TokenDigest, Verification};
pub use unverified::Unverified;

/// What a good token says.
#[derive(Debug, Clone, PartialEq)]
pub struct VerifiedToken {
    /// The issuer's name in the policy.
    pub issuer: Arc<str>,
    /// The value of `iss`.
    pub issuer_url: Arc<str>,
    /// The user.
    pub subject: SmolStr,
    /// The application that acts for the user.
    pub client_id: Option<SmolStr>,
    /// What the application may do.
    pub scopes: Vec<SmolStr>,
    /// What the user belongs to.
    pub groups: Vec<SmolStr>,
    /// Whom the token is for.
    pub audience: Vec<SmolStr>,
    /// The token's own id.
    pub jti: Option<SmolStr>,
    /// The key that signed it: what it calls itself, else its thumbprint. Never the token's word, so that a revoked
    /// key stays revoked under every name.
    pub kid: Option<Arc<str>>,
    /// The algorithm that signed it; `None` for an opaque token.
    pub algorithm: Option<Algorithm>,
    /// Unix seconds.
    pub not_before: Option<i64>,
    /// Unix seconds.
    pub issued_at: Option<i64>,
    /// Unix seconds.
    pub expires_at: i64,
    /// Who alone may show it.
    pub binding: Binding,
    /// Every claim, for conditions.
    pub claims: ClaimSet,
}

/// To whom a token is bound (`cnf`, RFC 7800).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Binding {
    /// To nobody.
    None,
    /// To who holds the client certificate with this thumbprint (`x5t#S256`, RFC 8705).
    Certificate(Box<str>),
    /// In a way that we do not know.
    Unknown,
}

impl VerifiedToken {
    /// The claim of this name, or at the end of this path.
    pub fn claim(&self, name: &str) -> Option<&serde_json::Value> {
        claims::claim(self.claims.members(), name)
    }

    /// What is known of somebody who was named in another way than by a JWT.
    pub fn of_subject(issuer: &str, subject: &str) -> Self {
        Self {
            issuer: issuer.into(),
            issuer_url: issuer.into(),
            subject: subject.into(),
            client_id: None,
            scopes: Vec::new(),
            groups: Vec::new(),
            audience: Vec::new(),
            jti: None,
            kid: None,
            algorithm: None,
            not_before: None,
            issued_at: None,
            expires_at: i64::MAX,
            binding: Binding::None,
            claims: ClaimSet::default(),
        }
    }
}

/// Why a token is no good.
#[derive(Debug, Clone, PartialEq)]
pub struct Refusal {
    /// The class of the failure.
    pub reason: Reason,
    /// What was looked at.
    pub check: Check,
    /// What exactly, for the operator. Holds nothing of the token but names.
    pub detail: String,
    /// What the token says, where its signature was good.
    pub token: Option<Box<VerifiedToken>>,
}

impl Refusal {
    /// A refusal of a token whose signature was not (yet) found good.
    pub fn new(check: Check, detail: impl Into<String>) -> Self {
        Self { reason: check.reason(), check, detail: detail.into(), token: None }
    }

    /// The value of `tollgate.token.state`.
    pub fn state(&self) -> &'static str {
        match self.reason {
            Reason::TokenExpired => "expired",
            Reason::TokenNotYet => "not_yet",
            Reason::TokenSignature => "bad_signature",
            Reason::TokenKeyUnknown | Reason::IssuerUnavailable => "unknown_key",
            Reason::TokenIssuer => "wrong_issuer",
            Reason::TokenAudience => "wrong_audience",
            Reason::TokenRevoked => "revoked",
            _ => "malformed",
        }
    }
}
