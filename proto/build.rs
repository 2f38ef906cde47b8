//! Compiles our own `.proto` files; no `protoc` is needed.

use std::path::PathBuf;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=tollgate");
    let files = ["tollgate/identity/v1/certificate_authority.proto", "tollgate/rollout/v1/rollouts.proto"];
    let mut compiler = protox::Compiler::new(["."])?;
    compiler.include_imports(true).open_files(files)?;
    // What reflection tells is what is public anyway: the shape of messages, not what is written beside them.
    let descriptors = compiler.include_source_info(false).encode_file_descriptor_set();
    #[expect(clippy::disallowed_methods, reason = "so cargo tells a build script where to write")]
    let out = std::env::var_os("OUT_DIR").ok_or("this is for cargo to run")?;
    std::fs::write(PathBuf::from(out).join("tollgate.bin"), descriptors)?;
    tonic_prost_build::configure().compile_fds(compiler.include_source_info(true).file_descriptor_set())?;
    Ok(())
}
