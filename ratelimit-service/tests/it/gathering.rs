//! Calls that go to Redis together: each gets its own answer, and whoever leaves or comes too late is not counted.
//!
//! These tests have one thread, so that nothing is sent before they wait themselves.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use futures_util::{FutureExt as _, poll};
use tollgate_ratelimit::counters::redis::Target;
use tollgate_ratelimit::counters::{Batch, RedisStore, StoreError};
use tollgate_ratelimit::limits::{Algorithm, Limit, Mode};
use tollgate_ratelimit::window::{Hits, Tally, Unit, Window};
use tollgate_runtime::Service;
use tollgate_runtime::config::Secret;
use tollgate_testkit::redis::RedisServer;

use crate::support::{PATIENCE, eventually};

async fn store(server: &RedisServer, service: &Service, timeout: Duration) -> RedisStore {
    let store = RedisStore::start(Target::single(Secret::new(server.url())), "", timeout, service.tasks());
    store.linked().await;
    store
}

pub(crate) fn call(counters: &[(&str, Limit, u64)]) -> Arc<Batch> {
    let mut batch = Batch::default();
    for (key, limit, hits) in counters {
        let write = |name: &mut Vec<u8>| name.extend_from_slice(key.as_bytes());
        batch.push(*limit, Mode::Enforce, Hits::Add(*hits), write);
    }
    Arc::new(batch)
}

pub(crate) fn fixed(unit: Unit) -> Limit {
    Limit::fixed(1_000_000, Window::of(unit))
}

pub(crate) async fn count(store: &RedisStore, batch: Arc<Batch>) -> Result<Vec<Tally>, StoreError> {
    let mut tallies = Vec::new();
    store.count(&batch, &mut tallies).await.map(|()| tallies)
}

async fn used(store: &RedisStore, key: &str) -> u64 {
    count(store, call(&[(key, fixed(Unit::Year), 1)])).await.unwrap()[0].used
}

async fn commands(server: &RedisServer) -> u64 {
    let client = redis::Client::open(server.url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let stats: String = redis::cmd("INFO").arg("commandstats").query_async(&mut connection).await.unwrap();
    let calls = stats.lines().find_map(|line| line.strip_prefix("cmdstat_evalsha:calls="));
    calls.map_or(0, |calls| calls.split(',').next().unwrap().parse().unwrap())
}

#[tokio::test]
async fn calls_at_the_same_time_are_one_command_and_each_gets_its_own_answer() {
    let (server, service) = (RedisServer::start(), Service::for_test("gathering"));
    let store = store(&server, &service, PATIENCE).await;
    let units = [Unit::Day, Unit::Week, Unit::Year];
    let names: Vec<_> = (0..200).map(|n| (format!("a-{n}"), format!("b-{n}"))).collect();
    let calls = names.iter().enumerate().map(|(n, (a, b))| {
        let (hits, unit) = (n as u64 + 1, units[n % units.len()]);
        match n % 4 {
            0 => call(&[(a, fixed(unit), hits), (b, fixed(Unit::Day), 2 * hits)]),
            _ => call(&[(a, fixed(unit), hits)]),
        }
    });
    let before = commands(&server).await;
    let answers = join_all(calls.map(|batch| count(&store, batch))).await;
    assert_eq!(commands(&server).await - before, 1);
    for (n, tallies) in answers.into_iter().enumerate() {
        let used: Vec<_> = tallies.unwrap().iter().map(|tally| tally.used).collect();
        let hits = n as u64 + 1;
        assert_eq!(used, if n % 4 == 0 { vec![hits, 2 * hits] } else { vec![hits] }, "call {n}");
    }
    drop(store);
    service.stop().await;
}

#[tokio::test]
async fn either_kind_of_call_finds_its_answer_among_the_other() {
    let (server, service) = (RedisServer::start(), Service::for_test("gathering"));
    let store = store(&server, &service, PATIENCE).await;
    let bucket = Limit { algorithm: Algorithm::TokenBucket { burst: 5 }, ..fixed(Unit::Year) };
    let names: Vec<_> = (0..1_000).map(|n| format!("k-{n}")).collect();
    let calls = names.iter().enumerate().map(|(n, name)| {
        let limit = if n % 2 == 0 { fixed(Unit::Year) } else { bucket };
        call(&[(name, limit, n as u64 % 7 + 1)])
    });
    let answers = join_all(calls.map(|batch| count(&store, batch))).await;
    for (n, tallies) in answers.into_iter().enumerate() {
        let (tally, hits) = (tallies.unwrap()[0], n as u64 % 7 + 1);
        let over = n % 2 == 1 && hits > 5;
        assert_eq!((tally.used, tally.over), (if over { 0 } else { hits }, over), "call {n}");
    }
    drop(store);
    service.stop().await;
}

#[tokio::test]
async fn whoever_leaves_before_it_is_sent_is_not_counted() {
    let (server, service) = (RedisServer::start(), Service::for_test("gathering"));
    let store = store(&server, &service, PATIENCE).await;
    for expected in 1..=3 {
        let mut leaves = Box::pin(used(&store, "k"));
        assert!(poll!(&mut leaves).is_pending());
        drop(leaves);
        assert_eq!(used(&store, "k").await, expected);
    }
    // Where all leave, nothing is sent.
    let mut alone = Box::pin(used(&store, "k"));
    assert!(poll!(&mut alone).is_pending());
    drop(alone);
    let before = commands(&server).await;
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert_eq!(commands(&server).await, before);
    drop(store);
    service.stop().await;
}

#[tokio::test]
async fn more_than_may_wait_are_refused_and_the_others_counted() {
    let (server, service) = (RedisServer::start(), Service::for_test("gathering"));
    let store = store(&server, &service, PATIENCE).await;
    let mut all: Vec<_> =
        (0..35_000).map(|_| Box::pin(count(&store, call(&[("k", fixed(Unit::Year), 1)])))).collect();
    let mut refused = 0;
    for one in &mut all {
        match one.now_or_never() {
            None => {}
            Some(answer) => {
                assert!(matches!(answer, Err(StoreError::Full)), "{answer:?}");
                refused += 1;
            }
        }
    }
    assert_eq!(refused, 35_000 - 32_768);
    all.truncate(32_768);
    assert!(join_all(all).await.iter().all(Result::is_ok));
    assert_eq!(used(&store, "k").await, 32_769);
    drop(store);
    service.stop().await;
}

#[tokio::test]
async fn a_server_that_hangs_keeps_nobody_longer_than_the_timeout() {
    let (server, service) = (RedisServer::start(), Service::for_test("gathering"));
    let store = store(&server, &service, Duration::from_millis(200)).await;
    server.pause();
    // More than fly at once: those behind them give up as well, whether or not anything was sent for them.
    let began = tokio::time::Instant::now();
    let answers = join_all((0..3_000).map(|_| used_or_not(&store, "k"))).await;
    println!("3,000 calls were given up after {:?} where 200 ms is the most", began.elapsed());
    for answer in answers {
        // Where nobody answers for long the link is given up as well.
        assert!(matches!(answer, Err(StoreError::Timeout(_) | StoreError::Unlinked)), "{answer:?}");
    }
    server.resume();
    eventually("it counts again", || async { used_or_not(&store, "other").await.is_ok() }).await;
    drop(store);
    service.stop().await;
}

#[tokio::test]
async fn nobody_is_given_up_before_the_timeout() {
    for timeout in [Duration::from_millis(5), Duration::from_millis(120)] {
        for round in 0..5 {
            let (server, service) = (RedisServer::start(), Service::for_test("gathering"));
            let store = store(&server, &service, timeout).await;
            server.pause();
            // One after the other within the timeout: those that fly alone, and those that join a flight that waits.
            let calls = (0..12).map(|number| {
                let store = &store;
                async move {
                    tokio::time::sleep(timeout * number / 20).await;
                    let began = tokio::time::Instant::now();
                    (used_or_not(store, "k").await, began.elapsed())
                }
            });
            let mut given_up = 0;
            for (answer, waited) in join_all(calls).await {
                match answer {
                    Err(StoreError::Timeout(_)) => {
                        assert!(waited >= timeout, "{waited:?} of {timeout:?}, round {round}");
                        given_up += 1;
                    }
                    // The others came when the connection was given up.
                    other => assert!(matches!(other, Err(StoreError::Unlinked)), "{other:?}"),
                }
            }
            assert!(given_up > 0);
            drop(store);
            server.resume();
            service.stop().await;
        }
    }
}

async fn used_or_not(store: &RedisStore, key: &str) -> Result<u64, StoreError> {
    Ok(count(store, call(&[(key, fixed(Unit::Year), 1)])).await?[0].used)
}
