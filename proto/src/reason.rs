//! Why a request ended as it did: one closed set, used by log, span, metric label and error body.
//!
//! Adding a reason is adding a line to the table below; nothing else lists them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Who caused the outcome. An upstream's failure and our own are different things to an operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// It reached the upstream and was answered.
    Passed,
    /// Policy or token refused it.
    Denied,
    /// A limit refused it.
    Limited,
    /// The upstream, the client or we ourselves failed.
    Failed,
}

impl Outcome {
    /// The word shown to operators and used in filters.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Denied => "denied",
            Self::Limited => "limited",
            Self::Failed => "failed",
        }
    }
}

macro_rules! reasons {
    ($($(#[doc = $doc:literal])* $name:ident = $text:literal => $outcome:ident,)*) => {
        /// The value of `tollgate.reason`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Reason {
            $($(#[doc = $doc])* $name,)*
        }

        impl Reason {
            /// Every reason there is, in the order of a request's life.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The text on the wire.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }

            /// What this reason means for the request.
            pub const fn outcome(self) -> Outcome {
                match self {
                    $(Self::$name => Outcome::$outcome,)*
                }
            }
        }
    };
}

reasons! {
    /// Nothing was wrong.
    Ok = "ok" => Passed,
    /// No token was presented where one is needed.
    TokenAbsent = "token_absent" => Denied,
    /// The token is not a JWT we can read.
    TokenMalformed = "token_malformed" => Denied,
    /// The algorithm is not one that the issuer may use.
    TokenAlgorithm = "token_algorithm" => Denied,
    /// No key of the issuer has the token's `kid`.
    TokenKeyUnknown = "token_key_unknown" => Denied,
    /// The signature does not verify.
    TokenSignature = "token_signature" => Denied,
    /// `exp` has passed.
    TokenExpired = "token_expired" => Denied,
    /// `nbf` or `iat` is in the future.
    TokenNotYet = "token_not_yet" => Denied,
    /// The issuer is not one that the service accepts.
    TokenIssuer = "token_issuer" => Denied,
    /// The audience is not one that the service accepts.
    TokenAudience = "token_audience" => Denied,
    /// Another claim is missing or has the wrong type.
    TokenClaims = "token_claims" => Denied,
    /// The token, its subject or its key was revoked.
    TokenRevoked = "token_revoked" => Denied,
    /// The token is bound to another certificate (RFC 8705).
    TokenBinding = "token_binding" => Denied,
    /// Tokens were presented in two places at once.
    TokenAmbiguous = "token_ambiguous" => Denied,
    /// The issuer's keys cannot be had and the stale ones are too old.
    IssuerUnavailable = "issuer_unavailable" => Failed,
    /// This workload may not call this service.
    CallerDenied = "caller_denied" => Denied,
    /// The listener asks for mutual TLS.
    MtlsRequired = "mtls_required" => Denied,
    /// The peer's certificate has expired.
    CertificateExpired = "certificate_expired" => Denied,
    /// The peer's certificate was revoked.
    CertificateRevoked = "certificate_revoked" => Denied,
    /// A denial matched.
    RuleDeny = "rule_deny" => Denied,
    /// A grant would match if the token had one more scope.
    ScopeMissing = "scope_missing" => Denied,
    /// The caller holds no role that allows this.
    RoleMissing = "role_missing" => Denied,
    /// No rule says that this may pass.
    DefaultDeny = "default_deny" => Denied,
    /// The request can be read in two ways that policy judges differently.
    AmbiguousRequest = "ambiguous_request" => Denied,
    /// The authorization service did not answer.
    AuthzUnavailable = "authz_unavailable" => Failed,
    /// The authorization service answered with an error.
    AuthzError = "authz_error" => Failed,
    /// A global limit is full.
    LimitExceeded = "limit_exceeded" => Limited,
    /// A limit of this proxy is full.
    LimitLocal = "limit_local" => Limited,
    /// This client address sends too much.
    LimitAddress = "limit_address" => Limited,
    /// The rate-limit service did not answer and the route is closed without it.
    RatelimitUnavailable = "ratelimit_unavailable" => Failed,
    /// No route matches.
    NoRoute = "no_route" => Failed,
    /// The cluster has no endpoint that may be used.
    NoHealthyUpstream = "no_healthy_upstream" => Failed,
    /// The circuit breaker is open.
    BreakerOpen = "breaker_open" => Failed,
    /// No connection to the upstream.
    UpstreamConnect = "upstream_connect" => Failed,
    /// The upstream closed before it had answered.
    UpstreamReset = "upstream_reset" => Failed,
    /// The upstream took too long.
    UpstreamTimeout = "upstream_timeout" => Failed,
    /// The upstream's answer is not HTTP.
    UpstreamProtocol = "upstream_protocol" => Failed,
    /// The upstream answered with a failure of its own (5xx).
    UpstreamStatus = "upstream_status" => Failed,
    /// The route fails some requests on purpose.
    FaultInjected = "fault_injected" => Failed,
    /// The destination is not in the registry.
    EgressUnregistered = "egress_unregistered" => Denied,
    /// The client wanted a port of this workload that is not open to others.
    PortRefused = "port_refused" => Denied,
    /// The connection came to a transparent listener, and nobody had redirected it there.
    NotRedirected = "not_redirected" => Denied,
    /// The connection is one of the proxy's own, and has come back to it.
    LoopDetected = "loop_detected" => Failed,
    /// The route does not let a connection go over to this protocol.
    UpgradeRefused = "upgrade_refused" => Denied,
    /// The request breaks HTTP.
    RequestMalformed = "request_malformed" => Failed,
    /// Headers or body are over the limit.
    RequestTooLarge = "request_too_large" => Failed,
    /// The client did not finish its request in time.
    RequestTimeout = "request_timeout" => Failed,
    /// The client went away.
    ClientGone = "client_gone" => Failed,
    /// There is more to do than this process can.
    Overloaded = "overloaded" => Failed,
    /// This process is stopping.
    Draining = "draining" => Failed,
    /// A fault of ours.
    Internal = "internal" => Failed,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A text that is no [`Reason`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownReason(pub String);

impl fmt::Display for UnknownReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unknown reason `{}`", self.0)
    }
}

impl std::error::Error for UnknownReason {}

impl FromStr for Reason {
    type Err = UnknownReason;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.iter().copied().find(|r| r.as_str() == text).ok_or_else(|| UnknownReason(text.to_owned()))
    }
}

impl Serialize for Reason {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Reason {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_reads_back_as_itself() {
        for reason in Reason::ALL {
            assert_eq!(reason.as_str().parse::<Reason>().as_ref(), Ok(reason));
        }
        assert!("nonsense".parse::<Reason>().is_err());
    }

    #[test]
    fn texts_are_unique() {
        let mut texts: Vec<_> = Reason::ALL.iter().map(|r| r.as_str()).collect();
        texts.sort_unstable();
        texts.dedup();
        assert_eq!(texts.len(), Reason::ALL.len());
    }
}
