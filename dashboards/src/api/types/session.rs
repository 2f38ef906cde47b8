//! Signing in: what the page sends and what it learns about itself.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A one-use token from the one-click link (`/login#token=…`).
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LoginRequest {
    /// The token; it works once.
    pub token: String,
}

/// An open session. The session itself is the HttpOnly cookie `tollgate_session`, which script cannot read.
#[derive(Debug, Clone, Deserialize, Serialize, ToSchema)]
pub struct Session {
    /// Goes into the header `x-csrf-token` of every request that is not a GET.
    pub csrf: String,
    /// Who is signed in.
    pub user: User,
    /// When the session ends, unix milliseconds.
    pub expires_ms: u64,
}

/// A person, as far as the dashboard knows one.
#[derive(Debug, Clone, Deserialize, Serialize, ToSchema)]
pub struct User {
    /// Their name.
    pub name: String,
    /// What they may do: `viewer`, `operator`.
    pub role: String,
}
