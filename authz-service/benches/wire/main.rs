//! A Check over gRPC against the least that any Check can cost: a tonic service that decodes the same message and
//! answers nothing.
//!
//! ```text
//! core 0: tollgate-authz, or the empty service        core 1: this process: clients, and a collector for its spans
//! ```
//!
//! `cargo bench -p tollgate-authz --bench wire [-- SECONDS ROUNDS]`. Rounds are interleaved, so that whatever else the
//! machine does falls on both. Compared is the CPU time of the server for each request: on a core that has nothing else
//! to do, that is what decides how many it answers. A tenth of the requests is traced, and decisions are recorded.

#[path = "../../tests/it/signer.rs"]
#[expect(clippy::unwrap_used, reason = "shared with the tests")]
mod signer;

mod load;
mod server;

use std::time::Duration;

use jsonwebtoken::Algorithm;
use load::{Load, Tokens};
use server::{EMPTY, Server};
use signer::Signer;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const WARM_UP: Duration = Duration::from_secs(2);
/// So many different tokens are enough for the rounds with tokens that were never seen.
const FRESH_TOKENS: usize = 20_000;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|one| one != "--bench").collect();
    if arguments.first().is_some_and(|first| first == EMPTY) {
        return server::serve_empty();
    }
    let number =
        |at: usize, default: u64| arguments.get(at).and_then(|text| text.parse().ok()).unwrap_or(default);
    let (seconds, rounds) = (Duration::from_secs(number(0, 4)), number(1, 5));
    let signer = Signer::new(Algorithm::RS256, "k");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(run(&signer, seconds, rounds));
}

async fn run(signer: &Signer, seconds: Duration, rounds: u64) {
    server::pin_this_process();
    let empty = Server::empty();
    let authz = Server::authz(signer).await;
    let seen = Tokens::seen(signer);
    let to_empty = Load::connect(empty.address).await;
    let to_authz = Load::connect(authz.address).await;
    let (mut of_empty, mut of_authz) = (Vec::new(), Vec::new());
    to_empty.run(&empty, &seen, WARM_UP).await;
    to_authz.run(&authz, &seen, WARM_UP).await;
    for round in 1..=rounds {
        of_empty.push(to_empty.run(&empty, &seen, seconds).await);
        of_authz.push(to_authz.run(&authz, &seen, seconds).await);
        let (empty, authz) = (of_empty.last().expect("just pushed"), of_authz.last().expect("just pushed"));
        say(&format!(
            "round {round}: empty {empty}; authz {authz}; ratio {:.2}",
            empty.micros / authz.micros
        ));
    }
    let (empty_micros, authz_micros) = (median(&of_empty), median(&of_authz));
    say(&format!(
        "median of {rounds} rounds of {} s: empty {empty_micros:.1} us CPU, authz with a token it has seen {authz_micros:.1} us; \
         ratio {:.2}",
        seconds.as_secs(),
        empty_micros / authz_micros,
    ));
    let fresh = Tokens::fresh(signer, FRESH_TOKENS);
    let first_seen = to_authz.run(&authz, &fresh, Duration::from_secs(1)).await;
    say(&format!(
        "RS256 tokens never seen: {first_seen}; that is {:.1} us more (one verification alone: `cargo bench --bench check`)",
        first_seen.micros - authz_micros
    ));
}

fn median(samples: &[load::Sample]) -> f64 {
    let mut micros: Vec<f64> = samples.iter().map(|sample| sample.micros).collect();
    micros.sort_by(f64::total_cmp);
    micros[micros.len() / 2]
}

#[expect(clippy::print_stdout, reason = "the result goes to stdout")]
fn say(line: &str) {
    println!("{line}");
}
