//! gRPC reflection: a server tells tools such as `grpcurl` what it speaks.
//!
//! It tells the shape of messages, which is public, and nothing about policy or limits.

use tonic_reflection::server::{Builder, Error, v1, v1alpha};

/// The version that servers without a newer one are asked by, and today's.
const OWN_NAMES: [&str; 3] = [
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
];

/// Both versions of the protocol, for a server of these services of Envoy's or ours, of health and of reflection itself.
pub fn servers(
    services: &[&str],
) -> Result<
    (
        v1::ServerReflectionServer<impl v1::ServerReflection>,
        v1alpha::ServerReflectionServer<impl v1alpha::ServerReflection>,
    ),
    Error,
> {
    Ok((described(services).build_v1()?, described(services).build_v1alpha()?))
}

fn described(services: &[&str]) -> Builder<'static> {
    let builder = Builder::configure()
        .register_encoded_file_descriptor_set(tollgate_proto::ENVOY_DESCRIPTORS)
        .register_encoded_file_descriptor_set(tollgate_proto::TOLLGATE_DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET);
    services.iter().chain(&OWN_NAMES).fold(builder, |builder, name| builder.with_service_name(*name))
}
