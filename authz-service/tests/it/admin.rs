//! The admin API: the first administrator, everybody's rights, and that changes are in force at once.

use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use reqwest::{Method, Response};
use serde_json::{Value, json};

use crate::running::{Ask, Running, claims};

impl Running {
    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        token: &str,
        body: Option<Value>,
    ) -> Response {
        let mut request =
            self.http.request(method, self.url(path)).header("x-tollgate-change-reason", "a test");
        if !token.is_empty() {
            request = request.bearer_auth(token);
        }
        if let Some(body) = body {
            request = request.json(&body);
        }
        request.send().await.unwrap()
    }
}

pub(crate) async fn problem(response: Response, status: u16, reason: &str) -> Value {
    assert_eq!(response.status(), status);
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    let id = response.headers()["x-request-id"].to_str().unwrap().to_owned();
    let body: Value = response.json().await.unwrap();
    assert_eq!(
        (&body["reason"], &body["request_id"], &body["status"]),
        (&json!(reason), &json!(id), &json!(status))
    );
    body
}

#[tokio::test]
async fn nothing_but_health_answers_without_credentials() {
    let mesh = Running::empty().await;
    assert_eq!(mesh.send(Method::GET, "/healthz", "", None).await.status(), 200);
    let root = mesh.administrator("root").await;
    for (method, path) in [
        (Method::GET, "/v1/status"),
        (Method::GET, "/v1/changes"),
        (Method::GET, "/openapi.json"),
        (Method::GET, "/v1/issuers"),
        (Method::PUT, "/v1/namespaces/a/services/s"),
        (Method::POST, "/v1/apply"),
        (Method::GET, "/nowhere"),
        (Method::PATCH, "/v1/issuers/x"),
    ] {
        let response = mesh.send(method.clone(), path, "", None).await;
        assert_eq!(response.headers()["www-authenticate"], r#"Bearer realm="tollgate""#, "{method} {path}");
        problem(response, 401, "token_absent").await;
        assert_eq!(mesh.send(method.clone(), path, "tga_wrong", None).await.status(), 401, "{method} {path}");
    }
    problem(mesh.send(Method::GET, "/nowhere", &root, None).await, 404, "not_found").await;
    let openapi: Value = mesh.send(Method::GET, "/openapi.json", &root, None).await.json().await.unwrap();
    assert!(openapi["paths"]["/v1/namespaces/{namespace}/{kind}/{name}"]["put"].is_object());
}

#[tokio::test]
async fn the_first_administrator() {
    let mesh = Running::empty().await;
    let file = mesh.bootstrap_file();
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let token = std::fs::read_to_string(&file).unwrap();
    // The one-use token can do one thing.
    assert_eq!(mesh.send(Method::GET, "/v1/status", token.trim(), None).await.status(), 401);
    assert_eq!(mesh.send(Method::POST, "/v1/bootstrap", "", Some(json!({"name": "x"}))).await.status(), 401);
    let root = mesh.administrator("root").await;
    let status: Value = mesh.send(Method::GET, "/v1/status", &root, None).await.json().await.unwrap();
    assert_eq!(status, json!({"epoch": 1, "head": 1, "caller": "tollgate-admin/root"}));
    let again = mesh.send(Method::POST, "/v1/bootstrap", token.trim(), Some(json!({"name": "x"}))).await;
    problem(again, 401, "bootstrap_refused").await;
    let last =
        mesh.send(Method::DELETE, "/v1/namespaces/tollgate-system/bindings/admin-root", &root, None).await;
    problem(last, 409, "last_administrator").await;
    // After a restart there is no token to find any more.
    let folder = mesh.stop().await;
    let url = format!("sqlite://{}", folder.path().join("authz.db").display());
    let mesh = Running::on(folder, &url, |_| {}).await;
    assert!(!mesh.bootstrap_file().exists());
    assert_eq!(mesh.send(Method::GET, "/v1/status", &root, None).await.status(), 200);
}

#[tokio::test]
async fn objects_come_and_go_and_every_change_is_kept() {
    let mesh = Running::demo().await;
    let root = mesh.administrator("root").await;
    let path = "/v1/namespaces/insurance/bindings/outsider-reads";
    let body = json!({"role": "policy-reader", "who": {"issuer": "demo", "subject": "outsider"}});
    let ask = Ask::new("GET", "/policies/1").bearer(&mesh.token("outsider", "policies:read"));
    assert_eq!(mesh.check(&ask).await.status(), 403);

    let started = Instant::now();
    let created = mesh.send(Method::PUT, path, &root, Some(body.clone())).await;
    assert_eq!(created.status(), 201);
    let tag = created.headers()["etag"].to_str().unwrap().to_owned();
    assert_eq!(mesh.check(&ask).await.status(), 200, "in force when it is answered");
    assert!(started.elapsed() < Duration::from_secs(1));

    assert_eq!(mesh.send(Method::PUT, path, &root, Some(body.clone())).await.status(), 200);
    let read = mesh.send(Method::GET, path, &root, None).await;
    assert_eq!(read.headers()["etag"].to_str().unwrap(), tag, "putting the same changes nothing");
    let read: Value = read.json().await.unwrap();
    assert_eq!(read["kind"], "Binding");
    assert_eq!(read["who"], body["who"]);

    let guarded = mesh.http.delete(mesh.url(path)).bearer_auth(&root).header("if-match", "\"1\"");
    problem(guarded.send().await.unwrap(), 412, "moved").await;
    let guarded = mesh.http.delete(mesh.url(path)).bearer_auth(&root).header("if-match", &tag);
    assert_eq!(guarded.send().await.unwrap().status(), 204);
    assert_eq!(mesh.check(&ask).await.status(), 403);
    problem(mesh.send(Method::DELETE, path, &root, None).await, 404, "not_found").await;

    let changes: Value =
        mesh.send(Method::GET, "/v1/changes?limit=2", &root, None).await.json().await.unwrap();
    let kinds: Vec<_> = changes["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| {
            (row["name"].clone(), row["author"].clone(), row["reason"].clone(), row["after"].is_null())
        })
        .collect();
    let row = |gone| (json!("outsider-reads"), json!("tollgate-admin/root"), json!("a test"), gone);
    assert_eq!(kinds, [(json!("outsider-reads"), json!("tollgate-admin/root"), json!(""), true), row(false)]);
    let next = format!("/v1/changes?limit=2&cursor={}", changes["next"].as_str().unwrap());
    let rest: Value = mesh.send(Method::GET, &next, &root, None).await.json().await.unwrap();
    assert_eq!(rest["items"][0]["name"], "admin");

    let list = "/v1/namespaces/insurance/bindings?limit=2";
    let first: Value = mesh.send(Method::GET, list, &root, None).await.json().await.unwrap();
    assert_eq!((first["items"].as_array().unwrap().len(), &first["next"]), (2, &json!("editor-edits")));
    let rest = format!("{list}&cursor=editor-edits");
    let rest: Value = mesh.send(Method::GET, &rest, &root, None).await.json().await.unwrap();
    assert_eq!(rest["items"][0]["name"], "quotes-quotes");
}

#[tokio::test]
async fn bad_input_is_named() {
    let mesh = Running::demo().await;
    let root = mesh.administrator("root").await;
    let put = async |path: &str, body: Value| mesh.send(Method::PUT, path, &root, Some(body)).await;
    let role = "/v1/namespaces/insurance/roles/r";
    let typo =
        json!({"permissions": [{"name": "x", "service": "policies", "methods": ["GET"], "path": ["/"]}]});
    let body = problem(put(role, typo).await, 400, "request_malformed").await;
    assert!(body["detail"].as_str().unwrap().contains("permissions[0]"), "{body}");
    let bad = json!({"permissions": [{"name": "x", "service": "nope", "methods": ["get"], "paths": ["x"]}]});
    let body = problem(put(role, bad).await, 422, "policy_invalid").await;
    let keys: Vec<_> = body["faults"].as_array().unwrap().iter().map(|fault| fault["key"].clone()).collect();
    assert_eq!(keys, ["permissions[0].service", "permissions[0].methods[0]", "permissions[0].paths[0]"]);
    problem(put(role, json!({"name": "other"})).await, 400, "request_malformed").await;
    problem(put(role, json!({"kind": "Service"})).await, 400, "request_malformed").await;
    problem(put("/v1/namespaces/insurance/issuers/x", json!({})).await, 404, "not_found").await;
    let large = json!({"includes": ["x".repeat(9 << 20)]});
    problem(put(role, large).await, 413, "request_too_large").await;
    assert_eq!(mesh.cell.load().epoch, 2);
}

#[tokio::test]
async fn rights_are_permissions_of_this_same_policy() {
    let mesh = Running::demo().await;
    let root = mesh.administrator("root").await;
    let system = "/v1/namespaces/tollgate-system";
    let put = async |path: String, body: Value| {
        let response = mesh.send(Method::PUT, &path, &root, Some(body)).await;
        assert!(response.status().is_success(), "{path}: {}", response.text().await.unwrap());
    };
    // Tokens of the demo issuer may be used here, and `editor` may edit the bindings of one namespace.
    put(
        format!("{system}/services/admin"),
        json!({"callers": ["external"], "issuers": ["demo"], "audiences": ["tollgate-admin"]}),
    )
    .await;
    put(format!("{system}/roles/insurance-binder"), json!({"permissions": [{"name": "bind", "service": "admin",
        "methods": ["*"], "paths": ["/v1/namespaces/insurance/bindings/{name}", "/v1/apply"]},
        {"name": "system", "service": "admin", "methods": ["PUT"], "paths": ["/v1/namespaces/tollgate-system/bindings/{name}"]}]})).await;
    put(
        format!("{system}/bindings/editor-binds"),
        json!({"role": "insurance-binder", "who": {"issuer": "demo", "subject": "editor"}}),
    )
    .await;

    let mut said = claims("editor", "");
    said["aud"] = json!("tollgate-admin");
    let editor = mesh.signer.token(&said);
    let binding = json!({"role": "policy-reader", "who": {"issuer": "demo", "subject": "outsider"}});
    let path = "/v1/namespaces/insurance/bindings/x";
    assert_eq!(mesh.send(Method::PUT, path, &editor, Some(binding.clone())).await.status(), 201);
    let other = "/v1/namespaces/insurance/roles/x";
    problem(mesh.send(Method::PUT, other, &editor, Some(json!({}))).await, 403, "role_missing").await;
    // The audience of the application is not the audience of its administration.
    let app = mesh.token("editor", "");
    problem(mesh.send(Method::PUT, path, &app, Some(binding.clone())).await, 401, "token_audience").await;
    // Nobody grants what he does not hold.
    let more = json!({"role": "admin", "who": {"issuer": "demo", "subject": "editor"}});
    let up = format!("{system}/bindings/editor-rises");
    problem(mesh.send(Method::PUT, &up, &editor, Some(more.clone())).await, 403, "role_missing").await;
    // The same by way of apply.
    let document = |name: &str, namespace: &str, body: &Value| {
        let mut document = body.clone();
        (document["kind"], document["namespace"], document["name"]) =
            (json!("Binding"), json!(namespace), json!(name));
        json!({"documents": [document]})
    };
    let apply = async |body: Value| mesh.send(Method::POST, "/v1/apply", &editor, Some(body)).await;
    problem(apply(document("editor-rises", "tollgate-system", &more)).await, 403, "role_missing").await;
    assert_eq!(apply(document("y", "insurance", &binding)).await.status(), 200);
}

#[tokio::test]
async fn apply_is_one_epoch_with_a_diff() {
    let mesh = Running::demo().await;
    let root = mesh.administrator("root").await;
    let epoch = mesh.cell.load().epoch;
    let mut documents: Vec<Value> = crate::running::demo_documents()
        .iter()
        .map(|document| serde_json::to_value(document).unwrap())
        .collect();
    documents.retain(|document| document["name"] != "reader-reads");
    for document in documents.iter_mut().filter(|document| document["kind"] == "Service") {
        document["audiences"] = json!(["insurance", "other"]);
    }
    let body = |dry_run: bool| json!({"documents": documents, "prune": true, "dry_run": dry_run, "reason": "spring"});
    let apply = async |body: Value| -> Value {
        let response = mesh.send(Method::POST, "/v1/apply", &root, Some(body)).await;
        assert_eq!(response.status(), 200);
        response.json().await.unwrap()
    };
    let tried = apply(body(true)).await;
    assert_eq!(tried["epoch"], epoch);
    let diff = tried["diff"].as_str().unwrap();
    assert!(
        diff.contains("- Binding insurance/reader-reads") && diff.contains("~ Service insurance/policies"),
        "{diff}"
    );
    assert!(diff.contains("+   - other") || diff.contains("+ - other"), "{diff}");
    let ask = Ask::new("GET", "/policies/1").bearer(&mesh.token("reader", "policies:read"));
    assert_eq!(mesh.check(&ask).await.status(), 200);
    let done = apply(body(false)).await;
    assert_eq!(
        (&done["epoch"], &done["changes"], &done["diff"]),
        (&json!(epoch + 1), &tried["changes"], &tried["diff"])
    );
    assert_eq!(mesh.check(&ask).await.status(), 403);
    assert_eq!(apply(body(false)).await["changes"], json!([]));
    let changes = mesh.store.changes(None, 2).await.unwrap();
    assert!(changes.iter().all(|row| row.epoch == epoch + 1 && row.reason == "spring"), "{changes:?}");
}
