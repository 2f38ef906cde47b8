//! The first administrator.

use axum::Json;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::http::{HeaderMap, StatusCode, header};
use serde::{Deserialize, Serialize};

use super::Admin;
use super::problem::Problem;
use crate::store::StoreError;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct BootstrapRequest {
    name: String,
}

/// The token, shown this once.
#[derive(Debug, Serialize)]
pub(super) struct BootstrapAnswer {
    name: String,
    token: String,
    epoch: u64,
}

/// `POST /v1/bootstrap` with the one-use token as bearer.
pub(super) async fn bootstrap(
    State(admin): State<Admin>,
    headers: HeaderMap,
    body: Result<Json<BootstrapRequest>, JsonRejection>,
) -> Result<(StatusCode, Json<BootstrapAnswer>), Problem> {
    let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    // Without a token nobody learns even whether the body was good.
    let token = given.and_then(|value| value.strip_prefix("Bearer ")).ok_or(StoreError::BootstrapRefused)?;
    let Json(BootstrapRequest { name }) = body.map_err(|error| Problem::malformed(error.body_text()))?;
    let issued = admin.store.bootstrap(token, &name).await?;
    admin.applied(issued.epoch).await;
    tracing::info!(name = issued.name, epoch = issued.epoch, "first administrator created");
    let token = issued.token.expose().to_owned();
    Ok((StatusCode::CREATED, Json(BootstrapAnswer { name: issued.name, token, epoch: issued.epoch })))
}
