//! One subject has 20 requests a second, whoever else is there.

use futures_util::future::join_all;
use http::StatusCode;
use tollgate_e2e::Demo;

#[tokio::test(flavor = "multi_thread")]
async fn of_sixty_at_once_twenty_to_forty_pass_and_the_rest_are_told_when_to_come_back() {
    let demo = Demo::start().await;
    let reader = demo.token("reader", &["policies:read"]);
    let editor = demo.token("editor", &["policies:read"]);

    let answers = join_all((0..60).map(|_| demo.get("/policies/POL-1", Some(&reader)))).await;
    let passed = answers.iter().filter(|a| a.status == StatusCode::OK).count();
    assert!((20..=40).contains(&passed), "{passed} passed");
    for refused in answers.iter().filter(|a| a.status != StatusCode::OK) {
        assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS);
        assert!(refused.header("retry-after").parse::<u64>().is_ok_and(|s| s >= 1), "{:?}", refused.headers);
        assert!(refused.header("x-ratelimit-limit").starts_with("20"), "{:?}", refused.headers);
        assert_eq!(refused.header("x-ratelimit-remaining"), "0");
        assert!(!refused.header("x-ratelimit-reset").is_empty());
        assert_eq!(refused.body["reason"], "limit_exceeded");
    }

    // Another subject's counter is its own.
    assert_eq!(demo.get("/policies/POL-1", Some(&editor)).await.status, StatusCode::OK);
    demo.stop().await;
}
