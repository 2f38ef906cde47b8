//! What every counter store must do. The suite runs on memory and on a real Redis.
//!
//! Windows here are days or longer, so that a store with a clock of its own does not leave one
//! in the middle of a test; the one test that needs a window's end takes seconds and waits for it.

use std::sync::Arc;
use std::time::Duration;

use tollgate_ratelimit::counters::{Batch, CounterStore, MemoryStore, RedisStore};
use tollgate_ratelimit::window::{Hits, Tally, Unit, Window};
use tollgate_runtime::Service;
use tollgate_runtime::clock::Clock;
use tollgate_runtime::config::Secret;
use tollgate_testkit::redis::RedisServer;

use crate::support::eventually;

async fn count<S: CounterStore>(store: &S, asked: &[(&str, Unit, Hits)]) -> Vec<Tally> {
    let mut batch = Batch::default();
    for (key, unit, hits) in asked {
        batch.push(Window::of(*unit), *hits, |buffer| buffer.extend_from_slice(key.as_bytes()));
    }
    let mut tallies = Vec::new();
    store.count(&batch, Clock::system().unix_seconds(), &mut tallies).await.unwrap();
    assert_eq!(tallies.len(), asked.len());
    tallies
}

async fn one<S: CounterStore>(store: &S, key: &str, hits: Hits) -> u64 {
    count(store, &[(key, Unit::Year, hits)]).await[0].count
}

async fn contract<S: CounterStore + 'static>(store: Arc<S>) {
    counts_looks_and_gives_back(&*store).await;
    counts_many_at_once(&*store).await;
    says_when_the_window_ends(&*store).await;
    large_numbers(&*store).await;
    begins_anew_after_the_window(&*store).await;
    loses_nothing_under_concurrency(store).await;
}

async fn counts_looks_and_gives_back<S: CounterStore>(store: &S) {
    assert_eq!(one(store, "a", Hits::Look).await, 0);
    assert_eq!(one(store, "a", Hits::GiveBack(3)).await, 0);
    assert_eq!(one(store, "a", Hits::Add(1)).await, 1);
    assert_eq!(one(store, "a", Hits::Add(4)).await, 5);
    assert_eq!(one(store, "a", Hits::Look).await, 5);
    assert_eq!(one(store, "a", Hits::GiveBack(2)).await, 3);
    assert_eq!(one(store, "a", Hits::GiveBack(3)).await, 0);
    assert_eq!(one(store, "a", Hits::Add(2)).await, 2);
    assert_eq!(one(store, "a", Hits::GiveBack(9)).await, 0);
    assert_eq!(one(store, "b", Hits::Look).await, 0, "keys are apart");
}

async fn counts_many_at_once<S: CounterStore>(store: &S) {
    assert!(count(store, &[]).await.is_empty());
    // The same key twice in one call counts twice, in order.
    let asked = [
        ("many-1", Unit::Day, Hits::Add(2)),
        ("many-2", Unit::Year, Hits::Add(5)),
        ("many-1", Unit::Day, Hits::Add(3)),
        ("many-2", Unit::Year, Hits::GiveBack(1)),
        ("many-3", Unit::Week, Hits::Look),
    ];
    let counts: Vec<_> = count(store, &asked).await.into_iter().map(|tally| tally.count).collect();
    assert_eq!(counts, [2, 5, 5, 4, 0]);
}

async fn says_when_the_window_ends<S: CounterStore>(store: &S) {
    for unit in [Unit::Day, Unit::Week, Unit::Month, Unit::Year] {
        let before = Clock::system().unix_seconds();
        let tally = count(store, &[(unit.name(), unit, Hits::Add(1))]).await[0];
        let after = Clock::system().unix_seconds();
        let window = Window::of(unit);
        let possible = (window.end(after) - after)..=(window.end(before) - before);
        assert!(possible.contains(&tally.resets_in_seconds), "{unit:?}: {tally:?}, not in {possible:?}");
    }
}

async fn large_numbers<S: CounterStore>(store: &S) {
    let most = tollgate_ratelimit::window::MAX_HITS;
    for round in 1..=3 {
        assert_eq!(one(store, "large", Hits::Add(most)).await, round * most);
    }
    assert_eq!(one(store, "large", Hits::GiveBack(1)).await, 3 * most - 1);
}

async fn begins_anew_after_the_window<S: CounterStore>(store: &S) {
    count(store, &[("short", Unit::Second, Hits::Add(7))]).await;
    eventually("a count of a second begins anew in a later one", || async {
        count(store, &[("short", Unit::Second, Hits::Look)]).await[0].count == 0
    })
    .await;
}

async fn loses_nothing_under_concurrency<S: CounterStore + 'static>(store: Arc<S>) {
    const CALLERS: u64 = 16;
    const CALLS: u64 = 50;
    let tasks = Service::for_test("contract");
    let callers: Vec<_> = (0..CALLERS)
        .map(|_| {
            let store = Arc::clone(&store);
            tasks.tasks().spawn("caller", async move {
                let mut seen = Vec::new();
                for _ in 0..CALLS {
                    seen.push(one(&*store, "shared", Hits::Add(1)).await);
                }
                seen
            })
        })
        .collect();
    let mut seen = Vec::new();
    for caller in callers {
        seen.extend(caller.await.unwrap().unwrap());
    }
    // Each count was given out once: so never more than a limit's worth stays within the limit.
    seen.sort_unstable();
    assert_eq!(seen, (1..=CALLERS * CALLS).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn memory() {
    contract(Arc::new(MemoryStore::new(10_000))).await;
}

async fn redis_store(server: &RedisServer, service: &Service) -> RedisStore {
    let store = RedisStore::new(&Secret::new(server.url()), Duration::from_secs(5)).unwrap();
    store.keep_linked(service.tasks());
    store.linked().await;
    store
}

#[tokio::test(flavor = "multi_thread")]
async fn redis() {
    let server = RedisServer::start();
    let service = Service::for_test("contract");
    contract(Arc::new(redis_store(&server, &service).await)).await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_forgets_a_counter_with_its_window_and_survives_a_script_flush() {
    let server = RedisServer::start();
    let service = Service::for_test("contract");
    let store = redis_store(&server, &service).await;
    assert_eq!(one(&store, "kept", Hits::Add(1)).await, 1);

    let client = redis::Client::open(server.url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let seconds: i64 = redis::cmd("TTL").arg("kept").query_async(&mut connection).await.unwrap();
    assert!((0..=365 * 86_400).contains(&seconds), "{seconds}");

    redis::cmd("SCRIPT").arg("FLUSH").exec_async(&mut connection).await.unwrap();
    assert_eq!(one(&store, "kept", Hits::Add(1)).await, 2);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_of_many_descriptors_is_one_round_trip() {
    let server = RedisServer::start();
    let service = Service::for_test("contract");
    let store = redis_store(&server, &service).await;
    let client = redis::Client::open(server.url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    redis::cmd("CONFIG").arg("RESETSTAT").exec_async(&mut connection).await.unwrap();

    let keys: Vec<_> = (0..20).map(|n| format!("key-{n}")).collect();
    let asked: Vec<_> = keys.iter().map(|key| (key.as_str(), Unit::Day, Hits::Add(1))).collect();
    count(&store, &asked).await;

    let stats: String = redis::cmd("INFO").arg("commandstats").query_async(&mut connection).await.unwrap();
    let calls = stats.lines().find_map(|line| line.strip_prefix("cmdstat_evalsha:calls=")).unwrap();
    assert!(calls.starts_with("1,"), "{calls}");
    service.stop().await;
}
