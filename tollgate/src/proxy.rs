//! `tollgate proxy`: how a running proxy does, as its process listener tells.

use anyhow::Context as _;
use clap::Subcommand;
use serde_json::Value;

use crate::commands::say;

/// What can be asked of a proxy.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show clusters, endpoints and why one is left out, breakers, and the configuration that is served by.
    Status {
        /// The proxy's process listener.
        #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:7110")]
        server: String,
        /// Print it as JSON.
        #[arg(long)]
        json: bool,
    },
}

/// Does what a command says.
pub async fn run(command: Command) -> anyhow::Result<()> {
    let Command::Status { server, json } = command;
    let url = format!("{}/status", server.trim_end_matches('/'));
    let answer = reqwest::get(&url).await.with_context(|| format!("no proxy answers at {url}"))?;
    let status: Value = answer.error_for_status()?.json().await.context("this is no proxy's status")?;
    if json {
        say(&format!("{status:#}"));
    } else {
        lines(&status).iter().for_each(|line| say(line));
    }
    Ok(())
}

/// The status for a person.
fn lines(status: &Value) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let config = &status["config"];
    let ready = if status["ready"].as_bool() == Some(true) { "ready" } else { "not ready" };
    let mut lines = vec![format!(
        "{}: {ready}, configuration {} (applied {} times, refused {} times)",
        text(&status["name"]),
        text(&config["revision"]),
        config["applied"],
        config["refused"],
    )];
    if let Some(error) = config["last_error"].as_str() {
        lines.push(format!("  last error: {error}"));
    }
    lines.extend(status["rollouts"].as_array().into_iter().flatten().map(rollout_line));
    for cluster in status["clusters"].as_array().into_iter().flatten() {
        lines.extend(cluster_lines(cluster));
    }
    lines
}

fn rollout_line(rollout: &Value) -> String {
    let text = |key: &str| rollout[key].as_str().unwrap_or("-").to_owned();
    let mut line = format!("rollout {} of {}: {}", text("name"), text("service"), text("state"));
    if let Some(step) = rollout["step"].as_u64() {
        line.push_str(&format!(", step {step} of {}", rollout["steps"]));
    }
    line.push_str(&format!("; {} gets {} %", text("canary"), rollout["weight"]));
    if rollout["cut_off"] == true {
        line.push_str("; CUT OFF from its record, may only lower it");
    }
    if let Some(why) = rollout["stopped"].as_str() {
        line.push_str(&format!("; stopped here: {why}"));
    }
    line
}

fn cluster_lines(cluster: &Value) -> Vec<String> {
    let breaker = &cluster["breaker"];
    let endpoints = cluster["endpoints"].as_array().map_or(&[][..], Vec::as_slice);
    let panic = if cluster["panic"].as_bool() == Some(true) { ", so few that all are used" } else { "" };
    let mut lines = vec![format!(
        "cluster {}: {} of {} endpoints usable{panic}; requests {}/{}, connections {}/{}, waiting {}/{}, \
         retries {}/{}; refused {}",
        cluster["name"].as_str().unwrap_or_default(),
        cluster["usable"],
        endpoints.len(),
        breaker["requests"],
        breaker["max_requests"],
        breaker["connections"],
        breaker["max_connections"],
        breaker["pending"],
        breaker["max_pending"],
        breaker["retries"],
        breaker["max_retries"],
        ["refused_requests", "refused_pending", "refused_retries"]
            .iter()
            .filter_map(|key| breaker[*key].as_u64())
            .sum::<u64>(),
    )];
    if let Some(error) = cluster["discovery_error"].as_str() {
        lines.push(format!("  endpoints: {error}"));
    }
    for endpoint in endpoints {
        let mut line = format!(
            "  {} {}, {} in flight",
            endpoint["address"].as_str().unwrap_or_default(),
            endpoint["state"].as_str().unwrap_or_default(),
            endpoint["in_flight"]
        );
        if let Some(seconds) = endpoint["ejected_for_seconds"].as_u64() {
            line.push_str(&format!(", back in {seconds} s"));
        }
        for key in ["last_event", "last_check"] {
            if let Some(said) = endpoint[key].as_str() {
                line.push_str(&format!("; {said}"));
            }
        }
        lines.push(line);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_reads_well() {
        let status = serde_json::json!({
            "name": "ingress", "ready": true,
            "config": {"revision": "ab", "applied": 2, "refused": 1, "last_error": "proxy.yaml:3: x"},
            "rollouts": [{"name": "v1-1", "service": "insurance/policies", "state": "progressing", "step": 1, "steps": 3,
                "canary": "v1-1", "weight": 0.0, "cut_off": true, "stopped": "it fails"}],
            "clusters": [{
                "name": "app", "usable": 1, "panic": false,
                "breaker": {"requests": 1, "max_requests": 4096, "connections": 2, "max_connections": 1024,
                    "pending": 0, "max_pending": 1024, "retries": 0, "max_retries": 3,
                    "refused_requests": 1, "refused_pending": 2, "refused_retries": 0},
                "endpoints": [{"address": "127.0.0.1:1", "state": "ejected", "in_flight": 0,
                    "ejected_for_seconds": 29, "last_event": "left out for 30 s (time 1): 5 answers 5xx in a row"}]
            }]
        });
        let lines = lines(&status);
        assert_eq!(lines[0], "ingress: ready, configuration ab (applied 2 times, refused 1 times)");
        assert_eq!(lines[1], "  last error: proxy.yaml:3: x");
        assert_eq!(
            lines[2],
            "rollout v1-1 of insurance/policies: progressing, step 1 of 3; v1-1 gets 0.0 %; CUT OFF from its record, \
             may only lower it; stopped here: it fails"
        );
        assert!(lines[3].ends_with("retries 0/3; refused 3"), "{}", lines[3]);
        assert_eq!(
            lines[4],
            "  127.0.0.1:1 ejected, 0 in flight, back in 29 s; left out for 30 s (time 1): 5 answers 5xx in a row"
        );
    }
}
