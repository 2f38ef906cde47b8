//! Who the client is behind proxies that are trusted to say so. Pure.
//!
//! ```text
//! X-Forwarded-For: forged, forged, client, nearest proxy but one        <- the one that connects here
//!                                     ^ `hops: 2` counts from the end; more than they wrote is the client's own word
//! ```
//!
//! Nothing is believed without `trusted`; then only what trusted proxies have written themselves is.

use std::net::{IpAddr, SocketAddr};

use http::header::FORWARDED;
use http::{HeaderMap, HeaderName};
use smallvec::SmallVec;

use crate::config::{Trusted, TrustedHeader};

/// Entries that are looked at, from the end: as many as `hops` can say.
const MOST: usize = u8::MAX as usize;
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// The client, and what is believed about its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Client {
    pub(crate) address: IpAddr,
    /// How it reached the first proxy, if that is told by one which is trusted.
    pub(crate) scheme: Option<&'static str>,
}

/// One entry of the header: whom a proxy saw, and how that one came.
#[derive(Debug, Clone, Copy)]
struct Entry {
    address: Option<IpAddr>,
    scheme: Option<&'static str>,
}

/// Finds the client of a request that came from `peer`.
pub(crate) fn find(peer: IpAddr, headers: &HeaderMap, trusted: &Trusted) -> Client {
    let nobody = Client { address: peer.to_canonical(), scheme: None };
    let is_proxy = |address: IpAddr| trusted.proxies.iter().any(|network| network.contains(address));
    let connects = match (trusted.hops, trusted.proxies.is_empty()) {
        (0, true) => return nobody,
        (_, true) => true,
        (_, false) => is_proxy(peer),
    };
    if !connects {
        return nobody;
    }
    let entries = entries(headers, trusted.header);
    let found = match trusted.hops {
        // The last that is no proxy; if all are, the first of them.
        0 => {
            let mut last = None;
            for entry in entries {
                let Some(address) = entry.address else { break };
                last = Some(entry);
                if !is_proxy(address) {
                    break;
                }
            }
            last
        }
        hops => entries.get(usize::from(hops) - 1).copied(),
    };
    match found.and_then(|entry| Some((entry, entry.address?))) {
        Some((entry, address)) => Client { address, scheme: entry.scheme },
        None => nobody,
    }
}

/// The entries of the header from its end.
fn entries(headers: &HeaderMap, header: TrustedHeader) -> SmallVec<[Entry; 4]> {
    match header {
        TrustedHeader::XForwardedFor => {
            // It is one for all entries: who is trusted to say where a request comes from has set it.
            let scheme = scheme_of(one(headers, &FORWARDED_PROTO));
            let texts = from_the_end(headers, &FORWARDED_FOR, Quotes::Plain);
            texts.into_iter().map(|text| Entry { address: address(text), scheme }).collect()
        }
        TrustedHeader::Forwarded => {
            from_the_end(headers, &FORWARDED, Quotes::Hide).into_iter().map(forwarded).collect()
        }
    }
}

/// What quotes do to the separators within them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Quotes {
    Plain,
    Hide,
}

/// The entries of a header, each for itself: what one of them holds is nothing to the others. The last ones are
/// trusted proxies', and those before them may be anything.
fn from_the_end<'h>(headers: &'h HeaderMap, name: &HeaderName, quotes: Quotes) -> SmallVec<[&'h str; 4]> {
    let lines: SmallVec<[&[u8]; 2]> = headers.get_all(name).iter().map(|value| value.as_bytes()).collect();
    let mut entries = SmallVec::new();
    for line in lines.into_iter().rev() {
        split_from_the_end(line, b',', quotes, &mut entries);
    }
    entries.truncate(MOST);
    entries
}

/// From the end, so that a quote which is opened before what a proxy has added hides nothing of that.
fn split_from_the_end<'h>(line: &'h [u8], separator: u8, quotes: Quotes, to: &mut SmallVec<[&'h str; 4]>) {
    let mut text = |bytes: &'h [u8]| to.push(str::from_utf8(bytes).unwrap_or_default().trim());
    let (mut end, mut quoted) = (line.len(), false);
    for (at, byte) in line.iter().enumerate().rev() {
        if *byte == b'"' && quotes == Quotes::Hide {
            quoted = !quoted;
        } else if *byte == separator && !quoted {
            text(&line[at + 1..end]);
            end = at;
        }
    }
    text(&line[..end]);
}

fn one<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h str> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => value.to_str().ok(),
        _ => None,
    }
}

fn scheme_of(text: Option<&str>) -> Option<&'static str> {
    match text?.trim() {
        text if text.eq_ignore_ascii_case("https") => Some("https"),
        text if text.eq_ignore_ascii_case("http") => Some("http"),
        _ => None,
    }
}

/// `for=192.0.2.1;proto=https`, `for="[2001:db8::1]:4711"`. What can be read in two ways is nobody's word: escapes, half
/// a quote, and anything said twice.
fn forwarded(element: &str) -> Entry {
    let nobody = Entry { address: None, scheme: None };
    if element.contains('\\') || element.matches('"').count() % 2 == 1 {
        return nobody;
    }
    let mut pairs = SmallVec::new();
    split_from_the_end(element.as_bytes(), b';', Quotes::Hide, &mut pairs);
    let said = |wanted: &str| {
        let mut values = pairs.iter().filter_map(|pair| {
            let (name, value) = pair.split_once('=')?;
            name.trim().eq_ignore_ascii_case(wanted).then(|| value.trim())
        });
        let value = values.next()?;
        values.next().is_none().then(|| unquoted(value))
    };
    Entry { address: said("for").and_then(address), scheme: scheme_of(said("proto")) }
}

fn unquoted(value: &str) -> &str {
    value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value)
}

/// An address, with or without a port.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let address = bare.parse::<IpAddr>().or_else(|_| text.parse::<SocketAddr>().map(|at| at.ip()));
    address.ok().map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn trusted(hops: u8, proxies: &[&str], header: TrustedHeader) -> Trusted {
        Trusted { hops, proxies: proxies.iter().map(|one| one.parse().unwrap()).collect(), header }
    }

    #[track_caller]
    fn check(trusted: &Trusted, lines: &[&str], expected: &str) {
        let name = match trusted.header {
            TrustedHeader::XForwardedFor => FORWARDED_FOR,
            TrustedHeader::Forwarded => FORWARDED,
        };
        let headers = lines
            .iter()
            .map(|line| (name.clone(), HeaderValue::from_bytes(line.as_bytes()).unwrap()))
            .collect();
        let found = find("10.0.0.1".parse().unwrap(), &headers, trusted);
        assert_eq!(found.address.to_string(), expected, "{trusted:?} {lines:?}");
    }

    #[test]
    fn nobody_is_believed_by_default() {
        let nobody = Trusted::default();
        check(&nobody, &["192.0.2.1"], "10.0.0.1");
        check(&Trusted { header: TrustedHeader::Forwarded, ..nobody }, &["for=192.0.2.1"], "10.0.0.1");
    }

    #[test]
    fn hops_are_counted_from_the_end() {
        let x = TrustedHeader::XForwardedFor;
        for (hops, lines, expected) in [
            (1, &["192.0.2.1"][..], "192.0.2.1"),
            (1, &["203.0.113.66, 192.0.2.1"], "192.0.2.1"),
            (1, &["203.0.113.66", "192.0.2.1"], "192.0.2.1"),
            (2, &["203.0.113.66, 192.0.2.1, 10.0.0.2"], "192.0.2.1"),
            (2, &["203.0.113.66, 192.0.2.1", "10.0.0.2"], "192.0.2.1"),
            // Fewer than there must be: somebody came past them.
            (2, &["192.0.2.1"], "10.0.0.1"),
            (1, &[], "10.0.0.1"),
            (1, &["192.0.2.1, nonsense"], "10.0.0.1"),
            (1, &["192.0.2.1,"], "10.0.0.1"),
            (1, &["192.0.2.1:4711"], "192.0.2.1"),
            (1, &["[2001:db8::1]:4711"], "2001:db8::1"),
            (1, &["::ffff:192.0.2.1"], "192.0.2.1"),
            // What is no text, or no list, spoils nothing but itself.
            (1, &["\u{e9}, 192.0.2.1"], "192.0.2.1"),
            (1, &["\", 192.0.2.1"], "192.0.2.1"),
            (1, &["\u{e9}", "192.0.2.1"], "192.0.2.1"),
            (2, &["\u{e9}, 192.0.2.1, 10.0.0.2"], "192.0.2.1"),
        ] {
            check(&trusted(hops, &[], x), lines, expected);
            // The same from a place that is known, and nothing from any other.
            check(&trusted(hops, &["10.0.0.0/8"], x), lines, expected);
            check(&trusted(hops, &["172.16.0.0/12"], x), lines, "10.0.0.1");
        }
    }

    #[test]
    fn places_are_passed_over_from_the_end() {
        let known = trusted(0, &["10.0.0.0/8"], TrustedHeader::XForwardedFor);
        for (line, expected) in [
            ("192.0.2.1", "192.0.2.1"),
            ("203.0.113.66, 192.0.2.1", "192.0.2.1"),
            ("203.0.113.66, 192.0.2.1, 10.9.9.9, 10.0.0.2", "192.0.2.1"),
            ("10.9.9.9, 10.0.0.2", "10.9.9.9"),
            // A forged address of a proxy stands before the client's own, which the next proxy wrote.
            ("10.9.9.9, 192.0.2.1", "192.0.2.1"),
            ("203.0.113.66, nonsense, 10.0.0.2", "10.0.0.2"),
            ("unknown", "10.0.0.1"),
        ] {
            check(&known, &[line], expected);
        }
        let elsewhere = trusted(0, &["172.16.0.0/12"], TrustedHeader::XForwardedFor);
        check(&elsewhere, &["192.0.2.1"], "10.0.0.1");
    }

    #[test]
    fn forwarded_is_read_where_it_is_the_header() {
        let one = trusted(1, &[], TrustedHeader::Forwarded);
        for (line, expected) in [
            ("for=192.0.2.1", "192.0.2.1"),
            ("for=203.0.113.66, For=\"192.0.2.1:4711\";proto=https;by=10.0.0.1", "192.0.2.1"),
            ("for=\"[2001:db8::1]:4711\"", "2001:db8::1"),
            ("for=_hidden", "10.0.0.1"),
            ("for=\"203.0.113.66, for=192.0.2.9\"", "10.0.0.1"),
            ("proto=https", "10.0.0.1"),
            // A proxy tells the host that the client has chosen.
            ("for=192.0.2.1;host=\"a;for=10.0.0.9;x=\"", "192.0.2.1"),
            ("for=192.0.2.1;host=\"a,for=10.0.0.9;x=\"", "192.0.2.1"),
            ("host=\"a,for=10.0.0.9;x=\";for=192.0.2.1", "192.0.2.1"),
            ("for=\"10.0.0.9, for=192.0.2.1", "192.0.2.1"),
            ("\u{e9}, for=192.0.2.1", "192.0.2.1"),
            ("for=192.0.2.1;host=\"a\\\",for=10.0.0.9;x=\\\"\"", "10.0.0.1"),
            ("for=10.0.0.9;for=192.0.2.1", "10.0.0.1"),
        ] {
            check(&one, &[line], expected);
        }
        let headers = [
            (FORWARDED, "for=192.0.2.1;proto=HTTPS".parse().unwrap()),
            (FORWARDED_FOR, "203.0.113.66".parse().unwrap()),
        ];
        let found = find("10.0.0.1".parse().unwrap(), &HeaderMap::from_iter(headers), &one);
        assert_eq!((found.address.to_string().as_str(), found.scheme), ("192.0.2.1", Some("https")));
    }

    #[test]
    fn the_scheme_is_believed_with_the_address() {
        let one = trusted(1, &[], TrustedHeader::XForwardedFor);
        let said = |proto: &'static str| {
            let headers =
                [(FORWARDED_FOR, "192.0.2.1".parse().unwrap()), (FORWARDED_PROTO, proto.parse().unwrap())];
            find("10.0.0.1".parse().unwrap(), &HeaderMap::from_iter(headers), &one).scheme
        };
        assert_eq!(
            (said("https"), said("HTTP"), said("gopher"), said("https, http")),
            (Some("https"), Some("http"), None, None)
        );
        let headers = HeaderMap::from_iter([(FORWARDED_PROTO, "https".parse().unwrap())]);
        assert_eq!(find("10.0.0.1".parse().unwrap(), &headers, &one).scheme, None);
    }
}
