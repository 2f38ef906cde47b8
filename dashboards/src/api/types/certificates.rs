//! Certificates of workloads.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The certificates that are in use.
#[derive(Debug, Clone, Deserialize, Serialize, ToSchema)]
pub struct Certificates {
    /// What ends first comes first.
    pub certificates: Vec<WorkloadCertificate>,
    /// Workloads left out because there were more than an answer takes.
    pub left_out: u64,
}

/// The certificate that an instance of a workload shows, as the workload itself reports it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
pub struct WorkloadCertificate {
    /// Whose it is.
    pub spiffe_id: String,
    /// The service that shows it.
    pub service: String,
    /// Which of its instances.
    pub instance: String,
    /// The name of who signed it.
    pub issuer: String,
    /// Where the workload has it from: `built-in authority`, `files`, `workload API`. Empty where it does not say.
    pub source: String,
    /// When it ends, unix milliseconds.
    pub expires_ms: u64,
    /// Whether that is over.
    pub ended: bool,
    /// Since when the workload uses it: its last rotation, or its own start. Unix milliseconds; absent where it does not
    /// say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rotated_ms: Option<u64>,
    /// When the workload last said so, unix milliseconds.
    pub reported_ms: u64,
    /// As whom it said so: the id of the certificate that the report came by. Empty where it came without one.
    pub reported_by: String,
    /// Whether it spoke of itself: then `reported_by` is `spiffe_id`, and nobody else can have made this up.
    pub verified: bool,
}
