//! Which functions a proxy executes until it has nothing left to do, as a linker script that puts them side by side.
//!
//! Where a page of the binary is touched, Linux maps its neighbours too (`fault_around_bytes`, 64 KiB). A thousand functions
//! scattered over the binary make half of it resident; side by side they take a quarter. A name stands for all instances of
//! a generic function, so that three times as much lies there as is executed: their hashes are others in each build.

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde_json::Value;
use tempfile::TempDir;
use tollgate_testkit::authority::Authority;

use crate::footprint::{is_ready, plaintext, strict};
use crate::process::{self, Callgrind};
use crate::{Options, say};

/// Under valgrind a start takes fifty times as long.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// What is done by the clock has been done by then.
const RESTS: Duration = Duration::from_secs(15);

/// Starts a proxy without and with an identity, and prints the script.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let proxy = options.binaries.join("tollgate-proxy").canonicalize()?;
    let folder = TempDir::new()?;
    let [process, listen] = process::free_addresses()?;
    let plaintext = plaintext(process, listen);
    let strict = strict(plaintext.clone(), &Authority::new("bench"), folder.path())?;
    let mut patterns = BTreeSet::new();
    for config in [plaintext, strict] {
        let profile = profile(&proxy, &config, process, folder.path())?;
        patterns.extend(executed(&profile, &proxy).into_iter().filter_map(pattern));
    }
    ensure!(!patterns.is_empty(), "{} names none of its functions: is it stripped?", proxy.display());
    say(
        "/* What a proxy executes when it starts, rests and stops, side by side: fewer pages of it are resident (bench/src/start_order.rs).",
    );
    say("   Made by: tollgate-bench start-order > proxy/start.ld */");
    say("SECTIONS {\n  .text : {");
    // Those that are seldom called are in `.text.unlikely.`.
    patterns.iter().for_each(|pattern| say(&format!("    *(.text*.{pattern})")));
    say("  }\n} INSERT AFTER .init;");
    Ok(())
}

/// What callgrind wrote of a proxy that started, was asked whether it is ready, and rested.
fn profile(proxy: &Path, config: &Value, process: SocketAddr, folder: &Path) -> anyhow::Result<String> {
    let (file, profile) = (folder.join("proxy.yaml"), folder.join("callgrind.out"));
    std::fs::write(&file, config.to_string())?;
    let arguments = ["--demangle=no".to_owned(), format!("--callgrind-out-file={}", profile.display())];
    let running = Callgrind::start(&arguments, proxy, &file)?;
    let began = Instant::now();
    while !is_ready(process) {
        ensure!(began.elapsed() < READY_WITHIN, "{} is not ready", proxy.display());
        std::thread::sleep(Duration::from_millis(50));
    }
    std::thread::sleep(RESTS);
    running.end()?;
    std::fs::read_to_string(&profile).with_context(|| format!("{} cannot be read", profile.display()))
}

/// The functions of this binary in a profile: `ob=(1) binary` is followed by its `fn=(7) name`, and a number that was
/// named once stands alone from then on.
fn executed<'a>(profile: &'a str, binary: &Path) -> BTreeSet<&'a str> {
    let (mut binaries, mut functions) = (HashMap::new(), HashMap::new());
    let (mut is_binary, mut found) = (false, BTreeSet::new());
    for line in profile.lines() {
        let Some((kind, (number, name))) =
            line.split_once("=(").and_then(|(kind, rest)| Some((kind, rest.split_once(')')?)))
        else {
            continue;
        };
        match kind {
            "ob" => is_binary = *binaries.entry(number).or_insert_with(|| Path::new(name.trim()) == binary),
            // Those of what is called.
            "cob" => drop(binaries.entry(number).or_insert_with(|| Path::new(name.trim()) == binary)),
            "fn" | "cfn" => {
                // A second and later call of a recursion is told as `name'2`.
                let name = *functions
                    .entry(number)
                    .or_insert_with(|| name.trim().split('\'').next().unwrap_or(name));
                if kind == "fn" && is_binary {
                    found.insert(name);
                }
            }
            _ => {}
        }
    }
    found
}

/// The name without what is another in other builds: the hash at its end, or the number of a copy. Names of the standard
/// library are those of its release. Nothing of what valgrind has no name for: an address, and `(below main)`.
fn pattern(name: &str) -> Option<String> {
    let is_symbol = !name.starts_with(|first: char| first.is_ascii_digit() || first == '(');
    is_symbol.then(|| match (name.rsplit_once("17h"), name.split_once('.')) {
        (Some((path, _)), _) if name.starts_with("_ZN") => format!("{path}17h*"),
        (_, Some((function, _))) => format!("{function}.*"),
        _ => name.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROFILE: &str = "\
version: 1
ob=(1) /lib/libc.so.6
fn=(1) malloc
1 2
ob=(2) /bin/proxy
fn=(2) _ZN5proxy5start17h0123456789abcdefE
1 2
cob=(1)
cfn=(3) free
calls=1 2
cfn=(4) _ZN5proxy4read17h0123456789abcdefE'2
calls=1 2
fn=(4)
1 2
ob=(1)
fn=(3)
1 2
";

    #[test]
    fn functions_are_of_the_binary_that_executes_them() {
        let found = executed(PROFILE, Path::new("/bin/proxy"));
        assert_eq!(
            Vec::from_iter(found),
            ["_ZN5proxy4read17h0123456789abcdefE", "_ZN5proxy5start17h0123456789abcdefE"]
        );
        assert_eq!(Vec::from_iter(executed(PROFILE, Path::new("/lib/libc.so.6"))), ["free", "malloc"]);
    }

    #[test]
    fn a_pattern_is_a_name_in_any_build() {
        let of = |name| pattern(name).unwrap_or_default();
        assert_eq!(of("_ZN5proxy5start17h0123456789abcdefE"), "_ZN5proxy5start17h*");
        assert_eq!(of("_ZN5proxy5start17h0123456789abcdefE.llvm.123"), "_ZN5proxy5start17h*");
        assert_eq!(of("mi_free"), "mi_free");
        assert_eq!(of("mi_page_extend_free.constprop.0"), "mi_page_extend_free.*");
        assert_eq!((of("(below main)"), of("0x00000000006d2c30")), (String::new(), String::new()));
    }
}
