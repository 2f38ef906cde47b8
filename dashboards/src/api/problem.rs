//! What a caller sees when something goes wrong: `application/problem+json` (RFC 9457).

use serde::Serialize;
use utoipa::ToSchema;

/// A problem document.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Problem {
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
