//! `tollgate-proxy`: one proxy as a process of its own.

use std::process::ExitCode;

use tollgate_proxy::{App, Config, iptables};
use tollgate_runtime::cli;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    cli::main_with::<Config, App, _>(vec![iptables::command()], App::build)
}
