//! A Check over gRPC against the least that any Check can cost. Decisions are recorded, a tenth of the calls is traced.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use jsonwebtoken::Algorithm;
use prost::Message as _;
use serde_json::json;
use tempfile::TempDir;
use tollgate_authz::Store;
use tollgate_authz::policy::documents;
use tollgate_authz::store::Authorship;
use tollgate_proto::envoy_types::pb::envoy::service::auth::v3::check_response::HttpResponse;
use tollgate_proto::envoy_types::pb::envoy::service::auth::v3::{CheckRequest, CheckResponse};
use tollgate_runtime::clock::Clock;
use tollgate_runtime::config::Secret;
use tollgate_testkit::fake_collector::FakeCollector;
use tollgate_testkit::signer::Signer;

use crate::grpc::{self, Calls, Server};
use crate::process::{self, HELPER_CORE, Running, TESTED_CORE};
use crate::{Options, say};

const ISSUER: &str = "https://issuer.demo";
const METHOD: &str = "/envoy.service.auth.v3.Authorization/Check";
/// Different tokens that come over and over.
const SEEN_TOKENS: usize = 100;
/// So many different tokens are enough for a round with tokens that were never seen.
const FRESH_TOKENS: usize = 20_000;
const FRESH_ROUND: Duration = Duration::from_secs(1);

/// Measures and prints.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    process::pin(std::process::id(), HELPER_CORE)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(measure(options))
}

async fn measure(options: &Options) -> anyhow::Result<()> {
    let signer = Signer::new(Algorithm::RS256, "k");
    let collector = FakeCollector::start().await;
    let folder = TempDir::new()?;
    let (authz, address) = start_authz(options, &signer, folder.path(), collector.address()).await?;
    let (empty, empty_address) = grpc::empty::start()?;
    let allows = |answer: &[u8]| {
        let answer = CheckResponse::decode(answer);
        answer.is_ok_and(|answer| matches!(answer.http_response, Some(HttpResponse::OkResponse(_))))
    };
    let authz = Server { name: "authz", address, pid: authz.id(), is_right: &allows };
    let empty =
        Server { name: "empty", address: empty_address, pid: empty.id(), is_right: &<[u8]>::is_empty };

    let seen = Calls::new(METHOD, requests(&signer, SEEN_TOKENS));
    let [of_empty, of_authz] = grpc::compare(options, [&empty, &authz], &seen).await?;
    say(&format!("      ratio {:.2} (empty : authz, tokens seen before)", of_empty.cpu_us / of_authz.cpu_us));
    let fresh = Calls::new(METHOD, requests(&signer, FRESH_TOKENS));
    let first_seen = grpc::measure(&authz, &fresh, FRESH_ROUND).await?;
    say(&format!(
        "      RS256 tokens never seen {:.1} us, which is {:.1} us more \
         (one verification alone: cargo bench -p tollgate-authz --bench check)",
        first_seen.cpu_us,
        first_seen.cpu_us - of_authz.cpu_us
    ));
    Ok(())
}

/// The authorization service with the demo policy, and an issuer of our own.
async fn start_authz(
    options: &Options,
    signer: &Signer,
    folder: &Path,
    collector: SocketAddr,
) -> anyhow::Result<(Running, SocketAddr)> {
    let url = format!("sqlite://{}", folder.join("authz.db").display());
    let mut all: Vec<_> = documents::load_dir(Path::new("config/policy"))?
        .into_iter()
        .map(|written| written.document)
        .collect();
    let issuer = json!({"kind": "Issuer", "name": "demo", "issuer": ISSUER, "jwks": signer.jwks()});
    all.push(serde_json::from_value(issuer)?);
    let store = Store::open(&Secret::new(&url), Clock::system()).await?;
    store.apply(all, Authorship::new("bench", "set up"), false, false).await?;
    store.close().await;

    let [grpc, http] = process::free_addresses()?;
    let file = folder.join("authz.yaml");
    let config = json!({
        "listen": {"grpc": grpc, "http": http},
        "database": {"url": url},
        "bootstrap": {"token_file": folder.join("token")},
        "process": {"listen": null},
        "telemetry": {"endpoint": format!("http://{collector}"), "log": "warn"},
    });
    std::fs::write(&file, config.to_string())?;
    let arguments = ["--config".to_owned(), file.display().to_string()];
    let running = Running::start(&options.binaries.join("tollgate-authz"), TESTED_CORE, &arguments)?;
    process::wait_for(grpc)?;
    Ok((running, grpc))
}

fn requests(signer: &Signer, count: usize) -> impl Iterator<Item = CheckRequest> {
    (0..count).map(|number| request(&token(signer, number)))
}

fn token(signer: &Signer, number: usize) -> String {
    signer.token(&json!({
        "iss": ISSUER, "sub": "reader", "aud": "insurance", "scope": "openid profile policies:read", "client_id": "web",
        "iat": 1_700_000_000, "exp": 9_999_999_999_u64, "jti": format!("token-{number}"), "groups": ["staff", "claims"],
        "name": "Rea Der", "email": "reader@insurance.example",
    }))
}

/// With what a browser and an ingress say: eighteen headers, peers, the route.
fn request(token: &str) -> CheckRequest {
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
