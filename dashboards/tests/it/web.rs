//! The guards: sessions, CSRF, host names, headers, and the page itself.

use serde_json::{Value, json};

use crate::harness::{Dashboard, start};

async fn reason(answer: reqwest::Response) -> (u16, String) {
    let status = answer.status().as_u16();
    (status, answer.json::<Value>().await.unwrap()["reason"].as_str().unwrap().to_owned())
}

#[tokio::test]
async fn nothing_answers_without_a_session_but_login_and_health() {
    let dashboard = start().await;
    let document: Value = dashboard.json("/openapi.json").await;
    for (path, methods) in document["paths"].as_object().unwrap() {
        if path.ends_with("/auth/login") {
            continue;
        }
        let path = path.replace("{request_id}", "x").replace("{name}", "x").replace("{trace_id}", "x");
        for method in methods.as_object().unwrap().keys() {
            let method = method.to_uppercase().parse().unwrap();
            let answer = dashboard.http.request(method, dashboard.url(&path)).send().await.unwrap();
            assert_eq!(reason(answer).await, (401, "session".to_owned()), "{path}");
        }
    }
    let health = dashboard.http.get(dashboard.url("/api/v1/health")).send().await.unwrap();
    assert_eq!(health.status(), 200);
    assert_eq!(
        reason(dashboard.get("/no/such/path").send().await.unwrap()).await,
        (404, "not_found".to_owned())
    );
    dashboard.service.stop().await;
}

async fn post_with(dashboard: &Dashboard, csrf: Option<&str>) -> reqwest::Response {
    let mut request = dashboard.http.post(dashboard.url("/api/v1/requests/search")).json(&json!({"q": ""}));
    request = request.header("cookie", format!("other=1; {}", dashboard.cookie()));
    if let Some(csrf) = csrf {
        request = request.header("x-csrf-token", csrf);
    }
    request.send().await.unwrap()
}

#[tokio::test]
async fn links_work_once_and_posts_need_the_csrf_token() {
    let dashboard = start().await;
    let token = dashboard.link.split("token=").nth(1).unwrap();
    assert_eq!(reason(dashboard.login(token).await).await, (401, "link".to_owned()));
    assert_eq!(reason(post_with(&dashboard, None).await).await, (403, "csrf".to_owned()));
    assert_eq!(reason(post_with(&dashboard, Some("wrong")).await).await, (403, "csrf".to_owned()));
    let session = dashboard.json("/auth/session").await;
    assert_eq!(post_with(&dashboard, session["csrf"].as_str()).await.status(), 200);
    assert_eq!(dashboard.post("/auth/logout", &json!({})).send().await.unwrap().status(), 204);
    assert_eq!(dashboard.get("/auth/session").send().await.unwrap().status(), 401);
    for _ in 0..9 {
        dashboard.login("guess").await;
    }
    assert_eq!(reason(dashboard.login("guess").await).await, (429, "attempts".to_owned()));
    dashboard.service.stop().await;
}

#[tokio::test]
async fn other_host_names_are_refused_and_headers_are_strict() {
    let dashboard = start().await;
    for (host, expected) in
        [("evil.example", 421), ("127.0.0.1.evil.example:7080", 421), ("localhost:7080", 200)]
    {
        let answer = dashboard.http.get(dashboard.url("/")).header("host", host).send().await.unwrap();
        assert_eq!(answer.status(), expected, "{host}");
        let headers = answer.headers();
        let policy = headers["content-security-policy"].to_str().unwrap();
        assert!(
            policy.contains("default-src 'self'") && policy.contains("frame-ancestors 'none'"),
            "{policy}"
        );
        assert_eq!(headers["x-content-type-options"], "nosniff");
        assert_eq!(headers["referrer-policy"], "no-referrer");
    }
    dashboard.service.stop().await;
}

#[tokio::test]
async fn page_routes_answer_with_the_page_and_missing_files_do_not() {
    let dashboard = start().await;
    let get = async |path: &str| dashboard.http.get(dashboard.url(path)).send().await.unwrap();
    for path in ["/", "/login", "/requests", "/services/policies"] {
        let answer = get(path).await;
        assert_eq!(
            (answer.status().as_u16(), &answer.headers()["content-type"]),
            (200, &"text/html; charset=utf-8".parse().unwrap())
        );
        let missing = answer.headers().contains_key("x-tollgate-ui");
        let body = answer.text().await.unwrap();
        assert_eq!(missing, body.contains("npm run build"), "{body}");
    }
    assert_eq!(get("/assets/nothing-1234.js").await.status(), 404);
    assert_eq!(dashboard.http.post(dashboard.url("/")).send().await.unwrap().status(), 405);
    dashboard.service.stop().await;
}
