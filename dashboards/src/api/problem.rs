//! What a caller sees when something goes wrong: `application/problem+json` (RFC 9457).

use axum::extract::{FromRequest, FromRequestParts, Query, Request};
use axum::response::{IntoResponse, Response};
use http::request::Parts;
use http::{StatusCode, header};
use serde::Serialize;
use serde::de::DeserializeOwned;
use utoipa::ToSchema;

use crate::login::LoginError;
use crate::query::FilterError;
use crate::store::StoreError;

/// A problem document.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct Problem {
    /// A URI that names the sort of problem; `about:blank` where the status says it all.
    #[serde(rename = "type")]
    pub kind: String,
    /// A few words.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What is wrong with this request in particular.
    pub detail: String,
    /// A code from a closed set: `filter`, `range`, `body`, `session`, `csrf`, `attempts`, `not_found`, `store`, ….
    pub reason: String,
    /// The id of this API request, also in the log.
    pub request_id: String,
}

/// Every way an API request can fail.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApiError {
    #[error("the filter cannot be read: {0}")]
    Filter(#[from] FilterError),
    #[error("{0}")]
    Range(String),
    #[error("{0}")]
    Body(String),
    #[error("sign in first")]
    NoSession,
    #[error("the header x-csrf-token is missing or not this session's")]
    Csrf,
    #[error("{0}")]
    Login(#[source] LoginError),
    #[error("this host name is not served here; web.hosts lists those that are")]
    Host,
    #[error("{0}")]
    NotFound(String),
    #[error("{0}")]
    Busy(String),
    #[error("the store cannot answer")]
    Store(#[from] StoreError),
}

impl ApiError {
    fn status(&self) -> StatusCode {
        match self {
            Self::Filter(_) | Self::Range(_) | Self::Body(_) => StatusCode::BAD_REQUEST,
            Self::NoSession | Self::Login(LoginError::Refused) => StatusCode::UNAUTHORIZED,
            Self::Csrf => StatusCode::FORBIDDEN,
            Self::Login(LoginError::TooMany) | Self::Busy(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::Host => StatusCode::MISDIRECTED_REQUEST,
            Self::NotFound(_) => StatusCode::NOT_FOUND,
            Self::Login(LoginError::Database { .. }) | Self::Store(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    fn reason(&self) -> &'static str {
        match self {
            Self::Filter(_) => "filter",
            Self::Range(_) => "range",
            Self::Body(_) => "body",
            Self::NoSession => "session",
            Self::Csrf => "csrf",
            Self::Login(LoginError::Refused) => "link",
            Self::Login(LoginError::TooMany) => "attempts",
            Self::Host => "host",
            Self::NotFound(_) => "not_found",
            Self::Busy(_) => "busy",
            Self::Login(LoginError::Database { .. }) | Self::Store(_) => "store",
        }
    }
}

impl From<LoginError> for ApiError {
    fn from(error: LoginError) -> Self {
        Self::Login(error)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = self.status();
        let request_id = uuid::Uuid::now_v7().to_string();
        if status.is_server_error() {
            let cause = std::error::Error::source(&self).map(ToString::to_string).unwrap_or_default();
            tracing::error!(request_id, cause, "an API request failed: {self}");
        }
        let problem = Problem {
            kind: "about:blank".to_owned(),
            title: status.canonical_reason().unwrap_or_default().to_owned(),
            status: status.as_u16(),
            detail: self.to_string(),
            reason: self.reason().to_owned(),
            request_id,
        };
        let mut response = (status, axum::Json(problem)).into_response();
        let content_type = http::HeaderValue::from_static("application/problem+json");
        response.headers_mut().insert(header::CONTENT_TYPE, content_type);
        response
    }
}

/// A JSON body, with our own words when it cannot be read.
pub(super) struct Body<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let parsed = axum::Json::<T>::from_request(request, state).await;
        parsed.map(|json| Self(json.0)).map_err(|rejection| ApiError::Body(rejection.body_text()))
    }
}

/// Query parameters, likewise.
pub(super) struct Params<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Params<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let parsed = Query::<T>::from_request_parts(parts, state).await;
        parsed.map(|query| Self(query.0)).map_err(|rejection| ApiError::Body(rejection.body_text()))
    }
}
