//! `tollgate-proxy`: one proxy as a process of its own.

use std::process::ExitCode;

use tollgate_proxy::{App, Config};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    tollgate_runtime::cli::main::<Config, App, _>(App::build)
}
