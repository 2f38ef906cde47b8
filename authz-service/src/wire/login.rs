//! Whether a person with a browser is sent to a login page instead of being told 401. Pure.

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use tollgate_proto::Reason;

use super::refusal::Refused;
use crate::authorize::{Presented, Question, service_of};
use crate::policy::Snapshot;
use crate::policy::model::{Login, Service};
use crate::token::TokenPlace;

/// Longer addresses to return to are left out.
const MAX_RETURN_BYTES: usize = 2048;

/// The refusal as a browser gets it: with a page to go to, if the service has one and a person asks for a page.
pub(super) fn for_browser<'h>(
    refused: Refused,
    snapshot: &Snapshot,
    question: &Question<'_>,
    presented: &Presented,
    scheme: &str,
    header: impl Fn(&str) -> Option<&'h str>,
) -> Refused {
    let service = service_of(snapshot, question).map(|rules| &*rules.service);
    let Some((service, login)) = service.and_then(|service| Some((service, service.login.as_ref()?))) else {
        return refused;
    };
    if refused.status != 401 || !is_logged_out(presented) || !is_navigation(question.method, header) {
        return refused;
    }
    let places = service_of(snapshot, question).map_or(&[][..], |rules| &rules.token_places);
    Refused { status: 302, location: Some(page(login, service, question, places, scheme)), ..refused }
}

/// Nobody was there, or somebody was and his time is over. A token that is bad in another way is no person's mistake.
fn is_logged_out(presented: &Presented) -> bool {
    match presented {
        Presented::Absent => true,
        Presented::Refused(refusal) => refusal.reason == Reason::TokenExpired,
        Presented::Unasked | Presented::Verified(_) => false,
    }
}

/// A browser that shows the answer to a person, and not a script or a program in between.
fn is_navigation<'h>(method: &str, header: impl Fn(&str) -> Option<&'h str>) -> bool {
    let wants_page = header("accept").is_some_and(|accept| {
        accept.split(',').any(|kind| kind.split(';').next().is_some_and(|kind| kind.trim() == "text/html"))
    });
    matches!(method, "GET" | "HEAD")
        && wants_page
        && header("sec-fetch-mode").is_none_or(|mode| mode == "navigate")
}

fn page(
    login: &Login,
    service: &Service,
    question: &Question<'_>,
    places: &[TokenPlace],
    scheme: &str,
) -> String {
    let mut page = login.url.to_string();
    let Some(parameter) = &login.return_parameter else { return page };
    let target = without_token(question.target, places);
    // The host is the client's word. Only one that the service has may be returned to; else the page has to know.
    let name = question.host.rsplit_once(':').map_or(question.host, |(name, _port)| name);
    let is_own = service.hosts.iter().any(|host| host.eq_ignore_ascii_case(name));
    let scheme = if scheme == "http" { "http" } else { "https" };
    // A browser takes `//host` and `/\\host` for another host.
    let leads_away = target.starts_with("//") || target.starts_with("/\\");
    if !is_own && leads_away {
        return page;
    }
    let back = if is_own { format!("{scheme}://{}{target}", question.host) } else { target };
    if back.len() <= MAX_RETURN_BYTES {
        page.push(if page.contains('?') { '&' } else { '?' });
        page.push_str(parameter);
        page.push('=');
        page.extend(utf8_percent_encode(&back, NON_ALPHANUMERIC));
    }
    page
}

/// The target without parameters in which a token may stand: a login page has no business with an old one.
fn without_token(target: &str, places: &[TokenPlace]) -> String {
    let Some((path, query)) = target.split_once('?') else { return target.to_owned() };
    let is_token = |pair: &&str| {
        let name = pair.split_once('=').map_or(*pair, |(name, _)| name);
        places.iter().any(|place| matches!(place, TokenPlace::Query(token) if **token == *name))
    };
    let rest: Vec<_> = query.split('&').filter(|pair| !is_token(pair)).collect();
    if rest.is_empty() { path.to_owned() } else { format!("{path}?{}", rest.join("&")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_are_told_from_programs() {
        for (method, accept, mode, person) in [
            ("GET", "text/html,application/xhtml+xml;q=0.9,*/*;q=0.8", None, true),
            ("GET", "text/html", Some("navigate"), true),
            ("HEAD", "text/html", None, true),
            ("GET", "text/html", Some("cors"), false),
            ("POST", "text/html", None, false),
            ("GET", "*/*", None, false),
            ("GET", "application/json", None, false),
            ("GET", "", None, false),
        ] {
            let header = |name: &str| match name {
                "accept" => Some(accept),
                "sec-fetch-mode" => mode,
                _ => None,
            };
            assert_eq!(is_navigation(method, header), person, "{method} {accept} {mode:?}");
        }
    }

    #[test]
    fn an_old_token_does_not_travel() {
        let places = [TokenPlace::Query("t".into())];
        for (target, expected) in [
            ("/a", "/a"),
            ("/a?b=1", "/a?b=1"),
            ("/a?t=x", "/a"),
            ("/a?b=1&t=x&c", "/a?b=1&c"),
            ("/a?t", "/a"),
        ] {
            assert_eq!(without_token(target, &places), expected, "{target}");
        }
    }
}
