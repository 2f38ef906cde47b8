//! What every counter store must do. The suite runs on memory and on a real Redis.
//!
//! Windows here are days or longer, so that a store with a clock of its own does not leave one
//! in the middle of a test; the one test that needs a window's end takes seconds and waits for it.

use std::sync::Arc;
use std::time::Duration;

use tollgate_ratelimit::counters::redis::Target;
use tollgate_ratelimit::counters::{Batch, Bounds, CounterStore, MemoryStore, RedisStore};
use tollgate_ratelimit::limits::{Algorithm, Limit, Mode};
use tollgate_ratelimit::window::{Hits, Tally, Unit, Window};
use tollgate_runtime::Service;
use tollgate_runtime::clock::Clock;
use tollgate_runtime::config::Secret;
use tollgate_testkit::redis::RedisServer;

use crate::support::eventually;

async fn count<S: CounterStore>(store: &S, asked: &[(&str, Unit, Hits)]) -> Vec<Tally> {
    let mut batch = Batch::default();
    for (key, unit, hits) in asked {
        let limit = Limit::fixed(10, Window::of(*unit));
        batch.push(limit, Mode::Enforce, *hits, |buffer| buffer.extend_from_slice(key.as_bytes()));
    }
    counted(store, batch).await
}

async fn counted<S: CounterStore>(store: &S, batch: Batch) -> Vec<Tally> {
    let expected = batch.len();
    let mut tallies = Vec::new();
    store.count(&Arc::new(batch), Clock::system().unix_nanos() / 1_000, &mut tallies).await.unwrap();
    assert_eq!(tallies.len(), expected);
    tallies
}

async fn one<S: CounterStore>(store: &S, key: &str, hits: Hits) -> u64 {
    count(store, &[(key, Unit::Year, hits)]).await[0].used
}

async fn contract<S: CounterStore + 'static>(store: Arc<S>) {
    counts_looks_and_gives_back(&*store).await;
    counts_many_at_once(&*store).await;
    says_when_the_window_ends(&*store).await;
    large_numbers(&*store).await;
    begins_anew_after_the_window(&*store).await;
    slides(&*store).await;
    holds_a_bucket(&*store).await;
    spends_all_or_nothing(&*store).await;
    spends_all_or_nothing_under_concurrency(Arc::clone(&store)).await;
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
    let counts: Vec<_> = count(store, &asked).await.into_iter().map(|tally| tally.used).collect();
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
        count(store, &[("short", Unit::Second, Hits::Look)]).await[0].used == 0
    })
    .await;
}

fn of(algorithm: Algorithm, requests: u32, unit: Unit) -> Limit {
    Limit { algorithm, ..Limit::fixed(requests, Window::of(unit)) }
}

/// Applies hits to several counters at once; of each what is used, and whether it was over.
async fn together<S: CounterStore>(store: &S, asked: &[(&str, Limit, Mode, Hits)]) -> Vec<(u64, bool)> {
    let mut batch = Batch::default();
    for (key, limit, mode, hits) in asked {
        batch.push(*limit, *mode, *hits, |buffer| buffer.extend_from_slice(key.as_bytes()));
    }
    counted(store, batch).await.into_iter().map(|tally| (tally.used, tally.over)).collect()
}

async fn slides<S: CounterStore>(store: &S) {
    for requests in [5, 500] {
        let (key, limit) = (format!("slides-{requests}"), of(Algorithm::SlidingWindow, requests, Unit::Day));
        let all = u64::from(requests);
        let ask = async |hits| together(store, &[(&key, limit, Mode::Enforce, hits)]).await[0];
        assert_eq!(ask(Hits::Look).await, (0, false));
        assert_eq!(ask(Hits::Add(all - 1)).await, (all - 1, false));
        assert_eq!(ask(Hits::Add(2)).await, (all - 1, true), "what is refused spends nothing");
        assert_eq!(ask(Hits::Add(1)).await, (all, false));
        assert_eq!(ask(Hits::Look).await, (all, true));
        assert_eq!(ask(Hits::GiveBack(3)).await, (all - 3, false));
        assert_eq!(ask(Hits::GiveBack(all)).await, (0, false));
        assert_eq!(ask(Hits::Add(all + 1)).await, (0, true));
    }
    let short = of(Algorithm::SlidingWindow, 3, Unit::Second);
    assert_eq!(together(store, &[("slides", short, Mode::Enforce, Hits::Add(3))]).await[0], (3, false));
    eventually("a hit leaves a window of a second", || async {
        together(store, &[("slides", short, Mode::Enforce, Hits::Look)]).await[0].0 == 0
    })
    .await;
}

async fn holds_a_bucket<S: CounterStore>(store: &S) {
    let limit = of(Algorithm::TokenBucket { burst: 7 }, 5, Unit::Day);
    let ask = async |hits| together(store, &[("bucket", limit, Mode::Enforce, hits)]).await[0];
    assert_eq!(ask(Hits::Add(8)).await, (0, true));
    assert_eq!(ask(Hits::Add(6)).await, (6, false));
    assert_eq!(ask(Hits::Add(2)).await, (6, true));
    assert_eq!(ask(Hits::Add(1)).await, (7, false));
    assert_eq!(ask(Hits::Look).await, (7, true));
    assert_eq!(ask(Hits::GiveBack(2)).await, (5, false));
    let fast = of(Algorithm::TokenBucket { burst: 3 }, 100, Unit::Second);
    assert_eq!(together(store, &[("fast", fast, Mode::Enforce, Hits::Add(3))]).await[0].0, 3);
    eventually("tokens come back", || async {
        together(store, &[("fast", fast, Mode::Enforce, Hits::Look)]).await[0] == (0, false)
    })
    .await;
    let none = of(Algorithm::TokenBucket { burst: 0 }, 0, Unit::Second);
    assert_eq!(together(store, &[("none", none, Mode::Enforce, Hits::Add(1))]).await[0], (0, true));
}

async fn spends_all_or_nothing<S: CounterStore>(store: &S) {
    let (sliding, bucket) =
        (of(Algorithm::SlidingWindow, 5, Unit::Day), of(Algorithm::TokenBucket { burst: 3 }, 3, Unit::Day));
    let (fixed, none) = (Limit::fixed(100, Window::of(Unit::Year)), Limit::fixed(0, Window::of(Unit::Year)));
    let ask = async |last: (Limit, Mode)| {
        let asked = [
            ("all-s", sliding, Mode::Enforce, Hits::Add(1)),
            ("all-b", bucket, Mode::Enforce, Hits::Add(1)),
            ("all-f", fixed, Mode::Enforce, Hits::Add(1)),
            ("all-last", last.0, last.1, Hits::Add(1)),
        ];
        together(store, &asked).await
    };
    assert_eq!(ask((none, Mode::Enforce)).await, [(0, false), (0, false), (1, false), (1, true)]);
    // Whoever only watches, or is one quota of several, refuses nobody.
    assert_eq!(ask((none, Mode::Shadow)).await, [(1, false), (1, false), (2, false), (2, true)]);
    assert_eq!(ask((none, Mode::Candidate)).await, [(2, false), (2, false), (3, false), (3, true)]);
    assert_eq!(ask((none, Mode::Quota)).await, [(2, false), (2, false), (4, false), (4, true)]);
    assert_eq!(ask((fixed, Mode::Enforce)).await, [(3, false), (3, false), (5, false), (5, false)]);
    // The bucket is empty now: the sliding window is not spent either.
    assert_eq!(ask((fixed, Mode::Enforce)).await, [(3, false), (3, true), (6, false), (6, false)]);
    // The same counter twice in one call sees its own hits, and gives both back.
    let twice =
        [("all-s", sliding, Mode::Enforce, Hits::Add(1)), ("all-s", sliding, Mode::Enforce, Hits::Add(2))];
    assert_eq!(together(store, &twice).await, [(3, false), (3, true)]);
    assert_eq!(together(store, &twice[..1]).await, [(4, false)]);
}

/// Two limits spent together by many callers: neither is passed, and they never drift apart.
async fn spends_all_or_nothing_under_concurrency<S: CounterStore + 'static>(store: Arc<S>) {
    const LIMIT: u32 = 100;
    let service = Service::for_test("contract");
    let sliding = of(Algorithm::SlidingWindow, LIMIT, Unit::Day);
    let bucket = of(Algorithm::TokenBucket { burst: LIMIT + 50 }, 1, Unit::Year);
    let callers: Vec<_> = (0..100)
        .map(|_| {
            let store = Arc::clone(&store);
            service.tasks().spawn("caller", async move {
                let mut passed = 0;
                for _ in 0..3 {
                    let asked = [
                        ("both-b", bucket, Mode::Enforce, Hits::Add(1)),
                        ("both-s", sliding, Mode::Enforce, Hits::Add(1)),
                    ];
                    passed += u32::from(together(&*store, &asked).await.iter().all(|(_, over)| !over));
                }
                passed
            })
        })
        .collect();
    let mut passed = 0;
    for caller in callers {
        passed += caller.await.unwrap().unwrap();
    }
    assert_eq!(passed, LIMIT);
    let left = together(&*store, &[("both-b", bucket, Mode::Enforce, Hits::Look)]).await[0];
    assert_eq!(left, (u64::from(LIMIT), false), "refused calls spent nothing of the bucket");
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
    contract(Arc::new(MemoryStore::new(Bounds::keys(10_000)))).await;
}

async fn redis_store(server: &RedisServer, service: &Service) -> RedisStore {
    let target = Target::single(Secret::new(server.url()));
    let store = RedisStore::start(target, "", Duration::from_secs(5), service.tasks());
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
    drop(store);
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
    drop(store);
    service.stop().await;
}
