//! `tollgate-dashboard --config FILE`: the dashboard as a process of its own.

use std::io::Write as _;
use std::process::ExitCode;

use tollgate_dashboard::{App, Config};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    tollgate_runtime::cli::main::<Config, App, _>(|config, service| async move {
        let app = App::build(config, service).await?;
        // To the terminal and nowhere else: a log line would reach the telemetry store, and the link is a credential.
        writeln!(std::io::stderr(), "sign in (works once): {}", app.login_link().await?)?;
        Ok(app)
    })
}
