//! Trying new limits on the calls of the last hours.

use std::path::Path;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use serde::Deserialize;
use tollgate_runtime::config::duration;
use utoipa::ToSchema;

use super::Admin;
use super::problem::Problem;
use crate::limits::{Domains, Folder};
use crate::simulate::{Trial, simulate as run};

/// Limits to try.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Proposal {
    /// Limits files, in place of all that are in force.
    files: Vec<File>,
    /// How far back: `1h`, `24h`. The whole log unless set.
    #[serde(default = "whole_log", with = "duration")]
    #[schema(value_type = String, example = "24h")]
    last: Duration,
}

/// One limits file.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    /// What errors call it.
    name: String,
    /// Its text.
    text: String,
}

fn whole_log() -> Duration {
    Duration::from_secs(crate::arrivals::HORIZON_SECONDS)
}

/// Runs the calls that were kept against the limits in force and these.
#[utoipa::path(post, path = "/v1/simulate", request_body = Proposal, responses(
    (status = 200, body = Trial),
    (status = 400, description = "The limits are wrong; the detail has file, line and key", body = Problem),
    (status = 429, description = "Another trial is running", body = Problem)))]
pub(super) async fn simulate(
    State(admin): State<Admin>,
    proposal: Result<Json<Proposal>, JsonRejection>,
) -> Result<Json<Trial>, Problem> {
    let Json(proposal) = proposal?;
    let Ok(_permit) = admin.trials.try_acquire() else {
        return Err(Problem::busy("another trial is running; try again when it is done"));
    };
    let files = proposal.files.into_iter().map(|file| (Path::new(&file.name).into(), file.text)).collect();
    let then = Folder::of_texts(files)
        .compile_with(Domains::Merged)
        .map_err(|error| Problem::bad_request(error.to_string()))?;
    let since = admin.limiter.now_seconds().saturating_sub(proposal.last.as_secs());
    let limiter = admin.limiter.clone();
    let trial = admin.tasks.blocking(move || {
        let excerpt = limiter.arrivals().since(since);
        run(&limiter.limits(), &then, &excerpt, limiter.manner())
    });
    trial.await.map(Json).map_err(|error| Problem::unavailable(error.to_string()))
}
