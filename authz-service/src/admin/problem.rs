//! Errors of the admin API (RFC 9457), each with a reason from a closed set.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::policy::check::Fault;
use crate::store::StoreError;
use crate::wire::refusal::Refused;

/// An error as it is answered. The request's id is added on the way out.
#[derive(Debug, Clone)]
pub(super) struct Problem {
    status: StatusCode,
    reason: &'static str,
    detail: String,
    faults: Vec<Fault>,
    challenge: Option<String>,
    retry_after: Option<u32>,
}

/// The body of an error.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ProblemBody {
    /// Always `about:blank`; `reason` tells more.
    #[serde(rename = "type")]
    kind: &'static str,
    /// The status in words.
    title: &'static str,
    /// The status.
    status: u16,
    /// One word for programs.
    reason: &'static str,
    /// One sentence for people.
    detail: String,
    /// To be named when somebody asks about it.
    request_id: String,
    /// What is wrong with the policy, and where.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    faults: Vec<Fault>,
}

impl Problem {
    pub(super) fn new(status: StatusCode, reason: &'static str, detail: impl Into<String>) -> Self {
        let detail = detail.into();
        Self { status, reason, detail, faults: Vec::new(), challenge: None, retry_after: None }
    }

    /// There is no place for this now, and soon there will be.
    pub(super) fn busy(detail: impl Into<String>) -> Self {
        let problem = Self::new(StatusCode::SERVICE_UNAVAILABLE, "busy", detail);
        Self { retry_after: Some(1), ..problem }
    }

    pub(super) fn malformed(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "request_malformed", detail)
    }

    /// As the data path refuses, with the reason in the open: administrators may know.
    pub(super) fn refused(refused: &Refused, reason: tollgate_proto::Reason, detail: String) -> Self {
        let status = StatusCode::from_u16(refused.status).unwrap_or(StatusCode::FORBIDDEN);
        Self {
            challenge: refused.challenge.clone(),
            retry_after: refused.retry_after,
            ..Self::new(status, reason.as_str(), detail)
        }
    }

    /// Says what exactly is wrong, and where.
    pub(super) fn with_faults(self, faults: Vec<Fault>) -> Self {
        Self { faults, ..self }
    }

    /// The one word for programs.
    pub(super) fn reason(&self) -> &'static str {
        self.reason
    }

    pub(super) fn body(self, request_id: &str) -> ProblemBody {
        ProblemBody {
            kind: "about:blank",
            title: self.status.canonical_reason().unwrap_or("Error"),
            status: self.status.as_u16(),
            reason: self.reason,
            detail: self.detail,
            request_id: request_id.to_owned(),
            faults: self.faults,
        }
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        let detail = error.to_string();
        match error {
            StoreError::Invalid(faults) => {
                let detail = "the policy would be invalid";
                Self { faults, ..Self::new(StatusCode::UNPROCESSABLE_ENTITY, "policy_invalid", detail) }
            }
            StoreError::LastAdministrator => Self::new(StatusCode::CONFLICT, "last_administrator", detail),
            StoreError::AdministratorExists(_) => Self::new(StatusCode::CONFLICT, "name_taken", detail),
            StoreError::NoSuchEpoch { .. } => Self::new(StatusCode::NOT_FOUND, "no_such_epoch", detail),
            StoreError::KeyReused => {
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, "idempotency_key_reused", detail)
            }
            StoreError::NotFound(_) => Self::new(StatusCode::NOT_FOUND, "not_found", detail),
            StoreError::Moved { .. } | StoreError::PolicyMoved { .. } => {
                Self::new(StatusCode::PRECONDITION_FAILED, "moved", detail)
            }
            StoreError::TooFarBack { .. } => {
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, "too_far_back", detail)
            }
            StoreError::Overtaken { .. } => Self {
                retry_after: Some(1),
                ..Self::new(StatusCode::SERVICE_UNAVAILABLE, "not_in_force", detail)
            },
            StoreError::BootstrapRefused => Self {
                challenge: Some(r#"Bearer realm="tollgate", error="invalid_token""#.to_owned()),
                ..Self::new(StatusCode::UNAUTHORIZED, "bootstrap_refused", detail)
            },
            StoreError::Url { .. }
            | StoreError::Open { .. }
            | StoreError::Migrate(_)
            | StoreError::Query { .. }
            | StoreError::NoEpoch
            | StoreError::BadRow { .. } => {
                tracing::error!(
                    error = format!("{:#}", anyhow::Error::new(error)),
                    "the policy store failed"
                );
                let detail = "the policy store failed; its log says why";
                Self {
                    retry_after: Some(1),
                    ..Self::new(StatusCode::SERVICE_UNAVAILABLE, "store_failed", detail)
                }
            }
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        let challenge = self.challenge.as_deref().and_then(|text| HeaderValue::from_str(text).ok());
        if let Some(challenge) = challenge {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        }
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response.extensions_mut().insert(self);
        response
    }
}
