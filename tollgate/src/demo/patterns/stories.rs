//! The stories, one a pattern.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use futures_util::future::join_all;
use serde_json::Value;

use super::Told;
use super::stage::{AT_ONCE, Outcomes, Stage, until};
use crate::demo::behaviour::Wanted;
use crate::demo::partner;

const SIDECAR: &str = "policies-sidecar";
const POLICIES: &str = "policies.insurance";
const POLICY: &str = "/policies/POL-1";
/// How long a story waits for what it expects.
const PATIENCE: Duration = Duration::from_secs(30);

/// An instance that fails every second request is left out by its sidecar, until it is well.
pub(super) async fn eject(stage: &Stage) -> anyhow::Result<Told> {
    let broken = *stage.map.policies.last().context("the demo has no instance of policies")?;
    stage.behave(broken, Wanted { fails_every: Some(2), ..Wanted::default() }).await?;
    let told = eject_broken(stage, broken).await;
    stage.behave(broken, Wanted { fails_every: Some(0), ..Wanted::default() }).await?;
    let (before, left_out, after) = told?;
    let out_for =
        Duration::from_secs(left_out.as_ref().map_or(0, |endpoint| number(endpoint, "ejected_for_seconds")));
    let is_back =
        async || endpoint(stage, broken).await.ok().filter(|endpoint| endpoint["state"] == "in_use");
    let back = until(out_for + PATIENCE, is_back).await;
    let why = left_out.as_ref().and_then(|endpoint| endpoint["last_event"].as_str());
    Ok(Told {
        did: format!("broke {broken}, one of two instances of policies: every second of its requests fails"),
        expected: "its sidecar leaves it out, then nobody notices; once it is well it is used again",
        saw: format!(
            "at first {before}; {}; then {after}; {}",
            why.unwrap_or("never left out"),
            if back.is_some() { "well, and back in use" } else { "never back" }
        ),
        seen: left_out.is_some() && after.failures() == 0 && back.is_some(),
    })
}

/// Outcomes until it is left out, it as it was then, and outcomes after that.
async fn eject_broken(
    stage: &Stage,
    broken: SocketAddr,
) -> anyhow::Result<(Outcomes, Option<Value>, Outcomes)> {
    let mut before = Outcomes::default();
    let left_out = until(PATIENCE, async || {
        before.add(stage.burst(50, AT_ONCE).await);
        endpoint(stage, broken).await.ok().filter(|endpoint| endpoint["state"] == "ejected")
    })
    .await;
    Ok((before, left_out, stage.burst(100, AT_ONCE).await))
}

/// An instance as its sidecar has it.
async fn endpoint(stage: &Stage, instance: SocketAddr) -> anyhow::Result<Value> {
    let cluster = stage.cluster(SIDECAR, "app").await?;
    let endpoints = cluster["endpoints"].as_array().into_iter().flatten();
    let address = instance.to_string();
    let found = endpoints.into_iter().find(|endpoint| endpoint["address"] == address.as_str());
    found.cloned().with_context(|| format!("{SIDECAR} does not know {instance}"))
}

/// More than the breaker of a slow application lets through is refused at once.
pub(super) async fn breaker(stage: &Stage) -> anyhow::Result<Told> {
    let cluster = stage.cluster(SIDECAR, "app").await?;
    let most = number(&cluster["breaker"], "max_requests");
    let count = usize::try_from(most).unwrap_or(usize::MAX).saturating_mul(2).min(1000);
    let slow = async |delay_ms: u64| -> anyhow::Result<()> {
        for instance in &stage.map.policies {
            stage.behave(*instance, Wanted { delay_ms: Some(delay_ms), ..Wanted::default() }).await?;
        }
        Ok(())
    };
    slow(3_000).await?;
    let (at_once, peak) = at_its_breaker(stage, count).await;
    slow(0).await?;
    let after = stage.burst(20, 1).await;
    let refused = number(&stage.cluster(SIDECAR, "app").await?["breaker"], "refused_requests");
    Ok(Told {
        did: format!(
            "made policies take 3 s, and asked {count} times at once; its sidecar's breaker is at {most}"
        ),
        expected: "no more than that are under way, the rest is refused at once; then all pass again",
        saw: format!(
            "{peak} under way at most, {at_once}; once it is quick again {after}; {refused} were refused since the start"
        ),
        // On a slow machine some may come after the first have gone.
        seen: at_once.with("503 breaker_open") > 0 && peak <= most && after.failures() == 0,
    })
}

/// What came of so many requests at once, and how many of them the sidecar had under way at most.
async fn at_its_breaker(stage: &Stage, count: usize) -> (Outcomes, u64) {
    let mut peak = 0;
    let looking = async {
        loop {
            if let Ok(cluster) = stage.cluster(SIDECAR, "app").await {
                peak = peak.max(number(&cluster["breaker"], "requests"));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let outcomes = tokio::select! {
        outcomes = stage.burst(count, count) => outcomes,
        () = looking => Outcomes::default(),
    };
    (outcomes, peak)
}

/// A tenth goes to the new version, and whoever asks for it.
pub(super) async fn canary(stage: &Stage) -> anyhow::Result<Told> {
    const ROUNDS: usize = 40;
    // Each subject has a limit of its own, which this stays below.
    const SUBJECTS: [&str; 3] = ["reader", "editor", "adjuster"];
    let (mut old, mut new, mut other) = (0, 0, 0);
    for _ in 0..ROUNDS {
        for answer in join_all(SUBJECTS.map(|subject| stage.enter(subject, &[]))).await {
            match answer?.version() {
                "1.0" => old += 1,
                "1.1" => new += 1,
                _ => other += 1,
            }
        }
        tokio::time::sleep(Duration::from_millis(80)).await;
    }
    let mut preview = 0;
    for _ in 0..5 {
        preview += usize::from(stage.enter("reader", &[("x-preview", "true")]).await?.version() == "1.1");
        tokio::time::sleep(Duration::from_millis(80)).await;
    }
    let all = ROUNDS * SUBJECTS.len();
    Ok(Told {
        did: format!("asked the ingress {all} times for a policy, and 5 times with `x-preview: true`"),
        expected: "about a tenth is answered by 1.1, and all of those who ask for it",
        saw: format!("{old} by 1.0, {new} by 1.1, {other} by neither; {preview} of 5 previews by 1.1"),
        // Of 120 at a tenth, fewer than one or more than a third come once in a hundred thousand times.
        seen: new > 0 && new < all / 3 && other == 0 && preview == 5,
    })
}

/// Copies reach the new version without credentials, and nobody waits for them.
pub(super) async fn mirror(stage: &Stage) -> anyhow::Result<Told> {
    const COUNT: u64 = 20;
    let canary = stage.map.canary;
    let before = stage.behave(canary, Wanted { delay_ms: Some(500), ..Wanted::default() }).await?;
    let began = std::time::Instant::now();
    let mut old = 0;
    for _ in 0..COUNT {
        let headers = [("x-shadow", "true"), ("cookie", "session=secret")];
        let answer = stage.ask(POLICIES, POLICY, &headers).await;
        old += u64::from(answer.is_ok() && answer.version() == "1.0");
    }
    let each_ms = began.elapsed().as_millis() / u128::from(COUNT);
    let all_there =
        async || stage.seen(canary).await.ok().filter(|seen| seen.copies >= before.copies + COUNT);
    until(PATIENCE / 3, all_there).await;
    let after = stage.behave(canary, Wanted { delay_ms: Some(0), ..Wanted::default() }).await?;
    let copies = after.copies - before.copies;
    let with_credentials = after.copies_with_credentials - before.copies_with_credentials;
    Ok(Told {
        did: format!(
            "asked {COUNT} times with a cookie and `x-shadow: true`; 1.1, which gets the copies, takes 500 ms"
        ),
        expected: "1.0 answers all, 1.1 gets a copy of each, and no cookie",
        saw: format!(
            "{old} answered by 1.0 in {each_ms} ms each; {copies} copies, {with_credentials} with credentials"
        ),
        seen: old == COUNT && copies == COUNT && with_credentials == 0,
    })
}

/// A registered partner is reached by TLS, anybody else is refused by name.
pub(super) async fn egress(stage: &Stage) -> anyhow::Result<Told> {
    const STRANGER: &str = "exfiltration.test";
    let partner = stage.ask(partner::HOST, "/v1/scores/POL-1", &[("cookie", "session=secret")]).await;
    let elsewhere = stage.ask(partner::HOST, "/admin", &[]).await;
    let stranger = stage.ask(STRANGER, "/", &[]).await;
    let status = stage.status("quotes-sidecar").await?;
    let listed = status["unregistered"].as_array().into_iter().flatten();
    let is_listed = listed.into_iter().any(|one| one["destination"] == STRANGER);
    let (by, credentials) = (partner.body["partner"].as_str(), partner.body["credentials"].as_array());
    Ok(Told {
        did: format!("asked {} and {STRANGER} by way of the sidecar and the egress gateway", partner::HOST),
        expected: "the partner answers and gets nothing of ours but our name; its other paths, and strangers, are refused",
        saw: format!(
            "{} (it knows us as {}, and got {} credentials), another path {} {}; {STRANGER} {} {}{}",
            partner.status,
            by.unwrap_or("nobody"),
            credentials.map_or(0, Vec::len),
            elsewhere.status,
            elsewhere.reason(),
            stranger.status,
            stranger.reason(),
            if is_listed { ", listed by name" } else { "" }
        ),
        seen: partner.is_ok()
            && by == Some("tollgate-demo")
            && credentials.is_some_and(Vec::is_empty)
            && elsewhere.status == 404
            && (stranger.status, stranger.reason()) == (403, "egress_unregistered")
            && is_listed,
    })
}

fn number(of: &Value, key: &str) -> u64 {
    of[key].as_u64().unwrap_or_default()
}
