//! Answers as Envoy's `ext_authz` has them.
//!
//! What Envoy 1.40 makes of them was measured: the status alone decides, `error_response` is a failure of ours (which
//! an Envoy may be told to let pass), request headers are overwritten whatever their append action, and a gRPC client
//! gets the body as `grpc-message`.

use tollgate_proto::envoy_types::pb::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use tollgate_proto::envoy_types::pb::envoy::config::core::v3::{
    HeaderValue, HeaderValueOption, QueryParameter,
};
use tollgate_proto::envoy_types::pb::envoy::service::auth::v3::check_response::HttpResponse;
use tollgate_proto::envoy_types::pb::envoy::service::auth::v3::{DeniedHttpResponse, OkHttpResponse};
use tollgate_proto::envoy_types::pb::envoy::r#type::v3::HttpStatus;
use tollgate_proto::envoy_types::pb::google::rpc::Status;
use tonic::Code;

use super::changes::Changes;
use super::refusal::Refused;

/// `envoy.service.auth.v3.CheckResponse`, with metadata that is encoded already (see [`super::metadata`]).
#[derive(Clone, PartialEq, prost::Message)]
pub struct CheckResponse {
    /// Whether it may pass.
    #[prost(message, optional, tag = "1")]
    pub status: Option<Status>,
    /// How it is changed, or what the client gets instead.
    #[prost(oneof = "HttpResponse", tags = "2, 3, 5")]
    pub http_response: Option<HttpResponse>,
    /// A `google.protobuf.Struct`.
    #[prost(bytes = "vec", tag = "4")]
    pub dynamic_metadata: Vec<u8>,
}

/// What the client speaks, which is what it has to be answered in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Speaks {
    Http,
    Grpc,
}

impl Speaks {
    pub(super) fn of(content_type: Option<&str>) -> Self {
        match content_type.and_then(|kind| kind.get(..16)) {
            Some(start) if start.eq_ignore_ascii_case("application/grpc") => Self::Grpc,
            _ => Self::Http,
        }
    }
}

/// The request may pass, changed so.
pub(super) fn allowed(changes: Changes, dynamic_metadata: Vec<u8>) -> CheckResponse {
    CheckResponse {
        status: Some(status(Code::Ok)),
        dynamic_metadata,
        http_response: Some(HttpResponse::OkResponse(OkHttpResponse {
            headers: changes.set.into_iter().map(|(name, value)| header(&name, value)).collect(),
            headers_to_remove: changes.remove,
            query_parameters_to_set: changes.set_query.into_iter().map(parameter).collect(),
            query_parameters_to_remove: changes.remove_query,
            ..OkHttpResponse::default()
        })),
    }
}

/// The request may not pass, or we cannot say whether it may.
pub(super) fn refused(
    refused: &Refused,
    speaks: Speaks,
    dynamic_metadata: Vec<u8>,
    request_id: &str,
) -> CheckResponse {
    let answer = DeniedHttpResponse {
        status: Some(HttpStatus { code: refused.status.into() }),
        headers: headers(refused, speaks),
        body: refused.body(speaks == Speaks::Grpc, request_id),
    };
    CheckResponse {
        status: Some(status(refused.grpc_code())),
        dynamic_metadata,
        http_response: Some(if refused.is_ours() {
            HttpResponse::ErrorResponse(answer)
        } else {
            HttpResponse::DeniedResponse(answer)
        }),
    }
}

fn headers(refused: &Refused, speaks: Speaks) -> Vec<HeaderValueOption> {
    let mut headers: Vec<_> = refused.headers().map(|(name, value)| header(name, value)).collect();
    match speaks {
        Speaks::Http => headers.push(header("content-type", "application/json".to_owned())),
        // Envoy derives the status from the HTTP one, and would call a bad request an internal error of the server.
        Speaks::Grpc => {
            headers.push(header("grpc-status", (refused.grpc_code() as i32).to_string()));
        }
    }
    headers
}

fn status(code: Code) -> Status {
    Status { code: code as i32, ..Status::default() }
}

fn parameter((key, value): (String, String)) -> QueryParameter {
    QueryParameter { key, value }
}

fn header(key: &str, value: String) -> HeaderValueOption {
    HeaderValueOption {
        header: Some(HeaderValue { key: key.to_owned(), value, ..HeaderValue::default() }),
        append_action: HeaderAppendAction::OverwriteIfExistsOrAdd as i32,
        ..HeaderValueOption::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grpc_is_told_by_the_content_type() {
        for (kind, speaks) in [
            (Some("application/grpc"), Speaks::Grpc),
            (Some("Application/GRPC+proto"), Speaks::Grpc),
            (Some("application/grpc-web"), Speaks::Grpc),
            (Some("application/json"), Speaks::Http),
            (Some("é"), Speaks::Http),
            (None, Speaks::Http),
        ] {
            assert_eq!(Speaks::of(kind), speaks, "{kind:?}");
        }
    }
}
