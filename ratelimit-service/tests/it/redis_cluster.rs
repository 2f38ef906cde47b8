//! A Redis Cluster of which a part is away: it takes its own domains along, and no other.

use std::time::Duration;

use futures_util::future::join_all;
use futures_util::{StreamExt as _, poll, stream};
use tollgate_ratelimit::counters::redis::{Target, Topology};
use tollgate_ratelimit::counters::{RedisStore, StoreError};
use tollgate_ratelimit::window::Unit;
use tollgate_runtime::Service;
use tollgate_runtime::config::Secret;
use tollgate_testkit::redis::RedisServer;

use crate::gathering::{call, count, fixed};
use crate::support::{PATIENCE, eventually};

/// Domains of each node that are asked for.
const DOMAINS: usize = 8;
/// Generous, so that a busy machine is not taken for a dead server.
const TIMEOUT: Duration = Duration::from_secs(1);

/// Two masters, domains of each, and a store that knows the first by its address.
struct Cluster {
    lower: RedisServer,
    upper: RedisServer,
    of_lower: Vec<String>,
    of_upper: Vec<String>,
    service: Service,
    store: RedisStore,
}

impl Cluster {
    async fn start(timeout: Duration) -> Self {
        let [lower, upper] = <[_; 2]>::try_from(RedisServer::start_cluster(2)).unwrap();
        let client = redis::Client::open(lower.url()).unwrap();
        let connection = client.get_multiplexed_async_connection().await.unwrap();
        let (mut of_lower, mut of_upper) = (Vec::new(), Vec::new());
        let mut names = stream::iter(0..).map(|number| format!("{{domain-{number}}}:key"));
        while of_lower.len() < DOMAINS || of_upper.len() < DOMAINS {
            let name = names.next().await.unwrap();
            let slot = redis::cmd("CLUSTER").arg("KEYSLOT").arg(&name).clone();
            let slot: u16 = slot.query_async(&mut connection.clone()).await.unwrap();
            if slot < 8_192 { &mut of_lower } else { &mut of_upper }.push(name);
        }
        let service = Service::for_test("cluster");
        let target = Target { topology: Topology::Cluster, ..Target::single(Secret::new(lower.url())) };
        let store = RedisStore::start(target, "", timeout, service.tasks());
        store.linked().await;
        let cluster = Self { lower, upper, of_lower, of_upper, service, store };
        // Each node knows the script from now on.
        for name in [&cluster.of_lower[0], &cluster.of_upper[0]] {
            eventually("each node counts", || async { cluster.used(name).await.is_ok() }).await;
        }
        cluster
    }

    async fn used(&self, name: &str) -> Result<u64, StoreError> {
        Ok(count(&self.store, call(&[(name, fixed(Unit::Year), 1)])).await?[0].used)
    }

    /// One of the silent node is refused at once; all the while those of the other node are counted.
    async fn until_it_rests(&self, silent: &str, other: &str) {
        eventually("it is refused at once", || async {
            let (silent, other) = tokio::join!(self.used(silent), self.used(other));
            assert!(other.is_ok(), "{other:?}");
            let refused = matches!(silent, Err(StoreError::Unlinked));
            assert!(refused || matches!(silent, Err(StoreError::Timeout(_))), "{silent:?}");
            refused
        })
        .await;
    }

    async fn stop(self) {
        drop(self.store);
        self.service.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_on_its_way_to_a_silent_node_holds_up_nobody_elses_calls() {
    let cluster = Cluster::start(PATIENCE).await;
    cluster.upper.pause();
    let mut silent = Box::pin(join_all(cluster.of_upper.iter().map(|name| cluster.used(name))));
    assert!(poll!(&mut silent).is_pending());
    for _ in 0..20 {
        for answer in join_all(cluster.of_lower.iter().map(|name| cluster.used(name))).await {
            answer.unwrap();
        }
    }
    assert!(poll!(&mut silent).is_pending());
    cluster.upper.resume();
    assert!(silent.await.iter().all(Result::is_ok));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_stays_silent_takes_no_other_along() {
    let cluster = Cluster::start(TIMEOUT).await;
    cluster.upper.pause();
    // Again and again: it is asked from time to time, and a new connection to all of them is tried.
    for silent in &cluster.of_upper[..2] {
        cluster.until_it_rests(silent, &cluster.of_lower[0]).await;
    }
    cluster.upper.resume();
    for name in &cluster.of_upper {
        eventually("it counts again", || async { cluster.used(name).await.is_ok() }).await;
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_counts_in_place_of_a_silent_master() {
    let cluster = Cluster::start(TIMEOUT).await;
    let replica = RedisServer::start_cluster_replica(&cluster.upper);
    cluster.lower.say_until("CLUSTER NODES", " slave ");
    cluster.upper.pause();
    let (silent, other) = (&cluster.of_upper[0], &cluster.of_lower[0]);
    cluster.until_it_rests(silent, other).await;
    replica.say("CLUSTER FAILOVER TAKEOVER", "+OK");
    eventually("the replica counts", || async {
        assert!(cluster.used(other).await.is_ok());
        cluster.used(silent).await.is_ok()
    })
    .await;
    cluster.stop().await;
}
