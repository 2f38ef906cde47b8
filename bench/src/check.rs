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
use tollgate_testkit::checks::check_of_a_browser;
use tollgate_testkit::fake_collector::FakeCollector;
use tollgate_testkit::signer::Signer;

use crate::grpc::empty::Runtime;
use crate::grpc::{self, Calls, Server};
use crate::process::{self, HELPER_CORE, Running, TESTED_CORE};
use crate::{Options, say};

const ISSUER: &str = "https://issuer.demo";
const METHOD: &str = "/envoy.service.auth.v3.Authorization/Check";
/// Different tokens that come over and over.
const SEEN_TOKENS: usize = 100;
/// More different tokens than the service remembers: in turn, each is as good as new, and what it takes to remember one
/// is what another one gives back.
const FRESH_TOKENS: usize = 70_000;
/// Long enough for all of them.
const FRESH_WARM_UP: Duration = Duration::from_secs(8);

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
    let (multi, multi_address) = grpc::empty::start(Runtime::MultiThread, None)?;
    let (current, current_address) = grpc::empty::start(Runtime::CurrentThread, None)?;
    let (verifying, verifying_address) = grpc::empty::start(Runtime::MultiThread, Some(&signer.jwk()))?;
    let allows = |answer: &[u8]| {
        let answer = CheckResponse::decode(answer);
        answer.is_ok_and(|answer| matches!(answer.http_response, Some(HttpResponse::OkResponse(_))))
    };
    let authz = Server { name: "authz", address, pid: authz.id(), is_right: &allows };
    let is_right = &<[u8]>::is_empty;
    let multi = Server { name: "empty", address: multi_address, pid: multi.id(), is_right };
    let verifying =
        Server { name: "empty, verifying", address: verifying_address, pid: verifying.id(), is_right };
    let current = Server { name: "empty, 1 thread", address: current_address, pid: current.id(), is_right };

    let seen = Calls::new(METHOD, requests(&signer, SEEN_TOKENS));
    let [of_multi, of_current, of_authz] = grpc::compare(options, [&multi, &current, &authz], &seen).await?;
    say(&format!(
        "      ratio {:.2} (empty : authz, tokens seen before), {:.2} to the empty one on one thread",
        of_multi.cpu_us / of_authz.cpu_us,
        of_current.cpu_us / of_authz.cpu_us
    ));
    let fresh = Calls::new(METHOD, requests(&signer, FRESH_TOKENS));
    grpc::measure(&authz, &fresh, FRESH_WARM_UP).await?;
    let [plain, verified, first_seen] = grpc::compare(options, [&multi, &verifying, &authz], &fresh).await?;
    say(&format!(
        "      RS256 tokens not seen before: {:.1} us more than seen ones at authz, {:.1} us more than none at the empty \
         service; authz has {:.0} MiB",
        first_seen.cpu_us - of_authz.cpu_us,
        verified.cpu_us - plain.cpu_us,
        first_seen.rss_mib
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
    (0..count).map(|number| check_of_a_browser(&token(signer, number)))
}

fn token(signer: &Signer, number: usize) -> String {
    signer.token(&json!({
        "iss": ISSUER, "sub": "reader", "aud": "insurance", "scope": "openid profile policies:read", "client_id": "web",
        "iat": 1_700_000_000, "exp": 9_999_999_999_u64, "jti": format!("token-{number}"), "groups": ["staff", "claims"],
        "name": "Rea Der", "email": "reader@insurance.example",
    }))
}
