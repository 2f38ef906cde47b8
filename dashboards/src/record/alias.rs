//! Names that Envoy and Istio use in access logs, and ours for the same thing, so that an existing proxy only has to
//! be pointed at the OTLP port.

use std::borrow::Cow;

use tollgate_proto::attributes as a;

use super::{Row, Value};

enum Convert {
    /// As it is; numbers sent as text become numbers.
    Same,
    Int,
    /// Milliseconds; ours are microseconds.
    Millis,
}

const ALIASES: &[(&str, &str, Convert)] = &[
    ("method", a::HTTP_REQUEST_METHOD, Convert::Same),
    ("request_method", a::HTTP_REQUEST_METHOD, Convert::Same),
    ("http.method", a::HTTP_REQUEST_METHOD, Convert::Same),
    ("path", a::URL_PATH, Convert::Same),
    ("request_path", a::URL_PATH, Convert::Same),
    ("protocol", a::NETWORK_PROTOCOL_VERSION, Convert::Same),
    ("response_code", a::HTTP_RESPONSE_STATUS_CODE, Convert::Int),
    ("status", a::HTTP_RESPONSE_STATUS_CODE, Convert::Int),
    ("http.status_code", a::HTTP_RESPONSE_STATUS_CODE, Convert::Int),
    ("response_flags", a::TOLLGATE_RESPONSE_FLAGS, Convert::Same),
    ("response_code_details", a::TOLLGATE_RESPONSE_DETAILS, Convert::Same),
    ("bytes_received", a::HTTP_REQUEST_SIZE, Convert::Int),
    ("bytes_sent", a::HTTP_RESPONSE_SIZE, Convert::Int),
    ("duration", a::TOLLGATE_DURATION_US, Convert::Millis),
    ("upstream_service_time", a::TOLLGATE_UPSTREAM_US, Convert::Millis),
    ("authority", a::SERVER_ADDRESS, Convert::Same),
    ("requested_server_name", "tls.server_name", Convert::Same),
    ("upstream_host", a::NETWORK_PEER_ADDRESS, Convert::Same),
    ("upstream_cluster", a::TOLLGATE_UPSTREAM_CLUSTER, Convert::Same),
    ("route_name", a::HTTP_ROUTE, Convert::Same),
    ("request_id", a::TOLLGATE_REQUEST_ID, Convert::Same),
    ("x_request_id", a::TOLLGATE_REQUEST_ID, Convert::Same),
    ("user_agent", a::USER_AGENT_ORIGINAL, Convert::Same),
    ("downstream_remote_address", a::CLIENT_ADDRESS, Convert::Same),
    ("reporter", a::TOLLGATE_REPORTER, Convert::Same),
    ("source_workload", a::TOLLGATE_SOURCE_WORKLOAD, Convert::Same),
    ("source_workload_namespace", a::TOLLGATE_SOURCE_NAMESPACE, Convert::Same),
    ("source_principal", a::TOLLGATE_SOURCE_PRINCIPAL, Convert::Same),
    ("destination_workload", a::TOLLGATE_DESTINATION_WORKLOAD, Convert::Same),
    ("destination_workload_namespace", a::TOLLGATE_DESTINATION_NAMESPACE, Convert::Same),
    ("destination_principal", a::TOLLGATE_DESTINATION_PRINCIPAL, Convert::Same),
    ("destination_version", a::TOLLGATE_DESTINATION_VERSION, Convert::Same),
    ("connection_security_policy", a::TOLLGATE_CONNECTION_SECURITY_POLICY, Convert::Same),
];

/// Whether a log record without our event name tells of a request: it carries an HTTP status under some name.
pub(crate) fn looks_like_access<'k>(mut keys: impl Iterator<Item = &'k str>) -> bool {
    keys.any(|key| matches!(key, "response_code" | "response_code_details" | "http.response.status_code"))
}

/// Renames what has a name of ours. `-` is Envoy's word for "nothing" and becomes nothing.
pub(crate) fn to_ours(row: &mut Row<'_>) {
    row.fields.retain(|(_, value)| value.as_text() != Some("-"));
    for at in 0..row.fields.len() {
        let Some((_, ours, convert)) = ALIASES.iter().find(|(theirs, ..)| *theirs == row.fields[at].0) else {
            continue;
        };
        if row.fields.iter().any(|(name, _)| name == ours) {
            continue;
        }
        let converted = match convert {
            Convert::Same => Some(row.fields[at].1.clone()),
            Convert::Int => row.fields[at].1.as_int().map(Value::Int),
            Convert::Millis => row.fields[at].1.as_int().and_then(|ms| ms.checked_mul(1000)).map(Value::Int),
        };
        if let Some(converted) = converted {
            row.fields[at] = (Cow::Borrowed(ours), converted);
        }
    }
    if let Some((_, Value::Text(path))) = row.fields.iter_mut().find(|(name, _)| name == a::URL_PATH)
        && let Some(end) = path.find('?')
    {
        // Envoy logs the query with the path; queries carry secrets too often to be kept unasked.
        *path = Cow::Owned(path[..end].to_owned());
    }
}
