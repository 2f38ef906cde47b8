//! Signing in and out.
use super::types::{LoginRequest, Session};
use crate::api::problem::Problem;

/// Trade a one-use token for a session cookie.
#[utoipa::path(post, path = "/auth/login", tag = "session", request_body = LoginRequest, responses(
    (status = 200, body = Session), (status = 401, body = Problem), (status = 429, body = Problem)))]
pub(super) async fn login() {}

/// The session of the cookie.
#[utoipa::path(get, path = "/auth/session", tag = "session", responses(
    (status = 200, body = Session), (status = 401, body = Problem)))]
pub(super) async fn current() {}

/// End the session.
#[utoipa::path(post, path = "/auth/logout", tag = "session", responses((status = 204), (status = 401, body = Problem)))]
pub(super) async fn logout() {}
