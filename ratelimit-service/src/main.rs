//! The rate-limit service as a process of its own.

use std::process::ExitCode;

use tollgate_ratelimit::{App, Config};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    tollgate_runtime::cli::main::<Config, App, _>(App::build)
}
