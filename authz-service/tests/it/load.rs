//! How the policy comes out of the database: by steps while the history tells them, whole otherwise, and never by
//! halves.

use serde_json::{Value, json};
use sqlx::sqlite::SqliteConnectOptions;
use tempfile::TempDir;
use tollgate_authz::policy::object::{Document, Kind, ObjectId};
use tollgate_authz::{App, Config, Store};
use tollgate_runtime::Service;
use tollgate_runtime::clock::Clock;
use tollgate_runtime::config::Secret;
use tollgate_testkit::fake_collector::wait_for;

use crate::running::{Ask, Running};

fn document(value: Value) -> Document {
    serde_json::from_value(value).unwrap()
}

/// Does to the database what only somebody with a shell can.
async fn by_hand(folder: &TempDir, statements: &[&str]) {
    let file = folder.path().join("authz.db");
    let options = SqliteConnectOptions::new().filename(file).foreign_keys(false);
    let pool = sqlx::SqlitePool::connect_with(options).await.unwrap();
    let mut tx = pool.begin().await.unwrap();
    for sql in statements {
        sqlx::query(sqlx::AssertSqlSafe((*sql).to_owned())).execute(&mut *tx).await.unwrap();
    }
    tx.commit().await.unwrap();
    pool.close().await;
}

/// Returns once a first attempt to read the policy was given up.
async fn reading_failed(mesh: &Running) {
    let counted =
        || mesh.service.telemetry().render_metrics().unwrap().contains("tollgate_policy_reload_failures");
    wait_for(|| counted().then_some(())).await.expect("the failure was not counted in time");
}

const BREAK_A_SERVICE: &str = "UPDATE services SET callers = '[\"nonsense\"]' WHERE name = 'policies'";

#[tokio::test]
async fn a_change_is_applied_without_reading_what_it_does_not_touch() {
    let mesh = Running::demo().await;
    let token = mesh.token("reader", "policies:read");
    let ask = Ask::new("GET", "/policies/1").bearer(&token);
    assert_eq!(mesh.check(&ask).await.status(), 200);
    // Reading the whole would stumble over this row.
    by_hand(&mesh.folder, &[BREAK_A_SERVICE]).await;
    let elsewhere = json!({"kind": "Service", "namespace": "other", "name": "s", "hosts": ["new.example"]});
    mesh.apply(vec![document(elsewhere)]).await;
    assert!(mesh.cell.load().service_of_host("new.example").is_some());
    assert_eq!(mesh.check(&ask).await.status(), 200);
    // A role loses its permission, and with it everybody who held it by this role or one that includes it.
    let empty = json!({"kind": "Role", "namespace": "insurance", "name": "policy-reader"});
    mesh.apply(vec![document(empty)]).await;
    assert_eq!(mesh.check(&ask).await.status(), 403);
}

#[tokio::test]
async fn a_history_with_a_gap_is_made_up_for_by_reading_all() {
    let mesh = Running::demo().await;
    let ask = Ask::new("GET", "/policies/1").bearer(&mesh.token("reader", "policies:read"));
    assert_eq!(mesh.check(&ask).await.status(), 200);
    by_hand(
        &mesh.folder,
        &["DELETE FROM bindings WHERE name = 'reader-reads'", "UPDATE epoch SET n = n + 1"],
    )
    .await;
    mesh.in_force(2).await;
    assert_eq!(mesh.check(&ask).await.status(), 403);
}

#[tokio::test]
async fn a_whole_that_cannot_be_used_leaves_the_old_policy_whole() {
    for break_it in [
        "UPDATE permissions SET paths = '[\"/policies/{\"]'",
        "UPDATE bindings SET role = 'gone'",
        "UPDATE roles SET includes = 'nonsense'",
    ] {
        let mesh = Running::demo().await;
        let ask = Ask::new("GET", "/policies/1").bearer(&mesh.token("reader", "policies:read"));
        assert_eq!(mesh.check(&ask).await.status(), 200);
        by_hand(&mesh.folder, &[break_it, "UPDATE epoch SET n = n + 1"]).await;
        reading_failed(&mesh).await;
        assert_eq!((mesh.check(&ask).await.status(), mesh.cell.load().epoch), (200, 1), "{break_it}");
    }
}

#[tokio::test]
async fn a_step_that_cannot_be_used_leaves_the_old_policy_whole() {
    let mesh = Running::demo().await;
    let ask = Ask::new("GET", "/policies/1").bearer(&mesh.token("reader", "policies:read"));
    let id = ObjectId::new(Kind::Service, "insurance", "policies");
    let good = mesh.store.get(&id).await.unwrap().unwrap().document;
    by_hand(
        &mesh.folder,
        &[
            "UPDATE epoch SET n = n + 1",
            "DELETE FROM bindings WHERE name = 'reader-reads'",
            BREAK_A_SERVICE,
            "INSERT INTO changes (epoch, position, at, author, reason, kind, namespace, name) VALUES
                (2, 0, 0, '', '', 'Binding', 'insurance', 'reader-reads'), (2, 1, 0, '', '', 'Service', 'insurance', 'policies')",
        ],
    )
    .await;
    reading_failed(&mesh).await;
    assert_eq!((mesh.check(&ask).await.status(), mesh.cell.load().epoch), (200, 1));
    // Once it is mended, all of it comes into force.
    mesh.apply(vec![good]).await;
    assert_eq!((mesh.check(&ask).await.status(), mesh.cell.load().epoch), (403, 3));
}

/// Starts on the database of a service that was stopped.
async fn start_again(folder: &TempDir) -> anyhow::Result<App> {
    let mut config = Config::default();
    config.listen.grpc = ([127, 0, 0, 1], 0).into();
    config.listen.http = ([127, 0, 0, 1], 0).into();
    config.database.url = Secret::new(format!("sqlite://{}", folder.path().join("authz.db").display()));
    config.bootstrap.token_file = folder.path().join("bootstrap-admin.token");
    App::build(config, Service::for_test("authz")).await
}

#[tokio::test]
async fn a_start_leaves_out_what_can_only_grant() {
    let folder = Running::demo().await.stop().await;
    by_hand(
        &folder,
        &[
            "UPDATE permissions SET paths = '[\"/policies/{\"]' WHERE role = 'policy-editor'",
            "UPDATE bindings SET who = 'nonsense' WHERE name = 'reader-reads'",
        ],
    )
    .await;
    let app = start_again(&folder).await.unwrap();
    let snapshot = app.snapshots().load_full();
    assert_eq!(snapshot.epoch, 1);
    assert!(snapshot.service("insurance/policies").is_some());
}

#[tokio::test]
async fn a_start_without_what_denies_is_refused() {
    let folder = Running::demo().await.stop().await;
    by_hand(&folder, &[BREAK_A_SERVICE]).await;
    let error = format!("{:#}", start_again(&folder).await.unwrap_err());
    assert!(error.contains("Service insurance/policies: callers[0]"), "{error}");
    by_hand(&folder, &["UPDATE services SET callers = 'nonsense' WHERE name = 'policies'"]).await;
    let error = format!("{:#}", start_again(&folder).await.unwrap_err());
    assert!(error.contains("Service insurance/policies: callers"), "{error}");
}

#[tokio::test]
async fn many_bindings_are_read_in_pages() {
    let folder = TempDir::new().unwrap();
    let url = Secret::new(format!("sqlite://{}", folder.path().join("authz.db").display()));
    let store = Store::open(&url, Clock::system()).await.unwrap();
    let role = document(json!({"kind": "Role", "namespace": "a", "name": "r"}));
    let by = tollgate_authz::store::Authorship::new("test", "set up");
    store.apply(vec![role], by, false, false).await.unwrap();
    let many = "WITH RECURSIVE count(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM count WHERE n < 20001)
        INSERT INTO bindings (namespace, name, role, who, epoch)
        SELECT 'a', 'b' || n, 'r', '{\"issuer\":\"i\",\"subject\":\"u' || n || '\"}', 1 FROM count";
    by_hand(&folder, &[many]).await;
    let (snapshot, left_out) = tollgate_authz::store::load::first_snapshot(&store).await.unwrap();
    assert_eq!((snapshot.binding_count(), left_out.len()), (20_001, 0));
}
