//! The seeds of the fuzz targets, and whatever fuzzing has found, run once more.

use std::path::Path;

#[expect(unreachable_pub, reason = "the fuzz targets are another crate, for which these are public")]
#[path = "../../../fuzz/src/lib.rs"]
mod targets;

fn replay(target: &str, run: impl Fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds").join(target);
    let seeds: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(!seeds.is_empty(), "no seeds in {}", folder.display());
    for seed in seeds {
        let bytes = std::fs::read(&seed).unwrap();
        println!("{}", seed.display());
        run(&bytes);
        // And everything that the seed begins with, as far as that is affordable.
        for length in (0..bytes.len()).step_by(bytes.len() / 64 + 1) {
            run(&bytes[..length]);
        }
    }
}

#[test]
fn tokens() {
    replay("token", targets::token);
}

#[test]
fn paths() {
    replay("path", targets::path);
}

#[test]
fn policies() {
    replay("policy", targets::policy);
}

#[test]
fn checks() {
    replay("check", targets::check);
}
