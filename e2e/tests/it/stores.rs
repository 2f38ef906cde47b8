//! The same demo on a real PostgreSQL and a real Redis: one variable each.

use futures_util::future::join_all;
use http::StatusCode;
use tollgate_e2e::Demo;
use tollgate_runtime::config::Env;
use tollgate_testkit::postgres::PostgresServer;
use tollgate_testkit::redis::RedisServer;

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_runs_on_postgresql_and_redis() {
    let postgres = PostgresServer::start();
    let redis = RedisServer::start();
    let env = Env::of([("TOLLGATE_DATABASE_URL", postgres.url()), ("TOLLGATE_REDIS_URL", redis.url())]);
    let demo = Demo::start_with(env).await;

    let reader = demo.token("reader", &["policies:read"]);
    assert_eq!(demo.get("/policies/POL-1", None).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(
        demo.get("/policies/POL-1", Some(&demo.token("outsider", &["policies:read"]))).await.status,
        StatusCode::FORBIDDEN
    );
    let answers = join_all((0..60).map(|_| demo.get("/policies/POL-1", Some(&reader)))).await;
    let passed = answers.iter().filter(|a| a.status == StatusCode::OK).count();
    let limited = answers.iter().filter(|a| a.status == StatusCode::TOO_MANY_REQUESTS).count();
    assert!((20..=40).contains(&passed) && passed + limited == 60, "{passed} passed, {limited} limited");
    assert!(!demo.data().join("authz.db").exists(), "the policy lives in PostgreSQL");
    demo.stop().await;
}
