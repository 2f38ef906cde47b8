//! What stands before every request: the host name, the session, the CSRF header, and headers on the way out.

use std::net::IpAddr;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use http::{HeaderMap, HeaderValue, Method, header};

use super::ApiState;
use super::problem::ApiError;

/// Name of the session cookie.
pub(super) const COOKIE: &str = "tollgate_session";

const SECURITY_HEADERS: [(header::HeaderName, &str); 4] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'; object-src 'none'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::X_FRAME_OPTIONS, "DENY"),
];

/// Refuses host names that are not ours (a page elsewhere may have its own name resolve to this machine), and adds
/// the security headers to whatever is answered.
pub(crate) async fn outer(State(state): State<ApiState>, request: Request, next: Next) -> Response {
    let mut response = if host_is_ours(request.headers(), request.uri().host(), &state.hosts) {
        next.run(request).await
    } else {
        ApiError::Host.into_response()
    };
    for (name, value) in SECURITY_HEADERS {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

fn host_is_ours(headers: &HeaderMap, of_uri: Option<&str>, hosts: &[String]) -> bool {
    let of_header = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let Some(host) = of_header.or(of_uri) else { return false };
    let name = match host.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or_default(),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
        || hosts.iter().any(|ours| ours.eq_ignore_ascii_case(name))
}

/// Everything under the API but signing in and health needs a session; what is not a GET also needs its CSRF token.
pub(crate) async fn session(
    State(state): State<ApiState>,
    mut request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let path = request.uri().path();
    // Without the prefix under which the API is nested.
    if matches!(path, "/auth/login" | "/health") {
        return Ok(next.run(request).await);
    }
    let cookie = cookie(request.headers()).ok_or(ApiError::NoSession)?;
    let session = state.logins.session(&cookie).await?.ok_or(ApiError::NoSession)?;
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let given = request.headers().get("x-csrf-token").map(HeaderValue::as_bytes).unwrap_or_default();
        if !same(given, session.csrf.as_bytes()) {
            return Err(ApiError::Csrf);
        }
    }
    request.extensions_mut().insert(session);
    let mut response = next.run(request).await;
    response.headers_mut().entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    Ok(response)
}

/// The session cookie's value.
pub(super) fn cookie(headers: &HeaderMap) -> Option<String> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(name, _)| *name == COOKIE)
        .map(|(_, value)| value.to_owned())
}

/// Compares without saying by its duration where they differ.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_names_are_served() {
        let check = |host: &'static str, expected: bool| {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, HeaderValue::from_static(host));
            assert_eq!(host_is_ours(&headers, None, &["dash.example".to_owned()]), expected, "{host}");
        };
        check("127.0.0.1:7080", true);
        check("localhost", true);
        check("LOCALHOST:7080", true);
        check("[::1]:7080", true);
        check("dash.example:443", true);
        check("evil.example", false);
        check("127.0.0.1.evil.example", false);
        check("localhost.evil.example:7080", false);
        check("", false);
        assert!(!host_is_ours(&HeaderMap::new(), None, &[]));
    }
}
