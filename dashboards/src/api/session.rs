//! Signing in and out.

use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use axum::{Extension, Json};
use http::uri::Scheme;
use http::{HeaderMap, StatusCode, header};

use super::ApiState;
use super::guard::{COOKIE, cookie};
use super::problem::{ApiError, Body, Problem};
use super::types::{LoginRequest, Session, User};
use crate::login::OpenSession;

/// Trade a one-use token for a session cookie.
#[utoipa::path(post, path = "/auth/login", tag = "session", request_body = LoginRequest, responses(
    (status = 200, body = Session), (status = 401, body = Problem), (status = 429, body = Problem)))]
pub(super) async fn login(
    State(state): State<ApiState>,
    scheme: Option<Extension<Scheme>>,
    Body(request): Body<LoginRequest>,
) -> Result<Response, ApiError> {
    let (secret, session) = state.logins.sign_in(&request.token).await?;
    let seconds = session.expires_ms.saturating_sub(state.clock.unix_millis()) / 1000;
    let secure = secure(scheme);
    let cookie = format!("{COOKIE}={secret}; Path=/; HttpOnly; SameSite=Strict{secure}; Max-Age={seconds}");
    Ok(([(header::SET_COOKIE, cookie), (header::CACHE_CONTROL, "no-store".to_owned())], Json(shown(session)))
        .into_response())
}

/// The session of the cookie.
#[utoipa::path(get, path = "/auth/session", tag = "session", responses(
    (status = 200, body = Session), (status = 401, body = Problem)))]
pub(super) async fn current(Extension(session): Extension<OpenSession>) -> Json<Session> {
    Json(shown(session))
}

/// End the session.
#[utoipa::path(post, path = "/auth/logout", tag = "session", responses((status = 204), (status = 401, body = Problem)))]
pub(super) async fn logout(
    State(state): State<ApiState>,
    scheme: Option<Extension<Scheme>>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    if let Some(secret) = cookie(&headers) {
        state.logins.sign_out(&secret).await?;
    }
    let gone = format!("{COOKIE}=; Path=/; HttpOnly; SameSite=Strict{}; Max-Age=0", secure(scheme));
    Ok((StatusCode::NO_CONTENT, [(header::SET_COOKIE, gone)]).into_response())
}

/// A cookie that was given over TLS comes back over TLS alone.
fn secure(scheme: Option<Extension<Scheme>>) -> &'static str {
    if scheme.is_some_and(|Extension(scheme)| scheme == Scheme::HTTPS) { "; Secure" } else { "" }
}

fn shown(session: OpenSession) -> Session {
    Session {
        csrf: session.csrf,
        user: User { name: session.name, role: session.role },
        expires_ms: session.expires_ms,
    }
}
