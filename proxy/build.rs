//! How the programs are linked.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=start.ld");
    #[expect(clippy::disallowed_methods, reason = "so cargo tells a build script what it builds for")]
    let is = |name: &str, value: &str| std::env::var(name).is_ok_and(|found| found == value);
    if is("CARGO_CFG_TARGET_OS", "linux") && is("CARGO_CFG_TARGET_ENV", "gnu") {
        // Relocations take a twentieth of the room (DT_RELR, glibc 2.36): all of them are read at each start, and stay in memory.
        println!("cargo:rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
        // Optimised as what is shipped (`--profile dist`): functions that a start executes lie side by side, so that less of the
        // binary is resident. What the script does not name costs only that; `tollgate-bench start-order` makes it anew.
        // lld and GNU ld read it; mold does not.
        if is("OPT_LEVEL", "3") {
            println!("cargo:rustc-link-arg-bins=-T{}/start.ld", env!("CARGO_MANIFEST_DIR"));
        }
    }
}
