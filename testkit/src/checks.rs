//! Checks as proxies send them.

use tollgate_proto::envoy_types::pb::envoy::service::auth::v3::CheckRequest;

/// A browser reads a policy of the demo through an ingress: eighteen headers, peers, the route.
pub fn check_of_a_browser(token: &str) -> CheckRequest {
    let mut request = CheckRequest::default();
    let attributes = request.attributes.get_or_insert_default();
    attributes.context_extensions = [
        ("tollgate.service", "insurance/policies"),
        ("tollgate.point", "ingress"),
        ("tollgate.route", "policies"),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .into();
    attributes.destination.get_or_insert_default().principal =
        "spiffe://tollgate.demo/ns/insurance/sa/policies".to_owned();
    let http = attributes.request.get_or_insert_default().http.get_or_insert_default();
    http.id = "1234567890123456789".to_owned();
    http.method = "GET".to_owned();
    http.path = "/policies/POL-1042?expand=claims".to_owned();
    http.host = "policies.insurance.example".to_owned();
    http.scheme = "https".to_owned();
    http.protocol = "HTTP/2".to_owned();
    http.headers = [
        (":method", "GET"),
        (":path", "/policies/POL-1042?expand=claims"),
        (":authority", "policies.insurance.example"),
        (":scheme", "https"),
        ("accept", "application/json, text/plain, */*"),
        ("accept-encoding", "gzip, deflate, br"),
        ("accept-language", "en-GB,en;q=0.9,de;q=0.8"),
        ("cache-control", "no-cache"),
        ("cookie", "theme=dark; consent=2026-01-01; visitor=4f7c1f6a9d0b4b6e"),
        ("origin", "https://portal.insurance.example"),
        ("referer", "https://portal.insurance.example/policies"),
        ("sec-fetch-mode", "cors"),
        ("user-agent", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"),
        ("x-forwarded-for", "203.0.113.7"),
        ("x-forwarded-proto", "https"),
        ("x-request-id", "0198c1f2-7a5e-7c31-9d2e-2f6d0a3c1b4e"),
        ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00"),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .into();
    http.headers.insert("authorization".to_owned(), format!("Bearer {token}"));
    request
}
