//! Pages of another origin: leave is given at the ingress, and every refusal of the services behind can be read.

use futures_util::future::join_all;
use http::Method;
use tollgate_e2e::{Answer, Demo};
use tollgate_runtime::config::Env;

const PAGE: &str = "https://portal.test";

#[tokio::test(flavor = "multi_thread")]
async fn a_page_may_ask_and_read_why_it_was_refused() {
    let cors = format!(
        "ingress.routes.1.cors={{allow_origins: ['{PAGE}'], allow_headers: [authorization], expose_headers: [retry-after]}}"
    );
    let demo = Demo::start_as(Env::empty(), &[&cors]).await;
    let send = async |method: Method, origin: &str, token: Option<&str>| {
        let headers = [("origin", origin), ("access-control-request-method", "GET")];
        demo.send_with(
            method.clone(),
            "/policies/POL-1",
            token,
            &headers[..if method == Method::GET { 1 } else { 2 }],
        )
        .await
    };
    let origin = |answer: &Answer| answer.header("access-control-allow-origin").to_owned();

    // A browser asks without a token.
    let preflight = send(Method::OPTIONS, PAGE, None).await;
    assert_eq!((preflight.status.as_u16(), origin(&preflight).as_str()), (204, PAGE));
    assert_eq!(preflight.header("access-control-allow-headers"), "authorization");
    let stranger = send(Method::OPTIONS, "https://elsewhere.test", None).await;
    assert_eq!((stranger.status.as_u16(), origin(&stranger).as_str()), (204, ""));

    let (reader, outsider) =
        (demo.token("reader", &["policies:read"]), demo.token("outsider", &["policies:read"]));
    for (token, status) in [(Some(&reader), 200), (Some(&outsider), 403), (None, 401)] {
        let answer = send(Method::GET, PAGE, token.map(String::as_str)).await;
        assert_eq!((answer.status.as_u16(), origin(&answer).as_str()), (status, PAGE));
        assert_eq!(answer.header("access-control-expose-headers"), "retry-after", "{status}");
    }
    let many = join_all((0..60).map(|_| send(Method::GET, PAGE, Some(&reader)))).await;
    let limited: Vec<_> = many.iter().filter(|answer| answer.status == 429).collect();
    assert!(!limited.is_empty());
    for answer in limited {
        assert_eq!(origin(answer), PAGE);
        assert!(!answer.header("retry-after").is_empty());
    }
    let stranger = send(Method::GET, "https://elsewhere.test", Some(&outsider)).await;
    assert_eq!((stranger.status.as_u16(), origin(&stranger).as_str()), (403, ""));
    demo.stop().await;
}
