//! Whether size costs anything: a million bindings, a hundred thousand permissions and ten thousand services against
//! ten bindings.
//!
//! ```text
//! cargo bench -p tollgate-authz --bench scale                    evaluation, changes, memory, loading from SQLite
//! … --bench scale -- evaluate small|large N                      N evaluations, for callgrind and perf
//! ```

mod big;

use std::hint::black_box;
use std::time::{Duration, Instant};

use big::{Held, Size};
use jsonwebtoken::Algorithm;
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::json;
use tollgate_authz::facts::{Credential, Entry, Facts, NoHeaders, PathReadings};
use tollgate_authz::policy::compile::Compiler;
use tollgate_authz::policy::object::{Document, PolicySet, policy_set};
use tollgate_authz::policy::{Snapshot, Verdict, check, evaluate};
use tollgate_authz::store::load::{first_snapshot, next_snapshot};
use tollgate_authz::store::{Authorship, Store};
use tollgate_authz::token::VerifiedToken;
use tollgate_runtime::clock::Clock;
use tollgate_runtime::config::Secret;
use tollgate_testkit::signer::Signer;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Questions are made so many at a time, and only answering them is timed.
const BATCH: u32 = 256;
const ROUNDS: usize = 9;
const PAGE: u32 = 10_000;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|one| one != "--bench").collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["evaluate", size, count] => {
            let size = if size == "small" { Size::SMALL } else { Size::LARGE };
            let snapshot = build(size);
            let count = count.parse().expect("a number of evaluations");
            let took = ask(&snapshot, size, count, Drawn::Granted);
            say(&format!("{count} evaluations, {:.0} ns each", nanos(took, count)));
        }
        _ => all(),
    }
}

fn all() {
    let (small, large) =
        (build(Size::SMALL), timed("build, 1,000,000 bindings from documents", || build(Size::LARGE)));
    say(&format!("resident with it: {} MiB", memory("VmRSS")));
    evaluation(&small, &large);
    changes(&large);
    drop(large);
    from_sqlite();
}

fn signer() -> Signer {
    Signer::new(Algorithm::EdDSA, "k")
}

/// Builds as loading from a database does: bindings page by page.
fn build(size: Size) -> Snapshot {
    let mut compiler = Compiler::default();
    let mut set = policy_set(big::base(size, &signer().jwks())).expect("names are unique");
    compiler.put(check::check(&set).expect("a policy"));
    set.retain(|_, document| matches!(document, Document::Role(_)));
    for first in (0..size.bindings()).step_by(PAGE as usize) {
        let page = (first..size.bindings().min(first + PAGE)).map(|number| big::binding(size, number));
        let page = policy_set(page).expect("names are unique");
        compiler.put(check::check_within(&page, &set).expect("bindings"));
    }
    compiler.finish(1)
}

/// How subjects and services are drawn.
#[derive(Debug, Clone, Copy)]
enum Drawn {
    /// A binding uniformly, and with it a subject and a service: what it grants is asked.
    Granted,
    /// A subject and a service independently: nearly always refused.
    Independently,
}

/// Who asks, and about what.
fn draw(random: &mut SmallRng, size: Size, drawn: Drawn) -> (String, Held) {
    let mut any = || big::held(size, random.random_range(0..size.bindings()));
    let held = any();
    match drawn {
        Drawn::Granted => (big::subject(held), held),
        Drawn::Independently => (big::subject(any()), held),
    }
}

fn token(subject: &str) -> VerifiedToken {
    VerifiedToken {
        issuer_url: big::ISSUER.into(),
        client_id: Some("web".into()),
        scopes: vec!["openid".into(), "things:read".into()],
        groups: vec!["staff".into()],
        audience: vec!["insurance".into()],
        expires_at: i64::MAX,
        ..VerifiedToken::of_subject("demo", subject)
    }
}

/// Time spent on finding the service and evaluating.
fn ask(snapshot: &Snapshot, size: Size, count: u32, drawn: Drawn) -> Duration {
    let mut random = SmallRng::seed_from_u64(count.into());
    let mut spent = Duration::ZERO;
    for _ in 0..count.div_ceil(BATCH) {
        let questions: Vec<_> = (0..BATCH)
            .map(|_| {
                let (subject, held) = draw(&mut random, size, drawn);
                (big::service(held), big::path(held.role), token(&subject))
            })
            .collect();
        let started = on_cpu();
        for (service, path, token) in &questions {
            let verdict = answer(snapshot, service, path, token);
            assert!(matches!(drawn, Drawn::Independently) || verdict == Verdict::Allow, "{service} {path}");
        }
        spent += on_cpu() - started;
    }
    spent
}

#[inline(never)]
fn answer(snapshot: &Snapshot, service: &str, path: &str, token: &VerifiedToken) -> Verdict {
    let facts = Facts {
        guard: tollgate_authz::facts::Guard::Deny,
        service: snapshot.service(service),
        entry: Entry::Outside,
        peer: None,
        method: "GET",
        host: "service.example",
        path: PathReadings::of_target(path).expect("a path"),
        credential: Credential::Verified(token),
        headers: &NoHeaders,
        source: None,
        certificate_serial: None,
    };
    black_box(evaluate(snapshot, black_box(&facts), 1)).verdict
}

fn evaluation(small: &Snapshot, large: &Snapshot) {
    const COUNT: u32 = 100_000;
    let cases = [
        ("granted, 10 bindings", small, Size::SMALL, Drawn::Granted),
        ("granted, 1,000,000 bindings", large, Size::LARGE, Drawn::Granted),
        ("refused, 1,000,000 bindings", large, Size::LARGE, Drawn::Independently),
    ];
    for (name, snapshot, size, drawn) in cases {
        let mut took: Vec<f64> =
            (0..ROUNDS).map(|_| nanos(ask(snapshot, size, COUNT, drawn), COUNT)).collect();
        took.sort_by(f64::total_cmp);
        say(&format!(
            "evaluate, {name}: {:.0} ns (median of {ROUNDS} x {COUNT}; best {:.0})",
            took[ROUNDS / 2],
            took[0]
        ));
    }
}

/// Documents that change, each as a snapshot of its own that is made from the large one.
fn changes(large: &Snapshot) {
    let size = Size::LARGE;
    let in_ns7 = |document: &Document| document.id().namespace == "ns7";
    let around: PolicySet =
        policy_set(big::base(size, &signer().jwks()).filter(in_ns7)).expect("names are unique");
    let role = json!({"kind": "Role", "namespace": "ns7", "name": "service-7-role-1", "permissions": [
        {"name": "read", "service": "service-7", "methods": ["GET"], "paths": ["/other"]}]});
    let service = json!({"kind": "Service", "namespace": "ns7", "name": "service-7", "callers": ["external"],
        "issuers": ["demo"]});
    let issuer = json!({"kind": "Issuer", "name": "demo", "issuer": big::ISSUER, "jwks": signer().jwks(),
        "token_places": [{"header": "x-token"}]});
    for (name, document) in [
        ("a binding", big::binding(size, 70_007)),
        ("a role", serde_json::from_value(role).expect("a role")),
        ("a service", serde_json::from_value(service).expect("a service")),
        (
            "an issuer whose token place moves, accepted by all services",
            serde_json::from_value(issuer).expect("one"),
        ),
    ] {
        let set = policy_set([document]).expect("one");
        let mut took: Vec<Duration> = (0..ROUNDS)
            .map(|_| {
                let model = check::check_within(&set, &around).expect("good");
                let started = Instant::now();
                let mut compiler = Compiler::on(large);
                compiler.put(model);
                let next = compiler.finish(2);
                let took = started.elapsed();
                drop(black_box(next));
                took
            })
            .collect();
        took.sort();
        say(&format!(
            "change, {name}: {:?} (median of {ROUNDS}; worst {:?})",
            took[ROUNDS / 2],
            took[ROUNDS - 1]
        ));
    }
}

/// The way of a service that starts: a database, a snapshot, a change.
fn from_sqlite() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let folder = tempfile::TempDir::new().expect("a folder");
    let file = folder.path().join("authz.db");
    let store = runtime.block_on(fill(&file));
    let (snapshot, left_out) = timed("load, 1,000,000 bindings from SQLite", || {
        runtime.block_on(first_snapshot(&store)).expect("a snapshot")
    });
    assert!(left_out.is_empty() && snapshot.binding_count() == Size::LARGE.bindings() as usize);
    say(&format!("resident after loading: {} MiB; at most so far {} MiB", memory("VmRSS"), memory("VmHWM")));
    let mut took = Vec::new();
    let mut snapshot = snapshot;
    for round in 0..ROUNDS as u32 {
        let mut document = big::binding(Size::LARGE, 70_007 + round);
        if let Document::Binding(spec) = &mut document {
            spec.role = "service-7-role-3".to_owned();
        }
        let by = Authorship::new("bench", "a change");
        let started = Instant::now();
        runtime.block_on(store.apply(vec![document], by, false, false)).expect("a write");
        let written = started.elapsed();
        snapshot = runtime.block_on(next_snapshot(&store, &snapshot)).expect("the next snapshot");
        took.push((started.elapsed() - written, written));
    }
    took.sort();
    let (applied, written) = took[ROUNDS / 2];
    say(&format!(
        "one binding changed through the store: written in {written:?}, read and applied in {applied:?} (median of {ROUNDS}; worst {:?})",
        took[ROUNDS - 1].0
    ));
}

/// Bindings are put in past the store, which would write a history line for each.
async fn fill(file: &std::path::Path) -> Store {
    let url = format!("sqlite://{}", file.display());
    let store = Store::open(&Secret::new(&url), Clock::system()).await.expect("a store");
    let base: Vec<Document> = big::base(Size::LARGE, &signer().jwks()).collect();
    let pool = sqlx::SqlitePool::connect(&url).await.expect("the same file");
    for part in base.chunks(20_000) {
        store.apply(part.to_vec(), Authorship::new("bench", "set up"), false, false).await.expect("a write");
    }
    let mut tx = pool.begin().await.expect("a transaction");
    for number in 0..Size::LARGE.bindings() {
        let Document::Binding(spec) = big::binding(Size::LARGE, number) else { continue };
        let who = serde_json::to_string(&spec.who).expect("JSON");
        sqlx::query("INSERT INTO bindings (namespace, name, role, who, epoch) VALUES ($1, $2, $3, $4, 1)")
            .bind(spec.namespace)
            .bind(spec.name)
            .bind(spec.role)
            .bind(who)
            .execute(&mut *tx)
            .await
            .expect("a row");
    }
    tx.commit().await.expect("a commit");
    pool.close().await;
    store
}

fn timed<T>(what: &str, work: impl FnOnce() -> T) -> T {
    let started = Instant::now();
    let done = work();
    say(&format!("{what}: {:.2} s", started.elapsed().as_secs_f64()));
    done
}

fn nanos(took: Duration, count: u32) -> f64 {
    took.as_secs_f64() * 1e9 / f64::from(count.next_multiple_of(BATCH))
}

/// Time that this thread was running, which other work on the machine does not lengthen.
fn on_cpu() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux tells it");
    let nanos = text.split_whitespace().next().and_then(|nanos| nanos.parse().ok());
    Duration::from_nanos(nanos.expect("nanoseconds come first"))
}

/// A figure of `/proc/self/status`, in MiB.
fn memory(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).map_or(0, |kib| kib / 1024)
}

#[expect(clippy::print_stdout, reason = "the result goes to stdout")]
fn say(line: &str) {
    println!("{line}");
}
