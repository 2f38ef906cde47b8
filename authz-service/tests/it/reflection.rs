//! gRPC reflection, asked as tools ask it.

use tempfile::TempDir;
use tollgate_testkit::reflection::{Version, files_of, services};
use tonic::Code;
use tonic::transport::Channel;

use crate::running::Running;

fn channel(mesh: &Running) -> Channel {
    Channel::from_shared(format!("http://{}", mesh.addresses.grpc)).unwrap().connect_lazy()
}

#[tokio::test]
async fn a_tool_learns_what_is_spoken_and_how() {
    let mesh = Running::empty().await;
    let channel = channel(&mesh);
    for version in [Version::V1, Version::V1Alpha] {
        assert_eq!(
            services(&channel, version).await.unwrap(),
            [
                "envoy.service.auth.v3.Authorization",
                "grpc.health.v1.Health",
                "grpc.reflection.v1.ServerReflection",
                "grpc.reflection.v1alpha.ServerReflection",
                "tollgate.rollout.v1.Rollouts",
            ]
        );
        for symbol in
            ["envoy.service.auth.v3.Authorization", "grpc.health.v1.Health", "tollgate.rollout.v1.Rollouts"]
        {
            // Everything that it mentions is there too, or a tool could not make a message.
            let files = files_of(&channel, version, symbol).await.unwrap();
            assert!(!files.is_empty());
            let service = symbol.rsplit('.').next().unwrap();
            assert!(files.values().any(|file| file.service.iter().any(|named| named.name() == service)));
        }
        let files = files_of(&channel, version, "envoy.service.auth.v3.CheckResponse").await.unwrap();
        let file = &files["envoy/service/auth/v3/external_auth.proto"];
        let response = file.message_type.iter().find(|message| message.name() == "CheckResponse").unwrap();
        assert!(response.field.iter().any(|field| (field.name(), field.number()) == ("error_response", 5)));
        let unknown = files_of(&channel, version, "tollgate.Nothing").await.unwrap_err();
        assert_eq!(unknown.code(), Code::NotFound);
    }
}

#[tokio::test]
async fn it_can_be_switched_off() {
    let folder = TempDir::new().unwrap();
    let url = format!("sqlite://{}", folder.path().join("authz.db").display());
    let mesh = Running::on(folder, &url, |config| config.listen.reflection = false).await;
    for version in [Version::V1, Version::V1Alpha] {
        assert_eq!(services(&channel(&mesh), version).await.unwrap_err().code(), Code::Unimplemented);
    }
}
