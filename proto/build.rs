//! Compiles our own `.proto` files; no `protoc` is needed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=tollgate");
    let files = protox::compile(["tollgate/identity/v1/certificate_authority.proto"], ["."])?;
    tonic_prost_build::configure().compile_fds(files)?;
    Ok(())
}
