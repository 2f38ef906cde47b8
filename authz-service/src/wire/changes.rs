//! What an allow changes about a request on its way to the upstream. Pure.
//!
//! The upstream gets exactly what was judged, but for three things: headers that only we may write are taken out,
//! claims are put into the headers and query parameters that the issuer names for them, and a token that the upstream shall not see is
//! removed. Nothing here ever writes a path or a host.

use smallvec::SmallVec;

use crate::authorize::{Presented, Question, service_of};
use crate::facts::Headers;
use crate::policy::Snapshot;
use crate::token::{self, ClaimParameter, Issuer, TokenPlace, VerifiedToken};

/// Headers that are ours to say.
const OUR_HEADERS: &str = "x-tollgate-";
/// The one of them that goes on from workload to workload: the mark of a copy, by which nothing is allowed.
const COPY: &str = "x-tollgate-mirror";

/// Changes, in the words of every wire.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Changes {
    /// Headers that have this value afterwards.
    pub(super) set: Vec<(String, String)>,
    /// Headers that are gone afterwards.
    pub(super) remove: Vec<String>,
    /// Query parameters that have this value afterwards, percent-encoded.
    pub(super) set_query: Vec<(String, String)>,
    /// Query parameters that are gone afterwards, as the client spelt them.
    pub(super) remove_query: Vec<String>,
    /// Whether the client said a parameter that is ours to say.
    pub(super) presumes: bool,
}

/// Headers whose names can be gone through.
pub(super) trait Lines: Headers {
    /// Every name, once.
    fn names(&self) -> Box<dyn Iterator<Item = &str> + '_>;
}

/// What an allowed request is changed by.
pub(super) fn of(
    snapshot: &Snapshot,
    question: &Question<'_>,
    presented: &Presented,
    headers: &impl Lines,
) -> Changes {
    let mut changes = Changes::default();
    let token = if let Presented::Verified(token) = presented { Some(&**token) } else { None };
    let issuer = token.and_then(|token| snapshot.issuer(&token.issuer_url)).map(|trusted| &*trusted.issuer);
    if let (Some(token), Some(issuer)) = (token, issuer) {
        changes.say_claims(issuer, token);
    }
    let accepted = service_of(snapshot, question).map_or(&[][..], |rules| &rules.service.issuers);
    let claim_headers: SmallVec<[&str; 8]> = (accepted.iter().filter_map(|name| snapshot.issuer_named(name)))
        .flat_map(|trusted| &trusted.issuer.claim_headers)
        .map(|ours| &*ours.header)
        .collect();
    for name in headers.names() {
        let is_mark = name == COPY && question.peer.is_some();
        if (is_read_as_below(name, OUR_HEADERS) && !is_mark
            || claim_headers.iter().any(|ours| is_read_as(name, ours)))
            && !changes.set.iter().any(|(set, _)| set == name)
        {
            changes.remove.push(name.to_owned());
        }
    }
    for ours in (accepted.iter().filter_map(|name| snapshot.issuer_named(name)))
        .flat_map(|trusted| &trusted.issuer.claim_parameters)
    {
        changes.take_out(ours, question.target);
    }
    if let Some(issuer) = issuer.filter(|issuer| issuer.strip) {
        changes.strip(issuer, question.target, headers);
    }
    changes
}

impl Changes {
    fn say_claims(&mut self, issuer: &Issuer, token: &VerifiedToken) {
        for header in &issuer.claim_headers {
            if let Some(value) = header.value(token) {
                self.set.push((header.header.to_string(), value));
            }
        }
        for parameter in &issuer.claim_parameters {
            if let Some(value) = parameter.value(token) {
                self.set_query.push((parameter.parameter.to_string(), value));
            }
        }
    }

    /// Takes a client's own parameter out, unless ours takes its place.
    fn take_out(&mut self, ours: &ClaimParameter, target: &str) {
        let query = target.split_once('?').map_or("", |(_path, query)| query);
        for pair in query.split('&').filter(|pair| ours.is_said_by(pair)) {
            self.presumes = true;
            let name = pair.split_once('=').map_or(pair, |(name, _)| name);
            if !self.set_query.iter().any(|(set, _)| set == name)
                && !self.remove_query.iter().any(|gone| gone == name)
            {
                self.remove_query.push(name.to_owned());
            }
        }
    }

    /// Takes the token out of where it stands, and leaves what else stands there.
    fn strip(&mut self, issuer: &Issuer, target: &str, headers: &impl Lines) {
        let found =
            token::find(&issuer.places, target, |name| headers.header(name).map(|header| header.value));
        match found.ok().flatten().map(|found| found.place) {
            None => {}
            Some(TokenPlace::Bearer) => self.remove.push("authorization".to_owned()),
            Some(TokenPlace::Header(name)) => self.remove.push(name.to_string()),
            Some(TokenPlace::Query(name)) => self.remove_query.push(name.to_string()),
            Some(TokenPlace::Cookie(name)) => {
                let others = headers
                    .header("cookie")
                    .map_or_else(String::new, |cookies| without_crumb(cookies.value, name));
                if others.is_empty() {
                    self.remove.push("cookie".to_owned());
                } else {
                    self.set.push(("cookie".to_owned(), others));
                }
            }
        }
    }
}

fn without_crumb(cookies: &str, name: &str) -> String {
    let is_other = |crumb: &&str| crumb.split_once('=').is_none_or(|(key, _)| key.trim() != name);
    let others: Vec<_> = cookies.split([';', ',']).map(str::trim).filter(|crumb| !crumb.is_empty()).collect();
    others.into_iter().filter(is_other).collect::<Vec<_>>().join("; ")
}

/// Whether an upstream may read a header of this name as `ours`: many make no difference between `-` and `_`.
fn is_read_as(name: &str, ours: &str) -> bool {
    name.len() == ours.len() && is_read_as_below(name, ours)
}

fn is_read_as_below(name: &str, ours: &str) -> bool {
    let fold = |byte: u8| if byte == b'_' { b'-' } else { byte.to_ascii_lowercase() };
    name.len() >= ours.len() && name.bytes().zip(ours.bytes()).all(|(a, b)| fold(a) == fold(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_an_upstream_takes_for_ours() {
        for (name, ours) in [
            ("x-tollgate-subject", true),
            ("X_Tollgate-Subject", true),
            ("x-tollgate", false),
            ("x-tollgat", false),
            ("é-tollgate-", false),
        ] {
            assert_eq!(is_read_as_below(name, OUR_HEADERS), ours, "{name}");
        }
        assert!(is_read_as("x_user", "x-user") && !is_read_as("x-user-id", "x-user"));
    }

    #[test]
    fn one_crumb_goes_and_the_others_stay() {
        for (cookies, others) in [
            ("session=t", ""),
            ("a=b; session=t", "a=b"),
            ("session=t;a=b ;  c", "a=b; c"),
            ("sessions=t; session =x", "sessions=t"),
            ("", ""),
        ] {
            assert_eq!(without_crumb(cookies, "session"), others, "{cookies}");
        }
    }
}
