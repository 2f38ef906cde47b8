//! What the client is told when a request may not pass: a status, one public code, a challenge. Never more.

use std::fmt::Write as _;

use tollgate_proto::Reason;

use crate::authorize::Presented;
use crate::policy::Decision;
use crate::policy::nearest::missing_scopes;

/// How long a client should wait when an issuer is away.
const RETRY_AFTER_SECONDS: u32 = 5;
const REALM: &str = r#"Bearer realm="tollgate""#;

/// A refusal as the client sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The HTTP status.
    pub status: u16,
    /// The one word in the body.
    pub code: &'static str,
    /// The value of `www-authenticate` (RFC 6750 §3).
    pub challenge: Option<String>,
    /// The value of `retry-after`.
    pub retry_after: Option<u32>,
}

impl Refused {
    const fn plain(status: u16, code: &'static str) -> Self {
        Self { status, code, challenge: None, retry_after: None }
    }

    fn challenged(status: u16, code: &'static str, challenge: String) -> Self {
        Self { challenge: Some(challenge), ..Self::plain(status, code) }
    }

    /// For a request that is no proper one.
    pub const fn malformed() -> Self {
        Self::plain(400, "invalid_request")
    }
}

/// What the client of a refused request is told.
pub fn refused(decision: &Decision<'_>, presented: &Presented) -> Refused {
    match decision.reason {
        Reason::TokenAmbiguous | Reason::AmbiguousRequest | Reason::RequestMalformed => Refused::malformed(),
        Reason::IssuerUnavailable => Refused {
            retry_after: Some(RETRY_AFTER_SECONDS),
            ..Refused::plain(503, "temporarily_unavailable")
        },
        _ if matches!(presented, Presented::Refused(_)) => {
            Refused::challenged(401, "invalid_token", format!(r#"{REALM}, error="invalid_token""#))
        }
        // No error code where nothing was presented (RFC 6750 §3.1). What is refused by name is not mended by a token.
        _ if matches!(presented, Presented::Absent)
            && !matches!(
                decision.reason,
                Reason::RuleDeny | Reason::TokenRevoked | Reason::CertificateRevoked
            ) =>
        {
            Refused::challenged(401, "unauthenticated", REALM.to_owned())
        }
        Reason::ScopeMissing => {
            let mut challenge = format!(r#"{REALM}, error="insufficient_scope""#);
            if let Some(permission) = decision.nearest_miss.as_ref().and_then(|miss| miss.permission()) {
                let scopes = presented.credential().scopes();
                let missing: Vec<_> =
                    missing_scopes(permission, scopes).filter(|s| is_scope_token(s)).collect();
                write!(challenge, r#", scope="{}""#, missing.join(" ")).expect("a String takes everything");
            }
            Refused::challenged(403, "insufficient_scope", challenge)
        }
        _ => Refused::plain(403, "access_denied"),
    }
}

/// What may stand in a quoted `scope` (RFC 6749 §3.3): nothing that ends the quotes.
fn is_scope_token(scope: &str) -> bool {
    scope.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\')
}
