//! Which headers go through, which stop here, and which are ours to say.

use std::net::IpAddr;

use http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_LENGTH, COOKIE, EXPECT, FORWARDED, HOST, PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION, TE, TRANSFER_ENCODING, UPGRADE,
};
use http::uri::Authority;
use http::{HeaderMap, HeaderName, HeaderValue, Version, request};
use smallvec::SmallVec;

use crate::config::Role;

/// The header that carries the request id.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
/// The header that tells the upstream what certificate the client has shown.
pub const CLIENT_CERT: HeaderName = HeaderName::from_static("x-forwarded-client-cert");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// Names that only proxies of ours may say, whatever the role.
const OURS: &str = "x-tollgate-";
/// What says of a request that it is a copy. A sidecar passes it on to its application: who calls a sidecar is a workload, and
/// nothing that it may do depends on this.
pub const COPY: HeaderName = HeaderName::from_static("x-tollgate-mirror");
/// Names by which clients would speak about themselves as proxies do.
const AT_THE_EDGE: [&str; 3] = ["x-forwarded-", "x-envoy-", "x-real-ip"];

/// The other protocol than HTTP that the client asks for on this connection. HTTP/1.0 and HTTP/2 have no such thing.
pub fn asks_for_upgrade(parts: &request::Parts) -> Option<HeaderValue> {
    let to = parts.headers.get(UPGRADE).filter(|to| !is_h2c(to))?;
    let asks = connection_tokens(&parts.headers).any(|token| token.eq_ignore_ascii_case("upgrade"));
    (asks && parts.version == Version::HTTP_11).then(|| to.clone())
}

/// Whether another protocol is as much as named. What comes after such a request cannot be told apart from it, so nothing
/// may, unless it is granted.
pub fn names_a_protocol(headers: &HeaderMap) -> bool {
    headers.get_all(UPGRADE).iter().any(|to| !is_h2c(to))
}

/// An offer that may be ignored.
fn is_h2c(to: &HeaderValue) -> bool {
    to.as_bytes().eq_ignore_ascii_case(b"h2c")
}

/// Removes what a client may not say and what concerns only its own connection.
pub fn strip_request(headers: &mut HeaderMap, role: Role) {
    let trailers = headers.get(TE).is_some_and(accepts_trailers);
    strip_hop_by_hop(headers);
    // The body is framed anew towards the upstream, and `100 Continue` was given when it was read.
    headers.remove(EXPECT);
    if trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    let refused: SmallVec<[HeaderName; 8]> =
        headers.keys().filter(|name| may_not_say(name.as_str(), role)).cloned().collect();
    for name in refused {
        headers.remove(name);
    }
    join_cookies(headers);
    // Ours to say, of the connection that we see.
    headers.remove(CLIENT_CERT);
    if role == Role::Ingress {
        headers.remove(FORWARDED);
    }
}

fn may_not_say(name: &str, role: Role) -> bool {
    if name.contains('_') {
        // Many applications read `X_Forwarded_For` as `X-Forwarded-For`.
        let dashed = name.replace('_', "-");
        return dashed == CLIENT_CERT.as_str() || dashed == REQUEST_ID.as_str() || is_proxys(&dashed, role);
    }
    name.starts_with("x-") && is_proxys(name, role) && !(role == Role::Sidecar && name == COPY.as_str())
}

fn is_proxys(name: &str, role: Role) -> bool {
    name.starts_with(OURS)
        || role == Role::Ingress && AT_THE_EDGE.iter().any(|prefix| name.starts_with(prefix))
}

/// The SHA-256, in hexadecimal digits, of the certificate that a proxy says its client has shown (`Hash`). In what proxies
/// write it comes before all that may be quoted. Whether that proxy is believed is for authorization to say.
pub fn client_certificate(headers: &HeaderMap) -> Option<String> {
    let mut said = headers.get_all(CLIENT_CERT).iter();
    let (Some(one), None) = (said.next(), said.next()) else { return None };
    let unquoted = one.to_str().ok()?.split('"').next()?;
    let hash = unquoted.split(';').find_map(|pair| pair.strip_prefix("Hash="))?;
    Some(hash.to_owned()).filter(|hash| hash.len() == 64)
}

/// Removes headers that applications read as another one which is there: to many of them `x_user` is `x-user`, and what a
/// proxy says in the one must not be said again by a client in the other.
pub fn strip_lookalikes(headers: &mut HeaderMap) {
    let doubles: SmallVec<[HeaderName; 4]> = headers
        .keys()
        .filter(|name| dashed(name).is_some_and(|dashed| headers.contains_key(dashed)))
        .cloned()
        .collect();
    for name in doubles {
        headers.remove(name);
    }
}

/// Removes a header, and what applications may read as it.
pub fn remove_with_lookalikes(headers: &mut HeaderMap, name: &HeaderName) {
    headers.remove(name);
    let doubles: SmallVec<[HeaderName; 4]> = headers
        .keys()
        .filter(|one| dashed(one).is_some_and(|dashed| dashed == name.as_str()))
        .cloned()
        .collect();
    for name in doubles {
        headers.remove(name);
    }
}

/// A name with dashes for its underscores, if it has any.
fn dashed(name: &HeaderName) -> Option<String> {
    name.as_str().contains('_').then(|| name.as_str().replace('_', "-"))
}

/// HTTP/2 clients may split `cookie` into crumbs; everybody behind us reads one header (RFC 9113, 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let mut crumbs = headers.get_all(COOKIE).iter();
    let (Some(first), Some(second)) = (crumbs.next(), crumbs.next()) else { return };
    let mut joined = first.as_bytes().to_vec();
    for crumb in std::iter::once(second).chain(crumbs) {
        joined.extend_from_slice(b"; ");
        joined.extend_from_slice(crumb.as_bytes());
    }
    match HeaderValue::from_bytes(&joined) {
        Ok(value) => drop(headers.insert(COOKIE, value)),
        Err(_) => drop(headers.remove(COOKIE)),
    }
}

/// Removes what proves who asked, and what says where inside it came from: neither concerns those outside.
pub fn keep_inside(headers: &mut HeaderMap) {
    let named: SmallVec<[HeaderName; 8]> =
        headers.keys().filter(|name| proves_who_asks(name) || is_ours_to_know(name)).cloned().collect();
    for name in named {
        headers.remove(name);
    }
}

/// `authorization`, cookies, and whatever is called a token or a key.
pub fn proves_who_asks(name: &HeaderName) -> bool {
    let text = name.as_str();
    *name == AUTHORIZATION || *name == COOKIE || text.ends_with("-token") || text.ends_with("-key")
}

fn is_ours_to_know(name: &HeaderName) -> bool {
    *name == FORWARDED || AT_THE_EDGE.iter().any(|prefix| name.as_str().starts_with(prefix))
}

/// Says for the client who it is.
pub fn say_forwarded(headers: &mut HeaderMap, client: IpAddr, scheme: &'static str, host: &Authority) {
    if let Ok(address) = HeaderValue::try_from(client.to_string()) {
        headers.insert(FORWARDED_FOR, address);
    }
    headers.insert(FORWARDED_PROTO, HeaderValue::from_static(scheme));
    if let Ok(host) = HeaderValue::try_from(host.as_str()) {
        headers.insert(FORWARDED_HOST, host);
    }
}

/// Removes from an upstream's answer what concerns only its own connection.
pub fn strip_response(headers: &mut HeaderMap) {
    strip_hop_by_hop(headers);
    headers.remove(PROXY_AUTHENTICATE);
}

fn strip_hop_by_hop(headers: &mut HeaderMap) {
    if headers.contains_key(CONNECTION) {
        let named: SmallVec<[HeaderName; 4]> = connection_tokens(headers)
            .filter_map(|token| HeaderName::try_from(token).ok())
            // The framing of the message is not the sender's to take away.
            .filter(|name| *name != CONTENT_LENGTH && *name != HOST)
            .collect();
        for name in named {
            headers.remove(name);
        }
        headers.remove(CONNECTION);
    }
    for name in [&KEEP_ALIVE, &PROXY_CONNECTION, &PROXY_AUTHORIZATION, &TE, &TRANSFER_ENCODING, &UPGRADE] {
        headers.remove(name);
    }
}

fn connection_tokens(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
}

fn accepts_trailers(te: &HeaderValue) -> bool {
    te.to_str().is_ok_and(|te| te.split(',').any(|token| token.trim().eq_ignore_ascii_case("trailers")))
}

/// Whether a header may be set or removed by an answer of authorization or the limiter.
pub fn may_be_mutated(name: &HeaderName) -> bool {
    !matches!(*name, HOST | CONTENT_LENGTH | TRANSFER_ENCODING | CONNECTION | UPGRADE | TE)
}

/// Whether the caller speaks gRPC.
pub fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(http::header::CONTENT_TYPE).is_some_and(|value| {
        value
            .as_bytes()
            .strip_prefix(b"application/grpc")
            .is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect()
    }

    #[track_caller]
    fn check(role: Role, given: &[(&'static str, &'static str)], expected: &[(&str, &str)]) {
        let mut headers = headers(given);
        strip_request(&mut headers, role);
        let mut left: Vec<_> =
            headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        left.sort_unstable();
        assert_eq!(left, expected);
    }

    #[test]
    fn what_a_client_says_is_stripped() {
        use Role::{Ingress, Sidecar};
        check(Ingress, &[("accept", "a"), ("x-user", "b")], &[("accept", "a"), ("x-user", "b")]);
        check(Ingress, &[("x-tollgate-subject", "root")], &[]);
        check(Sidecar, &[("x-tollgate-subject", "root")], &[]);
        check(Ingress, &[("x-tollgate-mirror", "1")], &[]);
        check(Role::Outbound, &[("x-tollgate-mirror", "1")], &[]);
        check(Sidecar, &[("x-tollgate-mirror", "1")], &[("x-tollgate-mirror", "1")]);
        check(Sidecar, &[("x_tollgate_mirror", "1")], &[]);
        check(Ingress, &[("x-forwarded-for", "1"), ("x-real-ip", "1"), ("forwarded", "for=1")], &[]);
        check(Sidecar, &[("x-forwarded-for", "1")], &[("x-forwarded-for", "1")]);
        check(Ingress, &[("x-forwarded-client-cert", "By=x")], &[]);
        check(Sidecar, &[("x-forwarded-client-cert", "By=x")], &[]);
        check(Ingress, &[("x-envoy-original-path", "/")], &[]);
    }

    #[test]
    fn the_hash_of_a_certificate_is_read_before_anything_that_could_pretend_to_be_one() {
        let hash = "2ce2678958b6a580216e6ddd7b0820c10bdc2f8c4db3bb497f9015590d9fc197";
        let said = |values: &[&str]| -> HeaderMap {
            values.iter().map(|value| (CLIENT_CERT, HeaderValue::from_str(value).unwrap())).collect()
        };
        let read = |value: &str| client_certificate(&said(&[value]));
        let by = "By=spiffe://test.example/ns/a/sa/b";
        for good in [
            format!("{by};Hash={hash};Subject=\"CN=a\";URI=spiffe://x/y"),
            format!("Hash={hash}"),
            format!("Hash={hash};Subject=\"\",{by};Hash={}", "0".repeat(64)),
        ] {
            assert_eq!(read(&good).as_deref(), Some(hash), "{good}");
        }
        for bad in [
            String::new(),
            by.to_owned(),
            format!("{by};Subject=\"CN=a;Hash={hash}\""),
            format!("{by};Hash={}", &hash[1..]),
        ] {
            assert_eq!(read(&bad), None, "{bad}");
        }
        let one = format!("Hash={hash}");
        assert_eq!(client_certificate(&said(&[&one, &one])), None);
    }

    #[test]
    fn an_underscore_is_no_way_around() {
        check(Role::Ingress, &[("x_forwarded_for", "1"), ("x_tollgate_subject", "root")], &[]);
        check(Role::Sidecar, &[("x_tollgate_subject", "root"), ("x-forwarded_client_cert", "By=x")], &[]);
        check(Role::Ingress, &[("x_user", "b")], &[("x_user", "b")]);
    }

    #[test]
    fn what_looks_like_another_header_goes() {
        let names = |headers: &HeaderMap| {
            let mut names: Vec<_> = headers.keys().map(|name| name.as_str().to_owned()).collect();
            names.sort_unstable();
            names.join(" ")
        };
        let mut all =
            headers(&[("x-user-id", "a"), ("x_user_id", "b"), ("x-user_id", "c"), ("x_other", "d")]);
        strip_lookalikes(&mut all);
        assert_eq!(names(&all), "x-user-id x_other");
        let mut all = headers(&[("x-user", "a"), ("x_user", "b"), ("x_other", "d")]);
        remove_with_lookalikes(&mut all, &HeaderName::from_static("x-user"));
        assert_eq!(names(&all), "x_other");
    }

    #[test]
    fn cookie_crumbs_become_one_header() {
        let crumbs = [("cookie", "a=b"), ("cookie", "session=t"), ("cookie", "c=d")];
        check(Role::Ingress, &crumbs, &[("cookie", "a=b; session=t; c=d")]);
        check(Role::Sidecar, &crumbs[..1], &[("cookie", "a=b")]);
    }

    #[test]
    fn hop_by_hop_headers_stop_here() {
        check(
            Role::Ingress,
            &[
                ("connection", "close, X-Secret-Hop"),
                ("x-secret-hop", "1"),
                ("keep-alive", "timeout=5"),
                ("proxy-connection", "keep-alive"),
                ("proxy-authorization", "Basic x"),
                ("transfer-encoding", "chunked"),
                ("expect", "100-continue"),
                ("accept", "*/*"),
            ],
            &[("accept", "*/*")],
        );
        check(Role::Ingress, &[("te", "gzip, trailers")], &[("te", "trailers")]);
        check(Role::Ingress, &[("te", "gzip")], &[]);
        check(
            Role::Ingress,
            &[("connection", "content-length"), ("content-length", "3")],
            &[("content-length", "3")],
        );
    }

    #[test]
    fn upgrades() {
        for (version, pairs, asks, names) in [
            (
                Version::HTTP_11,
                &[("connection", "keep-alive, Upgrade"), ("upgrade", "websocket")][..],
                true,
                true,
            ),
            (Version::HTTP_10, &[("connection", "Upgrade"), ("upgrade", "websocket")], false, true),
            (Version::HTTP_11, &[("connection", "Upgrade"), ("upgrade", "h2c")], false, false),
            (Version::HTTP_11, &[("upgrade", "websocket")], false, true),
            (Version::HTTP_11, &[("connection", "upgrade")], false, false),
        ] {
            let (mut parts, ()) = http::Request::new(()).into_parts();
            (parts.version, parts.headers) = (version, headers(pairs));
            assert_eq!(asks_for_upgrade(&parts).is_some(), asks, "{pairs:?}");
            assert_eq!(names_a_protocol(&parts.headers), names, "{pairs:?}");
        }
    }

    #[test]
    fn grpc_is_told_by_its_content_type() {
        for (value, expected) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("application/grpc-web", false),
            ("application/json", false),
        ] {
            assert_eq!(is_grpc(&headers(&[("content-type", value)])), expected, "{value}");
        }
    }
}
