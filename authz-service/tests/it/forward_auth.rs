//! HTTP forward-auth, as Traefik and nginx ask.

use serde_json::{Value, json};

use crate::running::{ISSUER, Running};

async fn ask(mesh: &Running, path: &str, headers: &[(&str, &str)]) -> reqwest::Response {
    let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
    let mut request = client.get(mesh.url(path));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.send().await.unwrap()
}

const GET: [(&str, &str); 4] = [
    ("x-forwarded-method", "GET"),
    ("x-forwarded-proto", "https"),
    ("x-forwarded-host", "policies.insurance"),
    ("x-forwarded-uri", "/policies/1?x=1"),
];

#[tokio::test]
async fn the_answer_is_a_status() {
    let mesh = Running::demo().await;
    let issuer = json!({"kind": "Issuer", "name": "demo", "issuer": ISSUER, "jwks": mesh.signer.jwks(),
        "claim_headers": [{"claim": "sub", "header": "x-user"}],
        "claim_parameters": [{"claim": "tier", "parameter": "tier"}]});
    let service = json!({"kind": "Service", "namespace": "insurance", "name": "policies", "callers": ["external"],
        "hosts": ["policies.insurance"], "issuers": ["demo"], "audiences": ["insurance"],
        "login": {"url": "https://login.example/"}});
    let documents = [issuer, service].map(|json: Value| serde_json::from_value(json).unwrap());
    mesh.apply(documents.into()).await;
    let reader = format!("Bearer {}", mesh.token("reader", "policies:read"));
    let outsider = format!("Bearer {}", mesh.token("outsider", "policies:read"));
    let with = |more: &[(&'static str, &'static str)]| [&GET[..], more].concat();

    let allowed = ask(&mesh, "/forward-auth", &[&GET[..], &[("authorization", &reader)]].concat()).await;
    assert_eq!(allowed.status(), 200);
    assert_eq!(allowed.headers()["x-user"], "reader");

    // Its query cannot be changed this way, so what only we may say there is refused.
    let presuming =
        [&GET[..3], &[("x-forwarded-uri", "/policies/1?%74ier=gold"), ("authorization", &reader)]].concat();
    assert_eq!(ask(&mesh, "/forward-auth", &presuming).await.status(), 400);

    let by_name = [&GET[..2], &[("x-forwarded-host", "other"), GET[3], ("authorization", &reader)]].concat();
    assert_eq!(ask(&mesh, "/forward-auth", &by_name).await.status(), 403);
    assert_eq!(ask(&mesh, "/forward-auth?service=insurance/policies", &by_name).await.status(), 200);

    let absent = ask(&mesh, "/forward-auth", &with(&[("x-request-id", "r-7")])).await;
    assert_eq!((absent.status().as_u16(), absent.headers().contains_key("www-authenticate")), (401, true));
    let body: Value = absent.json().await.unwrap();
    assert_eq!(body, json!({"request_id": "r-7", "error": "unauthenticated"}));

    let denied = ask(&mesh, "/forward-auth", &[&GET[..], &[("authorization", &outsider)]].concat()).await;
    assert_eq!(denied.status(), 403);
    let broken = ask(&mesh, "/forward-auth", &with(&[("authorization", "Bearer x")])).await;
    assert_eq!(broken.status(), 401);
    let browser = ask(&mesh, "/forward-auth", &with(&[("accept", "text/html")])).await;
    assert_eq!(browser.status(), 302);
    assert_eq!(browser.headers()["location"], "https://login.example/");
}

#[tokio::test]
async fn what_the_proxy_has_to_say_it_says_once() {
    let mesh = Running::demo().await;
    for without in ["x-forwarded-method", "x-forwarded-host", "x-forwarded-uri"] {
        let headers: Vec<_> = GET.into_iter().filter(|(name, _)| *name != without).collect();
        let answer = ask(&mesh, "/forward-auth", &headers).await;
        assert_eq!(answer.status(), 400);
        assert!(answer.text().await.unwrap().contains(without));
        let twice = [&GET[..], &[(without, "x")]].concat();
        assert_eq!(ask(&mesh, "/forward-auth", &twice).await.status(), 400, "{without}");
        let empty = [&headers[..], &[(without, "")]].concat();
        assert_eq!(ask(&mesh, "/forward-auth", &empty).await.status(), 400, "{without}");
    }
    assert_eq!(ask(&mesh, "/forward-auth?service=a&service=b", &GET).await.status(), 400);
    for target in ["*", "policies", "/%zz"] {
        let headers = [&GET[..3], &[("x-forwarded-uri", target)]].concat();
        assert_eq!(ask(&mesh, "/forward-auth", &headers).await.status(), 400, "{target}");
    }
}
