//! Compiles our own `.proto` files; no `protoc` is needed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=tollgate");
    let files = ["tollgate/identity/v1/certificate_authority.proto", "tollgate/rollout/v1/rollouts.proto"];
    let files = protox::compile(files, ["."])?;
    tonic_prost_build::configure().compile_fds(files)?;
    Ok(())
}
