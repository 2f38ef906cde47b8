//! Everything that is looked at before a token is believed, in the order in which it is looked at.
//!
//! `jsonwebtoken` verifies signatures and leaves the rest to its caller; the rest is this list. Each entry has a code
//! for programs, the [`Reason`] that a failure is counted under, and a line for people.

use tollgate_proto::Reason;

macro_rules! checks {
    ($($name:ident = $code:literal => $reason:ident, $says:literal;)*) => {
        /// One thing that is looked at.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Check {
            $(#[doc = $says] $name,)*
        }

        impl Check {
            /// All of them, in order.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The code, as it stands in `tollgate.token.check`.
            pub const fn code(self) -> &'static str {
                match self {
                    $(Self::$name => $code,)*
                }
            }

            /// What a failure is counted under.
            pub const fn reason(self) -> Reason {
                match self {
                    $(Self::$name => Reason::$reason,)*
                }
            }

            /// What has to hold.
            pub const fn says(self) -> &'static str {
                match self {
                    $(Self::$name => $says,)*
                }
            }
        }
    };
}

checks! {
    OnePlace = "one_place" => TokenAmbiguous, "stands in one place of the request only";
    Size = "size" => TokenMalformed, "is not longer than 16 KiB";
    Form = "form" => TokenMalformed, "has the three parts of a compact JWS (RFC 7515 §3.1)";
    Encoding = "encoding" => TokenMalformed, "is base64url without padding";
    Header = "header" => TokenMalformed, "has a header that is one JSON object, each member once";
    Encrypted = "encrypted" => TokenMalformed, "is signed and not encrypted or compressed";
    EmbeddedKey = "embedded_key" => TokenMalformed, "brings no key of its own: jwk, jku, x5u, x5c";
    Unencoded = "unencoded" => TokenMalformed, "has an encoded payload (RFC 7797)";
    Critical = "critical" => TokenMalformed, "names no extension that must be understood (crit)";
    Algorithm = "algorithm" => TokenAlgorithm, "names a signature algorithm, and not none";
    Payload = "payload" => TokenMalformed, "has claims that are one JSON object, each member once at every depth";
    IssuerKnown = "issuer_known" => TokenIssuer, "is from an issuer that the policy knows";
    IssuerAccepted = "issuer_accepted" => TokenIssuer, "is from an issuer that the service accepts";
    Place = "place" => TokenIssuer, "stands where its issuer's tokens stand";
    Type = "type" => TokenMalformed, "is of a type that the issuer's tokens have (typ)";
    IssuerAlgorithm = "issuer_algorithm" => TokenAlgorithm, "is signed with an algorithm that the issuer may use";
    KeysAtHand = "keys_at_hand" => IssuerUnavailable, "is from an issuer whose keys are known well enough";
    Key = "key" => TokenKeyUnknown, "is signed with a key that the issuer has (kid)";
    KeyAlgorithm = "key_algorithm" => TokenAlgorithm, "is signed with an algorithm that its key is for";
    KeyValid = "key_valid" => TokenKeyUnknown, "is signed with a key whose certificate is valid";
    Signature = "signature" => TokenSignature, "has a signature that verifies";
    ClaimTypes = "claim_types" => TokenClaims, "has the claims that it needs, with the types that they have";
    Expiry = "expiry" => TokenExpired, "has not expired (exp)";
    NotBefore = "not_before" => TokenNotYet, "is valid already (nbf)";
    IssuedAt = "issued_at" => TokenNotYet, "was not issued in the future (iat)";
    Lifetime = "lifetime" => TokenClaims, "is not valid for longer than its issuer may make it";
    AudienceType = "audience_type" => TokenAudience, "names its audience as a text or a list of texts (aud)";
    ServiceAudience = "service_audience" => TokenAudience, "is meant for the service";
    IssuerAudience = "issuer_audience" => TokenAudience, "is meant for whom the issuer's tokens are meant";
    Binding = "binding" => TokenBinding, "is shown by whom it is bound to (RFC 8705)";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique() {
        let codes: std::collections::BTreeSet<_> = Check::ALL.iter().map(|check| check.code()).collect();
        assert_eq!(codes.len(), Check::ALL.len());
    }
}
