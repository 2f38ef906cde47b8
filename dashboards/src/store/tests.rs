//! The store as a whole: nothing lost, nothing twice, and the sums equal to what the records say.

use std::time::Duration;

use tollgate_proto::attributes as a;
use tollgate_proto::opentelemetry_proto::tonic::{
    collector::logs::v1::ExportLogsServiceRequest,
    common::v1::{AnyValue, KeyValue, any_value},
    logs::v1::{LogRecord, ResourceLogs, ScopeLogs},
    resource::v1::Resource,
};
use tollgate_runtime::clock::{Clock, ManualClock};

use super::*;
use crate::ingest::{Ingest, IngestLimits, OtlpRequest, replay};
use crate::query::{Ask, Filter, Range, fold, scan_sums, search, steps_over};

const DEADLINE: Duration = Duration::from_secs(30);
/// 2026-11-21T12:00:00Z.
const NOON: u64 = 1_795_262_400_000_000_000;

fn options(dir: &std::path::Path) -> StoreOptions {
    StoreOptions {
        dir: dir.to_owned(),
        durable: false,
        seal_records: 500,
        seal_after: Duration::from_secs(3600),
        keep_days: 2,
        max_bytes: u64::MAX,
        queue: 64,
    }
}

struct Fixture {
    service: Service,
    store: Store,
    ingest: Ingest,
    hand: ManualClock,
}

async fn open(options: StoreOptions) -> Fixture {
    let (clock, hand) = Clock::manual(NOON);
    let service = Service::for_test_at("dashboard", clock.clone());
    let metrics = Metrics::new(&service.telemetry().meter(), clock.clone());
    let store = Store::open(options, &service, metrics, replay).await.unwrap();
    let limits = IngestLimits { max_request_bytes: 1 << 22, max_inflight_bytes: 1 << 24, keep_days: 2 };
    let ingest = Ingest::new(store.clone(), clock, limits);
    Fixture { service, store, ingest, hand }
}

fn pair(key: &str, value: any_value::Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..Default::default() }
}

fn text(key: &str, value: &str) -> KeyValue {
    pair(key, any_value::Value::StringValue(value.to_owned()))
}

fn int(key: &str, value: i64) -> KeyValue {
    pair(key, any_value::Value::IntValue(value))
}

/// A gateway's and a sidecar's record of request `n`.
fn story(n: u64, at: u64) -> Vec<LogRecord> {
    let outcome = n % 7;
    let (reason, status) = match outcome {
        0 => ("scope_missing", 403),
        1 => ("limit_exceeded", 429),
        2 => ("upstream_status", 502),
        _ => ("ok", 200),
    };
    let record = |reporter: &str, security: &str| LogRecord {
        time_unix_nano: at,
        event_name: "tollgate.access".to_owned(),
        attributes: vec![
            text(a::TOLLGATE_REPORTER, reporter),
            text(a::TOLLGATE_REQUEST_ID, &uuid::Uuid::from_u128(u128::from(n)).to_string()),
            text(a::TOLLGATE_REASON, reason),
            text(a::TOLLGATE_DESTINATION_WORKLOAD, if n.is_multiple_of(3) { "quotes" } else { "policies" }),
            text(a::TOLLGATE_DESTINATION_VERSION, if n.is_multiple_of(10) { "1.1" } else { "1.0" }),
            text(a::TOLLGATE_CONNECTION_SECURITY_POLICY, security),
            text(a::HTTP_REQUEST_METHOD, "GET"),
            text(a::HTTP_ROUTE, "/x/{id}"),
            text(a::ENDUSER_ID, ["reader", "editor", "adjuster"][(n % 3) as usize]),
            int(a::HTTP_RESPONSE_STATUS_CODE, status),
            int(a::TOLLGATE_DURATION_US, (n % 977 + 1) as i64 * 100),
            int(a::TOLLGATE_AUTHZ_US, (n % 31) as i64 * 10),
            int(a::TOLLGATE_UPSTREAM_US, 5),
            int(a::TOLLGATE_AUTHZ_EPOCH, 411 + (n / 500) as i64),
        ],
        ..Default::default()
    };
    match outcome {
        0 | 1 => vec![record("gateway", "none")],
        _ => vec![record("gateway", "none"), record("destination", "mutual_tls")],
    }
}

fn request(records: Vec<LogRecord>) -> OtlpRequest {
    let resource = Resource { attributes: vec![text(a::SERVICE_NAME, "proxy")], ..Default::default() };
    let scope_logs = vec![ScopeLogs { log_records: records, ..Default::default() }];
    let resource_logs = vec![ResourceLogs { resource: Some(resource), scope_logs, ..Default::default() }];
    OtlpRequest::Logs(ExportLogsServiceRequest { resource_logs })
}

async fn send(fixture: &Fixture, from: u64, to: u64) -> u64 {
    let mut sent = 0;
    for start in (from..to).step_by(50) {
        let records: Vec<_> = (start..(start + 50).min(to))
            .flat_map(|n| story(n, NOON - 1_800_000_000_000 + n * 900_000_000))
            .collect();
        sent += records.len() as u64;
        let refused = fixture.ingest.accept(request(records), None).await.unwrap();
        assert_eq!(refused.records, 0, "{}", refused.message);
    }
    sent
}

const ALWAYS: Range = Range { from: i64::MIN, to: i64::MAX };

async fn all_seqs(store: &Store) -> Vec<i64> {
    let found = search(
        store,
        &Ask {
            kind: Kind::Access,
            range: ALWAYS,
            filter: &Filter::default(),
            before: None,
            limit: usize::MAX >> 8,
        },
        &[names::SEQ],
        |hit| hit.at.seq,
    )
    .await
    .unwrap();
    let mut seqs = found.rows;
    seqs.sort_unstable();
    seqs
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let reached = tokio::time::timeout(DEADLINE, async {
        while !holds().await {
            tokio::task::yield_now().await;
        }
    });
    assert!(reached.await.is_ok(), "{what}");
}

#[tokio::test(flavor = "multi_thread")]
async fn sums_equal_a_scan_whether_open_sealed_or_joined() {
    let dir = tempfile::tempdir().unwrap();
    let fixture = open(options(dir.path())).await;
    let sent = send(&fixture, 0, 1500).await;
    let range = Range { from: (NOON - 3_600_000_000_000) as i64, to: NOON as i64 };
    let (start, step, _) = steps_over(range, 120);
    for filter in ["", "reporter:gateway", "dest:quotes status:>=400"] {
        let filter = Filter::parse(filter).unwrap();
        let folded = fold(&fixture.store, range, &filter, start, step).await.unwrap();
        let scanned = scan_sums(&fixture.store, range, &filter, start, step).await.unwrap();
        assert_eq!(folded, scanned);
        assert!(!scanned.0.is_empty());
    }
    let seqs = all_seqs(&fixture.store).await;
    assert_eq!(seqs.len() as u64, sent);
    assert!(seqs.windows(2).all(|pair| pair[0] < pair[1]), "each record once");
    fixture.service.stop().await;

    // The same after a restart, when everything is on disk.
    let again = open(options(dir.path())).await;
    assert!(again.store.view().open.is_empty());
    let whole = Filter::default();
    let folded = fold(&again.store, range, &whole, start, step).await.unwrap();
    assert_eq!(folded, scan_sums(&again.store, range, &whole, start, step).await.unwrap());
    assert_eq!(all_seqs(&again.store).await, seqs);
    again.service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn small_blocks_are_joined_and_nothing_changes() {
    let dir = tempfile::tempdir().unwrap();
    let fixture = open(StoreOptions { seal_records: 40, ..options(dir.path()) }).await;
    let sent = send(&fixture, 0, 2000).await;
    until("blocks are joined", async || {
        let view = fixture.store.view();
        view.open.is_empty() && view.sealed.iter().any(|block| block.rows > 400)
    })
    .await;
    assert_eq!(all_seqs(&fixture.store).await.len() as u64, sent);
    let range = Range { from: (NOON - 3_600_000_000_000) as i64, to: NOON as i64 };
    let (start, step, _) = steps_over(range, 60);
    let folded = fold(&fixture.store, range, &Filter::default(), start, step).await.unwrap();
    assert_eq!(folded, scan_sums(&fixture.store, range, &Filter::default(), start, step).await.unwrap());
    fixture.service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn queries_see_each_record_once_while_ingest_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let fixture = open(StoreOptions { seal_records: 60, ..options(dir.path()) }).await;
    let reading = async {
        let mut last = 0;
        for _ in 0..60 {
            let seqs = all_seqs(&fixture.store).await;
            assert!(seqs.windows(2).all(|pair| pair[0] < pair[1]), "a record was seen twice");
            assert!(seqs.len() >= last, "a record vanished: {} after {last}", seqs.len());
            last = seqs.len();
        }
    };
    let (sent, ()) = tokio::join!(send(&fixture, 0, 3000), reading);
    assert_eq!(all_seqs(&fixture.store).await.len() as u64, sent);
    fixture.service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_follow_each_other_without_a_gap() {
    let dir = tempfile::tempdir().unwrap();
    let fixture = open(options(dir.path())).await;
    let sent = send(&fixture, 0, 600).await;
    let (mut before, mut seen) = (None, Vec::new());
    loop {
        let found = search(
            &fixture.store,
            &Ask { kind: Kind::Access, range: ALWAYS, filter: &Filter::default(), before, limit: 97 },
            &[names::SEQ],
            |hit| hit.at,
        )
        .await
        .unwrap();
        assert_eq!((found.matched, found.total), (sent, sent));
        seen.extend(found.rows);
        before = found.next;
        if before.is_none() {
            break;
        }
        // What arrives between two pages is newer than the cursor and does not move it.
        send(&fixture, 600, 600).await;
    }
    assert_eq!(seen.len() as u64, sent);
    assert!(seen.windows(2).all(|pair| pair[0] > pair[1]), "newest first");
    fixture.service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_attributes_are_kept_and_found() {
    let dir = tempfile::tempdir().unwrap();
    let fixture = open(StoreOptions { seal_records: 10, ..options(dir.path()) }).await;
    for batch in 0..10u64 {
        let records = (0..10u64)
            .map(|n| {
                let id = batch * 10 + n;
                let mut attributes: Vec<KeyValue> =
                    (0..80).map(|k| text(&format!("hostile.{id}.{k}"), &format!("v{id}-{k}"))).collect();
                attributes.push(text("@time", "mine"));
                attributes.push(text("@@attrs", "mine too"));
                attributes.push(text("", "no name"));
                attributes.push(text(&"long".repeat(200), "long name"));
                attributes.push(int(a::HTTP_RESPONSE_STATUS_CODE, 200));
                attributes.push(if id.is_multiple_of(2) { int("mixed", 7) } else { text("mixed", "seven") });
                LogRecord {
                    time_unix_nano: NOON - id,
                    event_name: "tollgate.access".to_owned(),
                    attributes,
                    ..Default::default()
                }
            })
            .collect();
        fixture.ingest.accept(request(records), None).await.unwrap();
    }
    until("everything is sealed", async || fixture.store.view().open.is_empty()).await;
    for block in fixture.store.view().sealed.iter() {
        let columns = fixture.store.columns(block, &[]).await.unwrap().unwrap();
        assert!(columns.len() <= MAX_COLUMNS_FOR_TEST, "{} columns", columns.len());
    }
    for (filter, expected) in [
        ("hostile.3.70:v3-70", 1),
        ("hostile.99.79:v99-79", 1),
        ("hostile.42.0:v42-*", 1),
        ("@time:mine", 100),
        ("mixed:7", 50),
        ("mixed:seven", 50),
        ("mixed:>=7", 50),
        (&format!("{}:\"long name\"", "long".repeat(200)), 100),
    ] {
        let filter = Filter::parse(filter).unwrap();
        assert_eq!(
            crate::query::count(&fixture.store, Kind::Access, ALWAYS, &filter).await.unwrap(),
            expected,
            "{filter:?}"
        );
    }
    let rows = search(
        &fixture.store,
        &Ask { kind: Kind::Access, range: ALWAYS, filter: &Filter::default(), before: None, limit: 1 },
        &[],
        |hit| hit.loaded.attributes(hit.row),
    )
    .await
    .unwrap()
    .rows;
    assert_eq!(rows[0]["hostile.0.79"], "v0-79");
    assert_eq!(rows[0]["@time"], "mine");
    assert_eq!(rows[0]["@@attrs"], "mine too");
    assert_eq!(rows[0]["mixed"], 7);
    fixture.service.stop().await;
}

/// 256 attributes and the columns that are ours.
const MAX_COLUMNS_FOR_TEST: usize = build::MAX_COLUMNS + 12;

#[tokio::test(flavor = "multi_thread")]
async fn old_days_are_deleted_and_times_out_of_reach_refused() {
    let dir = tempfile::tempdir().unwrap();
    let fixture = open(StoreOptions { seal_records: 5, ..options(dir.path()) }).await;
    let at = |time: u64| {
        let attributes = vec![int(a::HTTP_RESPONSE_STATUS_CODE, 200)];
        LogRecord {
            time_unix_nano: time,
            event_name: "tollgate.access".to_owned(),
            attributes,
            ..Default::default()
        }
    };
    const DAY: u64 = 86_400_000_000_000;
    let refused = fixture
        .ingest
        .accept(request(vec![at(NOON), at(NOON - 3 * DAY), at(NOON + DAY), at(0)]), None)
        .await
        .unwrap();
    assert_eq!(refused.records, 2);
    assert!(refused.message.contains("2 records are older than what is kept"), "{}", refused.message);
    assert_eq!(fixture.store.metrics().drops().get("time"), Some(&2));

    fixture.hand.advance(Duration::from_secs(4 * 86_400));
    fixture.ingest.accept(request(vec![at(NOON + 4 * DAY)]), None).await.unwrap();
    fixture.service.stop().await;
    drop(fixture);

    // Housekeeping runs when the writer starts.
    let (clock, _hand) = Clock::manual(NOON + 4 * DAY);
    let service = Service::for_test_at("dashboard", clock.clone());
    let metrics = Metrics::new(&service.telemetry().meter(), clock);
    let store = Store::open(options(dir.path()), &service, metrics, replay).await.unwrap();
    until("the old day is gone", async || all_seqs(&store).await.len() == 1).await;
    until("its file too", async || !dir.path().join("2026-11-21.db").exists()).await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_are_in_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let fixture = open(options(dir.path())).await;
    let mut record = story(3, NOON).remove(0);
    record.attributes.push(text("http.request.header.authorization", "Bearer s3cr3t-value"));
    record.attributes.push(text("cookie", "session=s3cr3t-value"));
    record.body = Some(AnyValue {
        value: Some(any_value::Value::StringValue("with Bearer s3cr3t-value inside".to_owned())),
    });
    fixture.ingest.accept(request(vec![record]), None).await.unwrap();
    let rows = search(
        &fixture.store,
        &Ask { kind: Kind::Access, range: ALWAYS, filter: &Filter::default(), before: None, limit: 1 },
        &[],
        |hit| format!("{:?} {}", hit.loaded.attributes(hit.row), hit.loaded.text(names::BODY, hit.row)),
    )
    .await
    .unwrap()
    .rows;
    assert!(rows[0].contains("[redacted]") && !rows[0].contains("s3cr3t"), "{}", rows[0]);
    let logged = fixture.store.0.files.all()[0].logged().await.unwrap();
    let bytes = unpack(&logged[0].request).unwrap();
    assert!(memchr::memmem::find(&bytes, b"s3cr3t").is_none());
    fixture.service.stop().await;
}
