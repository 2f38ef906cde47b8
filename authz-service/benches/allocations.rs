//! Allocations for a Check, from the bytes of its message to the bytes of its answer, without the gRPC server around it.
//!
//! `cargo bench -p tollgate-authz --bench allocations`

mod wired;

use prost::Message as _;
use serde_json::json;
use tollgate_testkit::checks::check_of_a_browser;

use wired::{Wired, claims};

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

const CHECKS: u64 = 1000;

fn main() {
    let _profiler = dhat::Profiler::builder().testing().build();
    let wired = Wired::new();
    let mut nobody = claims();
    nobody["sub"] = json!("somebody else");
    count(&wired, "allowed, a token seen before", &wired.token(&claims()));
    count(&wired, "refused, a token seen before", &wired.token(&nobody));
}

#[expect(clippy::print_stdout, reason = "the result goes to stdout")]
fn count(wired: &Wired, what: &str, token: &str) {
    let message = check_of_a_browser(token).encode_to_vec();
    // The first ones fill what is remembered.
    (0..CHECKS).for_each(|_| drop(wired.answer(&message)));
    let before = dhat::HeapStats::get();
    (0..CHECKS).for_each(|_| drop(wired.answer(&message)));
    let after = dhat::HeapStats::get();
    let blocks = (after.total_blocks - before.total_blocks) as f64 / CHECKS as f64;
    let bytes = (after.total_bytes - before.total_bytes) / CHECKS;
    println!("{what}: {blocks:.1} allocations, {bytes} bytes, for a message of {} bytes", message.len());
}
