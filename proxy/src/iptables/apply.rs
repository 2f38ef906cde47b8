//! Making rules those of this network namespace, by the system's own tools. Each family is changed at once or not at all.

use std::io::{ErrorKind, Write as _};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use anyhow::{Context as _, bail};
use tollgate_runtime::cli;

use super::Options;
use super::rules::{self, Family};

/// How long another program may change rules meanwhile.
const WAIT_SECONDS: &str = "5";
/// There when this network namespace has IPv6.
const HAS_IPV6: &str = "/proc/net/if_inet6";

/// The program that reads rules.
pub(super) fn restore(family: Family) -> &'static str {
    match family {
        Family::V4 => "iptables-restore",
        Family::V6 => "ip6tables-restore",
    }
}

fn save(family: Family) -> &'static str {
    match family {
        Family::V4 => "iptables-save",
        Family::V6 => "ip6tables-save",
    }
}

/// Redirects from now on.
pub(super) fn install(options: &Options) -> anyhow::Result<()> {
    for family in families() {
        let saved = run(save(family), &["-t", "nat"], "")?;
        change(family, &rules::install(options, family, &saved))?;
    }
    cli::tell(&format!(
        "redirected: inbound to port {}, outbound to port {}",
        options.inbound_port, options.outbound_port
    ));
    Ok(())
}

/// Redirects no more.
pub(super) fn clean(dry_run: bool) -> anyhow::Result<()> {
    for family in families() {
        let saved = run(save(family), &["-t", "nat"], "")?;
        let Some(rules) = rules::remove(&saved) else { continue };
        if dry_run {
            cli::answer(&format!("# {} --noflush\n{rules}", restore(family)));
        } else {
            change(family, &rules)?;
        }
    }
    Ok(())
}

/// A machine without IPv6 has nothing that could get past by it.
fn families() -> impl Iterator<Item = Family> {
    let has_v6 = Path::new(HAS_IPV6).exists();
    Family::BOTH.into_iter().filter(move |family| *family == Family::V4 || has_v6)
}

fn change(family: Family, rules: &str) -> anyhow::Result<()> {
    run(restore(family), &["--noflush", "--wait", WAIT_SECONDS], rules).map(drop)
}

fn run(program: &str, args: &[&str], input: &str) -> anyhow::Result<String> {
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut running = match command.spawn() {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            bail!("there is no `{program}` here; install the package iptables (the image needs it, too)")
        }
        spawned => spawned.with_context(|| format!("cannot run `{program}`"))?,
    };
    if let Some(mut stdin) = running.stdin.take() {
        // A program that gives up early says why itself.
        let _ = stdin.write_all(input.as_bytes());
    }
    let Output { status, stdout, stderr } =
        running.wait_with_output().with_context(|| format!("`{program}` cannot be waited for"))?;
    let said = String::from_utf8_lossy(&stderr);
    if !status.success() {
        bail!("`{program}` failed: {}{}", said.trim(), hint(&said));
    }
    Ok(String::from_utf8_lossy(&stdout).into_owned())
}

/// What would be right.
fn hint(said: &str) -> &'static str {
    let said = said.to_ascii_lowercase();
    if said.contains("permission denied") || said.contains("not permitted") {
        "; it must run as root with the capability NET_ADMIN (in Kubernetes: `runAsUser: 0` and \
         `capabilities: {add: [NET_ADMIN]}` of the init container)"
    } else if said.contains("does not exist")
        || said.contains("can't initialize")
        || said.contains("no chain")
    {
        "; the kernel needs the modules of nat, REDIRECT and owner (iptable_nat or nft_compat, xt_REDIRECT, xt_owner)"
    } else {
        ""
    }
}
