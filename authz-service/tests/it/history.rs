//! The history, earlier states of the policy, and writes that are asked for twice: on SQLite and on PostgreSQL.

use serde_json::json;
use tempfile::TempDir;
use tollgate_authz::policy::object::{Document, Kind, ObjectId, PolicySet};
use tollgate_authz::store::{
    Applied, Authorship, Change, ChangeFilter, Guard, IdempotencyKey, Operation, Store, StoreError, Write,
};
use tollgate_runtime::clock::{Clock, ManualClock};
use tollgate_runtime::config::Secret;
use tollgate_testkit::postgres::PostgresServer;

const START_NANOS: u64 = 1_800_000_000_000_000_000;

async fn open(url: &str) -> (Store, ManualClock) {
    let (clock, hand) = Clock::manual(START_NANOS);
    (Store::open(&Secret::new(url), clock).await.unwrap(), hand)
}

fn service(name: &str, audience: &str) -> Document {
    let value = json!({"kind": "Service", "namespace": "a", "name": name, "audiences": [audience]});
    serde_json::from_value(value).unwrap()
}

fn id(name: &str) -> ObjectId {
    ObjectId::new(Kind::Service, "a", name)
}

fn write(operation: Operation, key: Option<(&str, &str, &str)>) -> Write {
    Write {
        operations: vec![operation],
        prune: false,
        dry_run: false,
        expected: None,
        base: None,
        by: Authorship::new("test/me", "because"),
        key: key.map(|(caller, key, fingerprint)| IdempotencyKey {
            caller: caller.to_owned(),
            key: key.to_owned(),
            fingerprint: fingerprint.to_owned(),
        }),
    }
}

async fn put(store: &Store, name: &str, audience: &str) -> Applied {
    store.write(write(Operation::put(service(name, audience)), None)).await.unwrap()
}

async fn every_earlier_state_can_be_read_again(url: &str) {
    let (store, _) = open(url).await;
    put(&store, "s", "one").await;
    put(&store, "t", "one").await;
    put(&store, "s", "two").await;
    store.write(write(Operation::Delete(id("s")), None)).await.unwrap();
    for (epoch, expected) in [
        (0, vec![]),
        (1, vec![service("s", "one")]),
        (2, vec![service("s", "one"), service("t", "one")]),
        (3, vec![service("s", "two"), service("t", "one")]),
        (4, vec![service("t", "one")]),
    ] {
        let (set, now) = store.policy_at(epoch).await.unwrap();
        assert_eq!((set.into_values().collect::<Vec<_>>(), now), (expected, 4), "epoch {epoch}");
    }
    assert!(matches!(store.policy_at(5).await, Err(StoreError::NoSuchEpoch { asked: 5, newest: 4 })));
}

async fn an_object_has_a_history_of_its_own(url: &str) {
    let (store, _) = open(url).await;
    for n in 0..4 {
        put(&store, "s", &format!("v{n}")).await;
        put(&store, "t", &format!("v{n}")).await;
    }
    let epochs = async |filter: &ChangeFilter, cursor| -> Vec<u64> {
        store.changes_of(filter, cursor, 3).await.unwrap().iter().map(|row| row.epoch).collect()
    };
    let of_s = ChangeFilter::of(&id("s"));
    assert_eq!(epochs(&of_s, None).await, [7, 5, 3]);
    assert_eq!(epochs(&of_s, Some((3, 0))).await, [1]);
    assert_eq!(epochs(&ChangeFilter::of(&id("u")), None).await, [0; 0]);
    let of_namespace = ChangeFilter { namespace: "a".to_owned(), ..ChangeFilter::default() };
    assert_eq!(epochs(&of_namespace, None).await, [8, 7, 6]);
    let by_nobody = ChangeFilter { author: "test/you".to_owned(), ..ChangeFilter::default() };
    assert!(epochs(&by_nobody, None).await.is_empty());
}

async fn asking_twice_writes_once(url: &str) {
    let (store, hand) = open(url).await;
    let key = Some(("me", "k-1", "print"));
    let wanted = || write(Operation::put(service("s", "one")), key);
    let first = store.write(wanted()).await.unwrap();
    assert!(!first.replayed);
    // Somebody else changes it; the retry of the first request must not change it back.
    put(&store, "s", "two").await;
    let again = store.write(wanted()).await.unwrap();
    assert_eq!((again.epoch, &again.changes, again.replayed), (first.epoch, &first.changes, true));
    assert_eq!(store.epoch().await.unwrap(), 2);
    // One key for two things is a mistake; another caller's key is another key.
    let other = write(Operation::put(service("s", "one")), Some(("me", "k-1", "other print")));
    assert!(matches!(store.write(other).await, Err(StoreError::KeyReused)));
    let yours = write(Operation::put(service("s", "three")), Some(("you", "k-1", "print")));
    assert!(!store.write(yours).await.unwrap().replayed);
    // A write that changed nothing is one too.
    let same = || write(Operation::put(service("s", "three")), Some(("me", "k-2", "print")));
    let nothing = store.write(same()).await.unwrap();
    assert!(nothing.changes.is_empty() && nothing.epoch == 3 && !nothing.replayed);
    put(&store, "s", "four").await;
    let nothing = store.write(same()).await.unwrap();
    assert!(nothing.changes.is_empty() && nothing.epoch == 3 && nothing.replayed);
    assert_eq!(store.epoch().await.unwrap(), 4);
    // Keys are forgotten after a day.
    hand.advance(std::time::Duration::from_secs(24 * 3600));
    assert!(!store.write(wanted()).await.unwrap().replayed);
}

async fn of_two_at_once_one_writes(url: &str) {
    let (store, _) = open(url).await;
    let tries = (0..8).map(|_| {
        let store = store.clone();
        async move {
            store.write(write(Operation::put(service("s", "one")), Some(("me", "k", "p")))).await.unwrap()
        }
    });
    let done = futures_util::future::join_all(tries).await;
    assert_eq!(done.iter().filter(|applied| !applied.replayed).count(), 1);
    assert!(done.iter().all(|applied| applied.epoch == 1 && applied.changes.len() == 1));
    assert_eq!(store.epoch().await.unwrap(), 1);
}

macro_rules! contract {
    ($($name:ident,)*) => {
        mod sqlite {
            use super::*;
            $(
                #[tokio::test]
                async fn $name() {
                    let folder = TempDir::new().unwrap();
                    super::$name(&format!("sqlite://{}", folder.path().join("a.db").display())).await;
                }
            )*
        }

        #[tokio::test]
        async fn postgres() {
            let server = PostgresServer::start();
            $(
                $name(&server.create_database(stringify!($name))).await;
            )*
        }
    };
}

/// Judges by an epoch, and says yes to what it is asked about.
struct AsOf(u64);

impl Guard for AsOf {
    type Refusal = ();

    fn judges_by(&self) -> Option<u64> {
        Some(self.0)
    }

    fn wants(&self, _: &[Change]) -> Vec<String> {
        Vec::new()
    }

    fn judge(&self, _: &[Change], _: &PolicySet) -> Result<(), ()> {
        Ok(())
    }
}

async fn nothing_is_judged_by_rights_that_were_changed_since(url: &str) {
    let (store, _) = open(url).await;
    let wanted = |audience: &str, key| write(Operation::put(service("s", audience)), key);
    put(&store, "s", "one").await;
    put(&store, "t", "one").await;
    // What an application may changes nothing about who may change it.
    assert!(store.write_if(wanted("two", None), &AsOf(1)).await.unwrap().is_ok());
    let system = json!({"kind": "Role", "namespace": "tollgate-system", "name": "r"});
    let revocation = json!({"kind": "Revocation", "name": "r", "workload": "spiffe://d/x", "until": "2100-01-01T00:00:00Z"});
    for (epoch, governing) in [(3, system), (4, revocation)] {
        let by = Authorship::new("test", "");
        store.apply(vec![serde_json::from_value(governing).unwrap()], by, false, false).await.unwrap();
        let key = Some(("me", "k", "print"));
        for wanted in [wanted("three", None), wanted("three", key)] {
            let late = store.write_if(wanted, &AsOf(epoch)).await;
            let expected = epoch + 1;
            assert!(
                matches!(late, Err(StoreError::Overtaken { judged, found }) if judged == epoch && found == expected),
                "{late:?}"
            );
        }
    }
    assert!(store.write_if(wanted("three", None), &AsOf(5)).await.unwrap().is_ok());
    assert_eq!(store.epoch().await.unwrap(), 6);
}

contract!(
    every_earlier_state_can_be_read_again,
    an_object_has_a_history_of_its_own,
    asking_twice_writes_once,
    of_two_at_once_one_writes,
    nothing_is_judged_by_rights_that_were_changed_since,
);
