//! Builds this crate again when the page was built: an embedded folder that appears later would go unnoticed.

#[expect(clippy::disallowed_methods, reason = "this is how Cargo speaks to a build script")]
fn main() {
    let embeds = std::env::var("PROFILE").is_ok_and(|profile| profile != "debug");
    if embeds {
        // While there is no such folder this makes every build look again, which is what finds it.
        emit("cargo::rerun-if-changed=ui/dist");
    } else {
        // Debug builds read the page's files when they are asked for.
        emit("cargo::rerun-if-changed=build.rs");
    }
}

fn emit(line: &str) {
    println!("{line}");
}
