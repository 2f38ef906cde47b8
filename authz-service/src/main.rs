//! `tollgate-authz`: the authorization service as a process of its own.

use std::process::ExitCode;

use tollgate_authz::{App, Config};
use tollgate_runtime::cli;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    cli::main::<Config, App, _>(App::build)
}
