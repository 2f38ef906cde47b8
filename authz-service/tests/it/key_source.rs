//! Fetching over HTTP: what is taken for an answer, and where we never look.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::http::StatusCode;
use axum::response::Redirect;
use axum::routing::get;
use tollgate_authz::token::keys::source::{Document, FetchError, HttpKeys, KeySource as _};
use tollgate_runtime::{Service, net};

/// A server with all sorts of answers, and how often it was asked.
fn server(service: &Service) -> (u16, Arc<AtomicUsize>) {
    let listener = net::bind(([127, 0, 0, 1], 0).into(), "issuer").unwrap();
    let port = listener.local_addr().unwrap().port();
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let json = |kind: &'static str| get(move || async move { ([("content-type", kind)], "{}") });
    let router = Router::new()
        .route("/json", json("application/json"))
        .route("/jwks", json("application/jwk-set+json; charset=utf-8"))
        .route("/html", json("text/html"))
        .route("/none", get(async || axum::body::Body::from("{}")))
        .route("/fresh", get(async || ([("cache-control", "max-age=60"), ("age", "7")], axum::Json(1))))
        .route("/moved", get(async || Redirect::temporary("/json")))
        .route("/broken", get(async || StatusCode::BAD_GATEWAY))
        .route("/large", get(async || axum::Json("x".repeat(300 * 1024))))
        .layer(axum::middleware::map_request(move |request: axum::extract::Request| {
            count.fetch_add(1, Ordering::SeqCst);
            async move { request }
        }));
    let tasks = service.tasks().clone();
    service.tasks().spawn("issuer", async move {
        tollgate_runtime::http_server::serve(&tasks, listener, router).await;
    });
    (port, asked)
}

#[tokio::test]
async fn an_answer_is_small_json_with_status_200() {
    let service = Service::for_test("authz");
    let (port, _) = server(&service);
    let source = HttpKeys::new(true).unwrap();
    let fetch =
        async |path: &str| source.fetch(format!("http://127.0.0.1:{port}{path}").parse().unwrap()).await;
    for path in ["/json", "/jwks", "/none"] {
        assert_eq!(fetch(path).await.unwrap().body, b"{}", "{path}");
    }
    let Document { cache_control, age, .. } = fetch("/fresh").await.unwrap();
    assert_eq!((cache_control.as_deref(), age.as_deref()), (Some("max-age=60"), Some("7")));
    assert!(matches!(fetch("/html").await, Err(FetchError::ContentType(kind)) if kind == "text/html"));
    assert!(matches!(fetch("/moved").await, Err(FetchError::Status(307))));
    assert!(matches!(fetch("/broken").await, Err(FetchError::Status(502))));
    assert!(matches!(fetch("/large").await, Err(FetchError::TooLarge)));
    assert!(matches!(source.fetch("http://127.0.0.1:1/".parse().unwrap()).await, Err(FetchError::Http(_))));
}

#[tokio::test]
async fn nobody_leads_us_inside() {
    let service = Service::for_test("authz");
    let (port, asked) = server(&service);
    let source = HttpKeys::new(false).unwrap();
    // By address, by a name that resolves to one, and by addresses in disguise.
    for host in ["127.0.0.1", "localhost", "[::1]", "2130706433", "0x7f.1", "[::ffff:127.0.0.1]"] {
        let url: url::Url = format!("http://{host}:{port}/json").parse().unwrap();
        let error = anyhow::Error::new(source.fetch(url).await.unwrap_err());
        assert!(format!("{error:#}").contains("private or link-local"), "{host}: {error:#}");
    }
    assert_eq!(asked.load(Ordering::SeqCst), 0);
}
