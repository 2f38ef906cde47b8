//! Conditions on values that a request brings along, compiled. Pure.

use http::{HeaderMap, HeaderName};
use percent_encoding::percent_decode_str;
use regex::bytes::{Regex, RegexBuilder};
use tollgate_identity::SpiffeId;
use tollgate_runtime::config::Invalid;

use super::descriptor::Facts;
use crate::config::{Claim, ClaimMatch, PeerMatch, ValueMatch, ValueMatchType};

/// The most memory that one compiled expression may take.
const MAX_REGEX: usize = 256 << 10;

/// A text, or an expression that a whole text fits.
#[derive(Debug, Clone)]
pub(super) enum Text {
    Exact(String),
    Fits(Regex),
}

impl Text {
    pub(super) fn compile(kind: ValueMatchType, value: &str, key: &str) -> Result<Self, Invalid> {
        match kind {
            ValueMatchType::Exact => Ok(Self::Exact(value.to_owned())),
            ValueMatchType::RegularExpression => RegexBuilder::new(&format!("^(?:{value})$"))
                .size_limit(MAX_REGEX)
                .build()
                .map(Self::Fits)
                .map_err(|problem| {
                    let problem = problem.to_string();
                    let last = problem.lines().last().unwrap_or_default().trim().to_owned();
                    Invalid::new(format!("{key}.value"), last, "a regular expression such as v[0-9]+")
                }),
        }
    }

    pub(super) fn fits(&self, value: &[u8]) -> bool {
        match self {
            Self::Exact(text) => text.as_bytes() == value,
            Self::Fits(regex) => regex.is_match(value),
        }
    }
}

/// A header that must be there; of several with one name any will do.
#[derive(Debug, Clone)]
pub(super) struct Header {
    name: HeaderName,
    text: Text,
}

impl Header {
    pub(super) fn compile(all: &[ValueMatch], key: &str) -> Result<Vec<Self>, Invalid> {
        let one = |(index, wanted): (usize, &ValueMatch)| {
            let key = format!("{key}.headers[{index}]");
            let name = HeaderName::try_from(&wanted.name).map_err(|_| {
                let problem = format!("`{}` cannot stand in a header", wanted.name);
                Invalid::new(format!("{key}.name"), problem, "the name of a header")
            })?;
            Ok(Self { name, text: Text::compile(wanted.kind, &wanted.value, &key)? })
        };
        all.iter().enumerate().map(one).collect()
    }

    pub(super) fn is_in(&self, headers: &HeaderMap) -> bool {
        headers.get_all(&self.name).iter().any(|value| self.text.fits(value.as_bytes()))
    }
}

/// A query parameter that must be there; of several with one name the first counts, as Gateway API has it.
#[derive(Debug, Clone)]
pub(super) struct QueryParam {
    name: String,
    text: Text,
}

impl QueryParam {
    pub(super) fn compile(all: &[ValueMatch], key: &str) -> Result<Vec<Self>, Invalid> {
        let one = |(index, wanted): (usize, &ValueMatch)| {
            let key = format!("{key}.query_params[{index}]");
            let text = Text::compile(wanted.kind, &wanted.value, &key)?;
            Ok(Self { name: wanted.name.clone(), text })
        };
        all.iter().enumerate().map(one).collect()
    }

    pub(super) fn is_in(&self, query: Option<&str>) -> bool {
        let raw = query.and_then(|query| query_param(query, &self.name));
        raw.is_some_and(|raw| {
            if raw.contains('%') {
                self.text.fits(&percent_decode_str(raw).collect::<Vec<_>>())
            } else {
                self.text.fits(raw.as_bytes())
            }
        })
    }
}

/// The first value of a parameter, as it is written.
pub(super) fn query_param<'q>(query: &'q str, name: &str) -> Option<&'q str> {
    query.split('&').find_map(|pair| {
        let (given, value) = pair.split_once('=').unwrap_or((pair, ""));
        (given == name).then_some(value)
    })
}

/// The value of a cookie.
pub(super) fn cookie<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    let values = headers.get_all(http::header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(';')).find_map(|pair| {
        let (given, value) = pair.split_once('=')?;
        (given.trim() == name).then(|| value.trim())
    })
}

/// Who is at the other end, where a certificate says so.
#[derive(Debug, Clone, Copy, Default)]
pub struct PeerNames<'r> {
    /// By its trust domain's own name, where it is a workload.
    pub name: Option<&'r str>,
    /// By the aliases of that trust domain.
    pub others: &'r [SpiffeId],
}

/// Who must be calling.
#[derive(Debug, Clone)]
pub(super) struct Peer(Text);

impl Peer {
    pub(super) fn compile(wanted: Option<&PeerMatch>, key: &str) -> Result<Option<Self>, Invalid> {
        let compile = |wanted: &PeerMatch| Text::compile(wanted.kind, &wanted.value, &format!("{key}.peer"));
        wanted.map(compile).transpose().map(|text| text.map(Self))
    }

    pub(super) fn is(&self, peer: PeerNames<'_>) -> bool {
        let fits = |name: &str| self.0.fits(name.as_bytes());
        peer.name.is_some_and(fits) || peer.others.iter().any(|other| fits(other.as_str()))
    }
}

/// A claim of the verified token that must be there.
#[derive(Debug, Clone)]
pub(super) struct ClaimIs {
    claim: Claim,
    text: Text,
}

impl ClaimIs {
    pub(super) fn compile(all: &[ClaimMatch], key: &str) -> Result<Vec<Self>, Invalid> {
        let one = |(index, wanted): (usize, &ClaimMatch)| {
            let key = format!("{key}.claims[{index}]");
            Ok(Self { claim: wanted.name, text: Text::compile(wanted.kind, &wanted.value, &key)? })
        };
        all.iter().enumerate().map(one).collect()
    }

    pub(super) fn holds(&self, facts: &Facts<'_>) -> bool {
        let one = |value: Option<&str>| value.is_some_and(|value| self.text.fits(value.as_bytes()));
        let any = |values: &[String]| values.iter().any(|value| self.text.fits(value.as_bytes()));
        match self.claim {
            Claim::Subject => one(facts.subject),
            Claim::Issuer => one(facts.issuer),
            Claim::ClientId => one(facts.client_id),
            Claim::Scope => any(facts.scopes),
            Claim::Group => any(facts.groups),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expression_fits_the_whole_value() {
        let text = Text::compile(ValueMatchType::RegularExpression, "v[0-9]+|beta", "k").unwrap();
        for (value, expected) in [("v1", true), ("v12", true), ("beta", true), ("xv1", false), ("v1x", false)]
        {
            assert_eq!(text.fits(value.as_bytes()), expected, "{value}");
        }
        let bad = Text::compile(ValueMatchType::RegularExpression, "v[", "k").unwrap_err();
        assert_eq!(bad.key, "k.value");
    }

    #[test]
    fn a_peer_is_known_by_every_name_of_its_trust_domain() {
        let wanted = |value: &str| PeerMatch { kind: ValueMatchType::Exact, value: value.to_owned() };
        let (new, old) = ("spiffe://new.example/ns/a/sa/b", "spiffe://old.example/ns/a/sa/b");
        let others: Vec<SpiffeId> = vec![old.parse().unwrap()];
        for (value, expected) in [(new, true), (old, true), ("spiffe://other.example/ns/a/sa/b", false)] {
            let peer = Peer::compile(Some(&wanted(value)), "k").unwrap().unwrap();
            assert_eq!(peer.is(PeerNames { name: Some(new), others: &others }), expected, "{value}");
            assert!(!peer.is(PeerNames::default()));
        }
    }

    #[test]
    fn query_parameters_and_cookies() {
        for (query, expected) in
            [("a=1&b=2", Some("2")), ("b", Some("")), ("b=1&b=2", Some("1")), ("bb=1", None), ("", None)]
        {
            assert_eq!(query_param(query, "b"), expected, "{query}");
        }
        let wanted = ValueMatch { kind: ValueMatchType::Exact, name: "b".into(), value: "x y".into() };
        let param = &QueryParam::compile(&[wanted], "k").unwrap()[0];
        assert!(param.is_in(Some("b=x%20y")) && !param.is_in(Some("b=x")) && !param.is_in(None));
        let mut headers = HeaderMap::new();
        headers.insert("cookie", "a=1; session=s=1; b".parse().unwrap());
        assert_eq!(cookie(&headers, "session"), Some("s=1"));
        assert_eq!(cookie(&headers, "sess"), None);
    }
}
