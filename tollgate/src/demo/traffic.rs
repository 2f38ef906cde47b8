//! A steady stream of requests, so that a fresh dashboard has something to show.
//!
//! It uses subjects of its own: a person's tries are never mixed up with it, nor limited by it.

use std::net::SocketAddr;
use std::time::Duration;

use reqwest::{Client, Method};
use tollgate_runtime::Service;
use tollgate_runtime::clock::Clock;

use super::issuer::{Grant, Issuer};

const TOKEN_LIFE: Duration = Duration::from_secs(600);
/// Requests of the generator in flight at once; when they are all waiting it skips a beat.
const IN_FLIGHT: usize = 64;

/// One kind of request, and how often it comes up.
struct Kind {
    weight: u32,
    method: Method,
    subject: Option<&'static str>,
    scopes: &'static [&'static str],
    expired: bool,
    to: To,
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum To {
    OnePolicy,
    Policies,
    Quotes,
}

const fn kind(weight: u32, subject: Option<&'static str>, scopes: &'static [&'static str]) -> Kind {
    Kind { weight, method: Method::GET, subject, scopes, expired: false, to: To::OnePolicy }
}

fn kinds() -> Vec<Kind> {
    let write = Kind {
        method: Method::POST,
        to: To::Policies,
        ..kind(60, Some("traffic-editor"), &["policies:read", "policies:write"])
    };
    let may_not_write = Kind {
        method: Method::POST,
        to: To::Policies,
        ..kind(6, Some("traffic-reader"), &["policies:read"])
    };
    // Few, so that they stay within their limit.
    let quote = Kind {
        method: Method::POST,
        to: To::Quotes,
        ..kind(3, Some("traffic-adjuster"), &["quotes:create"])
    };
    vec![
        kind(500, Some("traffic-reader"), &["policies:read"]),
        kind(380, Some("traffic-editor"), &["policies:read", "policies:write"]),
        write,
        may_not_write,
        quote,
        kind(12, Some("traffic-reader"), &["profile"]),
        kind(14, Some("traffic-outsider"), &["policies:read"]),
        Kind { expired: true, ..kind(10, Some("traffic-reader"), &["policies:read"]) },
        kind(8, None, &[]),
    ]
}

/// Sends about `rps` requests a second to the ingress until the service stops.
pub fn start(service: &Service, issuer: Issuer, ingress: SocketAddr, rps: u32) -> anyhow::Result<()> {
    if rps == 0 {
        return Ok(());
    }
    let client = Client::builder().timeout(Duration::from_secs(5)).build()?;
    let stopping = service.tasks().stopping();
    let tasks = service.tasks().clone();
    let free = std::sync::Arc::new(tokio::sync::Semaphore::new(IN_FLIGHT));
    service.tasks().spawn("demo-traffic", async move {
        let kinds = kinds();
        let total: u32 = kinds.iter().map(|kind| kind.weight).sum();
        let mut beat = tokio::time::interval(Duration::from_secs(1) / rps);
        beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                () = stopping.cancelled() => return,
                _ = beat.tick() => {}
            }
            let Ok(permit) = std::sync::Arc::clone(&free).try_acquire_owned() else { continue };
            let mut pick = rand::random_range(0..total);
            let chosen = kinds.iter().find(|kind| {
                let hit = pick < kind.weight;
                pick = pick.saturating_sub(kind.weight);
                hit
            });
            let Some(request) = chosen.and_then(|kind| request(&client, &issuer, ingress, kind)) else {
                continue;
            };
            tasks.spawn("demo-request", async move {
                let _permit = permit;
                if let Ok(answer) = request.send().await {
                    let _ = answer.bytes().await;
                }
            });
        }
    });
    Ok(())
}

fn request(
    client: &Client,
    issuer: &Issuer,
    ingress: SocketAddr,
    kind: &Kind,
) -> Option<reqwest::RequestBuilder> {
    let policy = format!("POL-{}", 1000 + rand::random_range(0..1000));
    let path = match kind.to {
        To::OnePolicy => format!("policies/{policy}"),
        To::Policies => "policies".to_owned(),
        To::Quotes => "quotes".to_owned(),
    };
    let url = format!("http://{ingress}/{path}");
    let mut request = client.request(kind.method.clone(), url).header("user-agent", "tollgate-demo-traffic");
    match kind.to {
        To::OnePolicy => {}
        To::Policies => request = request.json(&serde_json::json!({ "holder": "demo" })),
        To::Quotes => request = request.json(&serde_json::json!({ "policy": policy })),
    }
    if let Some(subject) = kind.subject {
        let grant = Grant {
            subject: subject.to_owned(),
            client: "web-portal".to_owned(),
            scopes: kind.scopes.iter().map(|s| (*s).to_owned()).collect(),
            ttl: TOKEN_LIFE,
            expired: kind.expired,
            bound_to: None,
        };
        request = request.bearer_auth(issuer.token(&grant, &Clock::system()).ok()?);
    }
    Some(request)
}
