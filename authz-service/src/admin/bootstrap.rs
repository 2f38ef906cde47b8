//! The first administrator.

use axum::extract::{FromRequest as _, Request, State};
use axum::http::{StatusCode, header};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Admin;
use super::extract::Json;
use super::problem::{Problem, ProblemBody};
use crate::store::StoreError;

/// Who shall administer.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct BootstrapRequest {
    /// The administrator's name.
    name: String,
}

/// The token, shown this once.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct BootstrapAnswer {
    name: String,
    /// The bearer token of the administrator from now on.
    token: String,
    epoch: u64,
}

/// Makes the first administrator.
///
/// The bearer is the one-use token that an empty database has written to `bootstrap-admin.token`; it can do nothing
/// else.
#[utoipa::path(post, path = "/v1/bootstrap", tag = "service", request_body = BootstrapRequest,
    responses((status = 201, body = BootstrapAnswer), (status = "default", body = ProblemBody)))]
pub(super) async fn bootstrap(
    State(admin): State<Admin>,
    request: Request,
) -> Result<(StatusCode, Json<BootstrapAnswer>), Problem> {
    let given = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let token = given.and_then(|value| value.strip_prefix("Bearer ")).ok_or(StoreError::BootstrapRefused)?;
    let token = token.to_owned();
    // Of who has no token nothing is read, and nobody learns even whether the body was good.
    if !admin.store.is_bootstrap_token(&token).await? {
        return Err(StoreError::BootstrapRefused.into());
    }
    let Json(BootstrapRequest { name }) = Json::from_request(request, &()).await?;
    let issued = admin.store.bootstrap(&token, &name).await?;
    admin.applied(issued.epoch).await;
    tracing::info!(name = issued.name, epoch = issued.epoch, "first administrator created");
    let token = issued.token.expose().to_owned();
    Ok((StatusCode::CREATED, Json(BootstrapAnswer { name: issued.name, token, epoch: issued.epoch })))
}
