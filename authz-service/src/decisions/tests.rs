//! Bounds hold, refusals stay, and what is shown is what was kept.

use tollgate_proto::Reason;
use uuid::Uuid;

use super::{Bounds, Decisions, Filter, Hasher, Kept, MAX_RECORD_BYTES, Room, SHARDS, TokenSeen};
use crate::facts::Entry;
use crate::policy::Verdict;
use crate::policy::footprint::Parts;

fn room(entries: usize, bytes: usize) -> Room {
    Room { entries: entries * SHARDS, bytes: bytes * SHARDS }
}

fn decisions(allows: Room, refusals: Room) -> Decisions {
    Decisions::new(Bounds { allows, refusals })
}

fn keep(decisions: &Decisions, verdict: Verdict, request_id: &str, path: &str) -> Uuid {
    let id = Uuid::now_v7();
    let kept = Kept {
        id,
        at_millis: 7,
        epoch: 3,
        verdict,
        reason: if verdict == Verdict::Allow { Reason::Ok } else { Reason::RoleMissing },
        forgiven: None,
        read: Parts::METHOD.and(Parts::PATH),
        names: Vec::new(),
        expires: None,
        request_id,
        service: "shop/orders",
        entry: Entry::Outside,
        peer: "",
        method: "GET",
        host: "orders.shop",
        path,
        rule: "default-deny",
        missing: &["role:reader".to_owned()],
        explanation: "somebody holds no role",
        token: TokenSeen { state: "absent", token: None, detail: "" },
    };
    decisions.keep(id, verdict, |record, hasher| record.write(&kept, [("x-env", "secret")], hasher));
    id
}

#[test]
fn what_is_kept_is_found_by_its_id_and_by_its_requests() {
    let decisions = decisions(room(10, 1 << 20), room(10, 1 << 20));
    let id = keep(&decisions, Verdict::Deny, "r-1", "/orders/1");
    keep(&decisions, Verdict::Allow, "r-2", "/orders/2");
    let shown = decisions.find(id).unwrap().shown();
    assert_eq!((shown.id, shown.request_id.as_deref()), (id.to_string(), Some("r-1")));
    assert_eq!((shown.method.as_str(), shown.path.as_str()), ("GET", "/orders/1"));
    assert_eq!(shown.missing, ["role:reader"]);
    assert_eq!(shown.read, ["method", "path"]);
    assert!(shown.peer.is_none() && shown.token.scopes.is_empty());
    let hash = shown.hashed[0].strip_prefix("x-env=").unwrap();
    assert!(hash.len() == 16 && !shown.hashed[0].contains("secret"));
    let filter = Filter { request_id: Some("r-1".to_owned()), ..Filter::default() };
    assert_eq!(decisions.list(&filter, None, 10).iter().map(super::Record::id).collect::<Vec<_>>(), [id]);
    assert!(decisions.find(Uuid::now_v7()).is_none());
}

#[test]
fn filters_are_conjunctions() {
    let decisions = decisions(room(10, 1 << 20), room(10, 1 << 20));
    keep(&decisions, Verdict::Deny, "r-1", "/a");
    keep(&decisions, Verdict::Allow, "r-1", "/a");
    let count = |filter: Filter| decisions.list(&filter, None, 10).len();
    let text = |text: &str| Some(text.to_owned());
    for (filter, expected) in [
        (Filter::default(), 2),
        (Filter { verdict: Some(Verdict::Deny), ..Filter::default() }, 1),
        (Filter { reason: Some(Reason::Ok), ..Filter::default() }, 1),
        (Filter { reason: Some(Reason::Ok), verdict: Some(Verdict::Deny), ..Filter::default() }, 0),
        (Filter { service: text("shop/orders"), ..Filter::default() }, 2),
        (Filter { service: text("orders"), ..Filter::default() }, 2),
        (Filter { service: text("shop"), ..Filter::default() }, 0),
        (Filter { subject: text("alice"), ..Filter::default() }, 0),
        (Filter { peer: text("spiffe://a/b"), ..Filter::default() }, 0),
    ] {
        assert_eq!(count(filter.clone()), expected, "{filter:?}");
    }
}

#[test]
fn pages_follow_each_other_without_a_gap() {
    let decisions = decisions(room(100, 1 << 20), room(100, 1 << 20));
    let mut ids: Vec<Uuid> = (0..50)
        .map(|n| keep(&decisions, if n % 3 == 0 { Verdict::Deny } else { Verdict::Allow }, "r", "/"))
        .collect();
    ids.reverse();
    let mut seen = Vec::new();
    let mut before = None;
    loop {
        let page = decisions.list(&Filter::default(), before, 7);
        let Some(last) = page.last() else { break };
        before = Some(last.id());
        seen.extend(page.iter().map(super::Record::id));
    }
    assert_eq!(seen, ids);
}

#[test]
fn a_flood_of_allows_pushes_no_refusal_out() {
    let decisions = decisions(room(4, 1 << 20), room(4, 1 << 20));
    let refused = keep(&decisions, Verdict::Deny, "r-1", "/");
    for _ in 0..10_000 {
        keep(&decisions, Verdict::Allow, "r-2", "/");
    }
    assert!(decisions.find(refused).is_some());
    assert!(decisions.held().0 <= 4 * SHARDS + 1);
}

#[test]
fn memory_is_bounded_by_entries_and_by_bytes() {
    let long = "/x".repeat(100_000);
    let decisions = decisions(room(1_000_000, 64 << 10), room(3, 64 << 10));
    for _ in 0..20_000 {
        keep(&decisions, Verdict::Allow, &long, &long);
        keep(&decisions, Verdict::Deny, &long, &long);
    }
    let (entries, bytes) = decisions.held();
    assert!(bytes <= 2 * (64 << 10) * SHARDS, "{bytes}");
    assert!(entries > 3 * SHARDS, "{entries}");
    let newest = decisions.list(&Filter::default(), None, 1).remove(0);
    assert!(newest.bytes() <= MAX_RECORD_BYTES);
    assert_eq!(newest.shown().path.len(), 1024);
}

#[test]
fn nothing_is_kept_where_there_is_no_room() {
    let decisions = decisions(room(0, 0), room(1, 1));
    keep(&decisions, Verdict::Allow, "r", "/");
    keep(&decisions, Verdict::Deny, "r", "/");
    assert_eq!(decisions.held().0, 0);
}

#[test]
fn equal_values_have_equal_hashes_under_one_key_only() {
    let (one, other) = (Hasher::default(), Hasher::default());
    assert_eq!(one.hash("a"), one.hash("a"));
    assert_ne!(one.hash("a"), one.hash("b"));
    assert_ne!(one.hash("a"), other.hash("a"));
}
