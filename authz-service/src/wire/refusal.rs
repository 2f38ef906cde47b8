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
    /// The value of `location`, where a person is sent to log in.
    pub location: Option<String>,
}

impl Refused {
    const fn plain(status: u16, code: &'static str) -> Self {
        Self { status, code, challenge: None, retry_after: None, location: None }
    }

    fn challenged(status: u16, code: &'static str, challenge: String) -> Self {
        Self { challenge: Some(challenge), ..Self::plain(status, code) }
    }

    /// Whether we are at fault: we could not say whether the request may pass.
    pub const fn is_ours(&self) -> bool {
        self.status >= 500
    }

    /// The headers that go with it.
    pub fn headers(&self) -> impl Iterator<Item = (&'static str, String)> {
        let challenge = self.challenge.clone().filter(|_| self.location.is_none());
        // A page to log in at is for this moment and this person.
        let uncached = self.location.is_some().then(|| ("cache-control", "no-store".to_owned()));
        (challenge.map(|challenge| ("www-authenticate", challenge)).into_iter())
            .chain(self.retry_after.map(|seconds| ("retry-after", seconds.to_string())))
            .chain(self.location.clone().map(|page| ("location", page)))
            .chain(uncached)
    }

    /// The body: the public code and the request's id, never more. For gRPC it becomes the message of the status.
    pub fn body(&self, grpc: bool, request_id: &str) -> String {
        if grpc {
            return format!("{} ({request_id})", self.code);
        }
        serde_json::json!({"request_id": request_id, "error": self.code}).to_string()
    }

    /// The status of a gRPC call that is refused so.
    pub const fn grpc_code(&self) -> tonic::Code {
        match self.status {
            302 | 401 => tonic::Code::Unauthenticated,
            400 => tonic::Code::InvalidArgument,
            503 => tonic::Code::Unavailable,
            _ => tonic::Code::PermissionDenied,
        }
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
