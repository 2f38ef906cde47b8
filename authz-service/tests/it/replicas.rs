//! Two services on one PostgreSQL: what one writes is in force in the other, whatever becomes of notifications and of
//! the server.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;
use tollgate_authz::policy::object::Document;
use tollgate_testkit::postgres::PostgresServer;

use crate::running::{Ask, Running, demo_documents, demo_issuer};

const WRITES: usize = 20;
const DEADLINE: Duration = Duration::from_secs(30);

fn service(name: &str) -> Document {
    let service =
        json!({"kind": "Service", "namespace": "a", "name": name, "hosts": [format!("{name}.example")]});
    serde_json::from_value(service).unwrap()
}

async fn two_on(url: &str) -> (Running, Running) {
    let one = Running::on(TempDir::new().unwrap(), url, |_| {}).await;
    (one, Running::on(TempDir::new().unwrap(), url, |_| {}).await)
}

async fn by_hand(url: &str, statements: &[&str]) {
    let pool = sqlx::PgPool::connect(url).await.unwrap();
    let mut tx = pool.begin().await.unwrap();
    for sql in statements {
        sqlx::query(sqlx::AssertSqlSafe((*sql).to_owned())).execute(&mut *tx).await.unwrap();
    }
    tx.commit().await.unwrap();
    pool.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_writes_is_in_force_in_the_other() {
    let server = PostgresServer::start();
    let url = server.create_database("policy");
    let (one, two) = two_on(&url).await;
    let mut took = Vec::new();
    for n in 0..WRITES {
        let started = Instant::now();
        one.apply(vec![service(&format!("s{n}"))]).await;
        two.in_force(n as u64 + 1).await;
        took.push(started.elapsed());
        assert!(two.cell.load().service_of_host(&format!("s{n}.example")).is_some());
    }
    took.sort();
    println!("written here, in force there: median {:?}, worst {:?}", took[WRITES / 2], took[WRITES - 1]);
    // A change that nobody announces arrives too, and so does what comes after the listeners were cut off.
    by_hand(
        &url,
        &[
            "UPDATE epoch SET n = n + 1",
            "INSERT INTO changes (epoch, position, at, author, reason, kind, namespace, name)
                SELECT n, 0, 0, 'hand', '', 'Service', 'a', 's0' FROM epoch",
            "UPDATE services SET hosts = '[\"moved.example\"]' WHERE name = 's0'",
        ],
    )
    .await;
    two.in_force(WRITES as u64 + 1).await;
    assert!(two.cell.load().service_of_host("moved.example").is_some());
    let cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'";
    by_hand(&url, &[cut]).await;
    one.apply(vec![service("late")]).await;
    two.in_force(WRITES as u64 + 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn decisions_go_on_while_the_database_is_away() {
    let mut server = PostgresServer::start();
    let (one, two) = two_on(&server.create_database("policy")).await;
    // Whoever started last has the one-use token that counts.
    let root = two.administrator("root").await;
    let mut documents = demo_documents();
    documents.push(demo_issuer(&two.signer));
    one.apply(documents).await;
    two.in_force(one.cell.load().epoch).await;
    let ask = Ask::new("GET", "/policies/1").bearer(&two.token("reader", "policies:read"));
    assert_eq!(two.check(&ask).await.status(), 200);

    server.kill();
    assert_eq!(two.check(&ask).await.status(), 200);
    let put = |body: Value| {
        let request = one.http.put(one.url("/v1/namespaces/insurance/services/late")).bearer_auth(&root);
        request.json(&body).send()
    };
    let refused = put(json!({})).await.unwrap();
    assert_eq!(
        (refused.status().as_u16(), refused.headers()["content-type"].to_str().unwrap()),
        (503, "application/problem+json")
    );
    assert!(refused.headers().contains_key("retry-after"));
    let problem: Value = refused.json().await.unwrap();
    assert_eq!(problem["reason"], "store_failed");
    assert_eq!(two.check(&ask).await.status(), 200, "and decisions still go on");

    server.restart();
    let written = async {
        while !put(json!({})).await.is_ok_and(|answer| answer.status().is_success()) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, written).await.expect("writes work again by themselves");
    two.in_force(one.cell.load().epoch).await;
    assert!(two.cell.load().service("insurance/late").is_some());
}
