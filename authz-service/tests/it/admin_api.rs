//! The admin API as its document describes it: every route, every term of a write, pages, history, decisions.

use std::collections::BTreeSet;

use reqwest::{Method, Response};
use serde_json::{Value, json};

use crate::admin::problem;
use crate::running::{Ask, Running};

const BINDING: &str = "/v1/namespaces/insurance/bindings/outsider-reads";

fn outsider() -> Value {
    json!({"role": "policy-reader", "who": {"issuer": "demo", "subject": "outsider"}})
}

async fn body(response: Response) -> Value {
    assert!(response.status().is_success(), "{}: {}", response.status(), response.text().await.unwrap());
    response.json().await.unwrap()
}

fn header<'r>(response: &'r Response, name: &str) -> &'r str {
    response.headers().get(name).map_or("", |value| value.to_str().unwrap())
}

/// A path of the document with something in each brace.
fn filled(path: &str) -> String {
    let names =
        [("{namespace}", "insurance"), ("{kind}", "roles"), ("{name}", "policy-reader"), ("{id}", "none")];
    let cluster = path.starts_with("/v1/{kind}");
    names.iter().fold(path.to_owned(), |path, (name, value)| {
        path.replace(name, if cluster && *name == "{kind}" { "issuers" } else { value })
    })
}

#[tokio::test]
async fn every_route_of_the_document_is_there_and_closed() {
    let mesh = Running::demo().await;
    let root = mesh.administrator("root").await;
    let document = body(mesh.send(Method::GET, "/openapi.json", &root, None).await).await;
    let open = BTreeSet::from(["/healthz", "/v1/bootstrap"]);
    let mut walked = 0;
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let name = format!("{method} {path}");
            assert!(
                operation["summary"].as_str().is_some_and(|text| text.ends_with('.') || text.len() > 8),
                "{name}"
            );
            assert!(operation["tags"].as_array().is_some_and(|tags| tags.len() == 1), "{name}");
            let answers = operation["responses"].as_object().unwrap();
            assert!(path == "/healthz" || answers.contains_key("default"), "{name} says nothing of problems");
            let method: Method = method.to_uppercase().parse().unwrap();
            if open.contains(path.as_str()) {
                continue;
            }
            let anonymous = mesh.send(method.clone(), &filled(path), "", None).await;
            problem(anonymous, 401, "token_absent").await;
            // Whatever it says to an empty request, it is not that there is no such route, and it is no failure.
            let known = mesh.send(method.clone(), &filled(path), &root, Some(json!({}))).await;
            let status = known.status().as_u16();
            let text = known.text().await.unwrap();
            assert!(
                status < 500 && status != 405 && !text.contains("nothing at this path"),
                "{name}: {status} {text}"
            );
            walked += 1;
        }
    }
    assert!(walked >= 20, "{walked}");
    problem(mesh.send(Method::PATCH, "/v1/status", &root, None).await, 404, "not_found").await;
}

#[tokio::test]
async fn the_page_opens_in_a_browser_with_the_token_as_its_password() {
    let mesh = Running::empty().await;
    let root = mesh.administrator("root").await;
    let anonymous = mesh.send(Method::GET, "/docs", "", None).await;
    let challenges: Vec<_> = anonymous
        .headers()
        .get_all("www-authenticate")
        .iter()
        .map(|v| v.to_str().unwrap().to_owned())
        .collect();
    assert_eq!(challenges, [r#"Bearer realm="tollgate""#, r#"Basic realm="tollgate", charset="UTF-8""#]);
    assert_eq!(anonymous.status(), 401);
    for request in [
        mesh.http.get(mesh.url("/docs")).bearer_auth(&root),
        mesh.http.get(mesh.url("/docs")).basic_auth("anybody", Some(&root)),
    ] {
        let page = request.send().await.unwrap();
        assert_eq!(
            (page.status().as_u16(), header(&page, "content-type")),
            (200, "text/html; charset=utf-8")
        );
        assert!(
            header(&page, "content-security-policy").starts_with("default-src 'none'; style-src 'sha256-")
        );
        assert!(page.text().await.unwrap().contains("/v1/rollback"));
    }
    let wrong =
        mesh.http.get(mesh.url("/docs")).basic_auth("anybody", Some("tga_wrong")).send().await.unwrap();
    assert_eq!(wrong.status(), 401);
    // What a browser remembers opens the page and nothing else.
    let elsewhere =
        mesh.http.get(mesh.url("/v1/status")).basic_auth("anybody", Some(&root)).send().await.unwrap();
    assert_eq!(elsewhere.status(), 401);
}

#[tokio::test]
async fn whatever_is_wrong_is_a_problem() {
    let mesh = Running::demo().await;
    let root = mesh.administrator("root").await;
    for path in [
        "/v1/changes?limit=many",
        "/v1/changes?cursor=here",
        "/v1/changes?colour=red",
        "/v1/decisions?reason=because",
        "/v1/decisions?verdict=maybe",
        "/v1/decisions?cursor=x",
        "/v1/namespaces/insurance/roles?limit=-1",
        "/v1/diff",
    ] {
        problem(mesh.send(Method::GET, path, &root, None).await, 400, "request_malformed").await;
    }
    problem(mesh.send(Method::GET, "/v1/diff?from=77", &root, None).await, 404, "no_such_epoch").await;
    let text =
        mesh.http.post(mesh.url("/v1/apply")).bearer_auth(&root).body("kind: Role").send().await.unwrap();
    problem(text, 415, "media_type").await;
    let odd = format!("{BINDING}?wait=tomorrow");
    problem(mesh.send(Method::PUT, &odd, &root, Some(outsider())).await, 400, "request_malformed").await;
    for (name, value) in [("if-match", "1"), ("if-none-match", "\"1\""), ("idempotency-key", "")] {
        let request =
            mesh.http.put(mesh.url(BINDING)).bearer_auth(&root).header(name, value).json(&outsider());
        problem(request.send().await.unwrap(), 400, "request_malformed").await;
    }
}

#[tokio::test]
async fn a_key_makes_a_write_happen_once() {
    let mesh = Running::demo().await;
    let root = mesh.administrator("root").await;
    let put = async |key: &str, body: Value| {
        let request = mesh.http.put(mesh.url(BINDING)).bearer_auth(&root).header("idempotency-key", key);
        request.header("if-none-match", "*").json(&body).send().await.unwrap()
    };
    let first = put("k1", outsider()).await;
    assert_eq!(first.status(), 201);
    let tag = header(&first, "etag").to_owned();
    let again = put("k1", outsider()).await;
    assert_eq!((again.status().as_u16(), header(&again, "etag")), (201, tag.as_str()));
    assert_eq!(header(&again, "idempotency-replayed"), "true");
    problem(
        put("k1", json!({"role": "adjuster", "who": {"anyone": true}})).await,
        422,
        "idempotency_key_reused",
    )
    .await;
    problem(put("k2", outsider()).await, 412, "moved").await;
    let delete = async || {
        let request = mesh.http.delete(mesh.url(BINDING)).bearer_auth(&root).header("idempotency-key", "k3");
        request.send().await.unwrap()
    };
    assert_eq!(delete().await.status(), 204);
    assert_eq!(header(&delete().await, "idempotency-replayed"), "true");
    problem(mesh.send(Method::DELETE, BINDING, &root, None).await, 404, "not_found").await;
}

#[tokio::test]
async fn an_answer_says_whether_it_is_in_force() {
    let mesh = Running::demo().await;
    let root = mesh.administrator("root").await;
    let ask = Ask::new("GET", "/policies/1").bearer(&mesh.token("outsider", "policies:read"));
    let put = mesh.send(Method::PUT, &format!("{BINDING}?wait=applied"), &root, Some(outsider())).await;
    assert_eq!((put.status().as_u16(), header(&put, "x-tollgate-in-force")), (201, "true"));
    assert_eq!(mesh.check(&ask).await.status(), 200);
    let gone = mesh.send(Method::DELETE, &format!("{BINDING}?wait=none"), &root, None).await;
    assert_eq!((gone.status().as_u16(), header(&gone, "x-tollgate-in-force")), (204, "false"));
    mesh.in_force(header(&gone, "x-tollgate-epoch").parse().unwrap()).await;
    // Reading an object again costs nothing where it is known.
    let role = "/v1/namespaces/insurance/roles/policy-reader";
    let read = mesh.send(Method::GET, role, &root, None).await;
    let request =
        mesh.http.get(mesh.url(role)).bearer_auth(&root).header("if-none-match", header(&read, "etag"));
    assert_eq!(request.send().await.unwrap().status(), 304);
}

#[tokio::test]
async fn history_can_be_read_compared_exported_and_rolled_back() {
    let mesh = Running::demo().await;
    let root = mesh.administrator("root").await;
    let before = mesh.cell.load().epoch;
    let get = async |path: &str| body(mesh.send(Method::GET, path, &root, None).await).await;
    let post =
        async |path: &str, sent: Value| body(mesh.send(Method::POST, path, &root, Some(sent)).await).await;
    body(mesh.send(Method::PUT, BINDING, &root, Some(outsider())).await).await;
    let role = "/v1/namespaces/insurance/roles/policy-reader";
    let mut wider = get(role).await;
    wider["permissions"][0]["methods"] = json!(["GET", "HEAD"]);
    body(mesh.send(Method::PUT, role, &root, Some(wider)).await).await;
    let ask = Ask::new("GET", "/policies/1").bearer(&mesh.token("outsider", "policies:read"));
    assert_eq!(mesh.check(&ask).await.status(), 200);

    let history = get(&format!("{role}/history")).await;
    let rows = history["items"].as_array().unwrap();
    assert_eq!(rows.len(), 2);
    assert_eq!(rows[0]["before"]["permissions"][0]["methods"], json!(["GET"]));
    assert_eq!((&rows[0]["author"], &rows[0]["reason"]), (&json!("tollgate-admin/root"), &json!("a test")));
    let page = get(&format!("{role}/history?limit=1")).await;
    let rest = get(&format!("{role}/history?limit=1&cursor={}", page["next"].as_str().unwrap())).await;
    assert_eq!((&rest["items"][0], rest.get("next")), (&rows[1], None));
    let by_object = get("/v1/changes?kind=Binding&namespace=insurance&name=outsider-reads").await;
    assert_eq!(by_object["items"].as_array().unwrap().len(), 1);
    let of_author = get("/v1/changes?author=test").await;
    assert!(of_author["items"].as_array().unwrap().iter().all(|row| row["author"] == "test"));

    let diff = get(&format!("/v1/diff?from={before}")).await;
    assert_eq!(diff["changes"].as_array().unwrap().len(), 2);
    assert!(diff["diff"].as_str().unwrap().contains("+ Binding insurance/outsider-reads"));
    let then =
        mesh.send(Method::GET, &format!("/v1/export?epoch={before}&namespace=insurance"), &root, None).await;
    assert_eq!(header(&then, "content-type"), "application/yaml");
    let then = then.text().await.unwrap();
    assert!(
        then.contains("name: policy-reader") && !then.contains("HEAD") && !then.contains("outsider"),
        "{then}"
    );

    let only = json!({"kind": "Binding", "namespace": "insurance", "name": "outsider-reads"});
    let dry = post("/v1/rollback", json!({"epoch": before, "dry_run": true})).await;
    assert_eq!((dry["changes"].as_array().unwrap().len(), &dry["dry_run"]), (2, &json!(true)));
    let one = post("/v1/rollback", json!({"epoch": before, "object": only})).await;
    assert_eq!(one["changes"], json!([{"object": only, "change": "removed"}]));
    assert_eq!(mesh.check(&ask).await.status(), 403);
    let all = post("/v1/rollback", json!({"epoch": before, "reason": "as it was"})).await;
    assert_eq!((all["changes"].as_array().unwrap().len(), &all["epoch"]), (1, &json!(before + 4)));
    assert_eq!(get(role).await["permissions"][0]["methods"], json!(["GET"]));
    let newest = get("/v1/changes?limit=1").await;
    assert_eq!(newest["items"][0]["reason"], "as it was");
    assert_eq!(post("/v1/rollback", json!({"epoch": before})).await["changes"], json!([]));
    let future = mesh.send(Method::POST, "/v1/rollback", &root, Some(json!({"epoch": 999}))).await;
    problem(future, 404, "no_such_epoch").await;
}

#[tokio::test]
async fn decisions_are_found_by_id_and_by_request() {
    let mesh = Running::demo().await;
    let root = mesh.administrator("root").await;
    let get = async |path: &str| mesh.send(Method::GET, path, &root, None).await;
    let token = mesh.token("reader", "profile");
    let refused = mesh.check(&Ask::new("GET", "/policies/1?key=secret").bearer(&token)).await;
    let id = refused.metadata()["decision_id"].as_str().unwrap().to_owned();
    let allowed = Ask::new("GET", "/policies/1").bearer(&mesh.token("reader", "policies:read"));
    mesh.check(&allowed).await;

    let record = body(get(&format!("/v1/decisions/{id}")).await).await;
    assert_eq!(record["explanation"], refused.metadata()["explanation"]);
    let expected = json!({"state": "valid", "issuer": "demo", "subject": "reader", "client_id": "web",
        "scopes": ["profile"], "groups": ["staff"]});
    assert_eq!((&record["token"], &record["path"]), (&expected, &json!("/policies/1")));
    assert_eq!((&record["request_id"], &record["service"]), (&json!("r-1"), &json!("insurance/policies")));
    assert_eq!((&record["verdict"], &record["reason"]), (&json!("deny"), &json!("scope_missing")));
    let read: Vec<_> = record["read"].as_array().unwrap().iter().map(|part| part.as_str().unwrap()).collect();
    assert!(read.contains(&"token") && read.contains(&"path"), "{read:?}");
    // By its request's id too: of several decisions the refusal.
    assert_eq!(body(get("/v1/decisions/r-1").await).await["id"], json!(id));
    let text = record.to_string();
    assert!(!text.contains("secret") && !text.contains("eyJ") && !text.contains(&token), "{text}");

    for (query, expected) in [
        ("request_id=r-1", 2),
        ("request_id=r-1&verdict=deny", 1),
        ("service=insurance/policies&reason=ok", 1),
        ("service=policies&subject=reader", 2),
        ("subject=nobody", 0),
        ("request_id=r-1&limit=1", 1),
    ] {
        let page = body(get(&format!("/v1/decisions?{query}")).await).await;
        assert_eq!(page["items"].as_array().unwrap().len(), expected, "{query}");
    }
    let page = body(get("/v1/decisions?request_id=r-1&limit=1").await).await;
    let next = page["next"].as_str().unwrap();
    let rest = body(get(&format!("/v1/decisions?request_id=r-1&limit=1&cursor={next}")).await).await;
    assert_ne!(rest["items"][0]["id"], page["items"][0]["id"]);
    problem(get("/v1/decisions/r-unknown").await, 404, "not_found").await;
    // A refused attempt to administer is a decision like any other, found by the id in its problem.
    let denied = mesh.send(Method::GET, "/v1/status", "tga_wrong", None).await;
    let request = header(&denied, "x-request-id").to_owned();
    let record = body(get(&format!("/v1/decisions/{request}")).await).await;
    assert_eq!(
        (&record["service"], &record["path"]),
        (&json!("tollgate-system/admin"), &json!("/v1/status"))
    );
}

#[tokio::test]
async fn tools_answer_over_the_api() {
    let mesh = Running::demo().await;
    let root = mesh.administrator("root").await;
    let post =
        async |path: &str, sent: Value| body(mesh.send(Method::POST, path, &root, Some(sent)).await).await;
    let get = async |path: &str| body(mesh.send(Method::GET, path, &root, None).await).await;
    let empty = json!({"kind": "Role", "namespace": "insurance", "name": "empty"});
    let lint = post("/v1/lint", json!({"documents": [empty]})).await;
    let codes: Vec<_> = lint["findings"].as_array().unwrap().iter().map(|one| one["code"].clone()).collect();
    assert_eq!((codes, &lint["warnings"]), (vec![json!("role_empty"), json!("role_unheld")], &json!(2)));
    assert_eq!(post("/v1/lint", json!({})).await["findings"], json!([]));
    let applied = post("/v1/apply", json!({"documents": [empty], "dry_run": true})).await;
    assert_eq!(applied["warnings"][0]["code"], "role_empty");

    let case = |expect: &str| {
        json!({"name": "a reader reads", "who": {"issuer": "demo", "subject": "reader", "scopes": ["policies:read"]},
            "what": {"service": "insurance/policies", "path": "/policies/1"}, "expect": expect})
    };
    let tested = post("/v1/test", json!({"cases": [case("allow"), case("deny")]})).await;
    assert_eq!((&tested["passed"], &tested["failed"]), (&json!(1), &json!(1)));
    assert_eq!(tested["results"][1]["judged"]["rule"], "insurance/reader-reads → policy-reader.read");
    let draft = json!({"kind": "Binding", "namespace": "insurance", "name": "reader-reads", "role": "adjuster",
        "who": {"issuer": "demo", "subject": "nobody"}});
    let tested = post("/v1/test", json!({"cases": [case("allow")], "documents": [draft]})).await;
    assert_eq!(tested["failed"], 1);
    let wrong = json!({"kind": "Binding", "namespace": "insurance", "name": "x", "role": "gone", "who": {"anyone": true}});
    let bad = mesh
        .send(Method::POST, "/v1/test", &root, Some(json!({"cases": [case("allow")], "documents": [wrong]})))
        .await;
    problem(bad, 422, "policy_invalid").await;

    let found = get("/v1/who-can?method=GET&path=/policies/1&service=insurance/policies&limit=2").await;
    assert_eq!((found["grants"].as_array().unwrap().len(), &found["next"]), (2, &json!("2")));
    let rest = get("/v1/who-can?method=GET&path=/policies/1&service=insurance/policies&cursor=2").await;
    assert_eq!((rest["grants"].as_array().unwrap().len(), rest.get("next")), (5, None));
    problem(
        mesh.send(Method::GET, "/v1/who-can?method=GET&path=/", &root, None).await,
        400,
        "request_malformed",
    )
    .await;
    let may = get("/v1/can?subject=editor&issuer=demo").await;
    assert_eq!(may["items"].as_array().unwrap().len(), 2);
    problem(mesh.send(Method::GET, "/v1/can?issuer=demo", &root, None).await, 400, "request_malformed").await;
}

#[tokio::test]
async fn a_decision_is_explained_by_the_policy_of_its_time() {
    let mesh = Running::demo().await;
    let root = mesh.administrator("root").await;
    let get = async |path: &str| body(mesh.send(Method::GET, path, &root, None).await).await;
    mesh.check(&Ask::new("GET", "/policies/1").bearer(&mesh.token("reader", "profile"))).await;
    let explained = get("/v1/decisions/r-1/explain").await;
    assert_eq!(explained["decision"]["reason"], "scope_missing");
    let then = &explained["then"];
    assert_eq!(then["summary"], "role policy-reader: scope needs policies:read, token has profile");
    assert_eq!((&then["explanation"]["decision"], explained.get("now")), (&json!("deny"), None));
    let grants = then["explanation"]["grants"].as_array().unwrap();
    let grant = grants.iter().find(|one| one["rule"] == "insurance/reader-reads").unwrap();
    let failed: Vec<_> =
        grant["predicates"].as_array().unwrap().iter().filter(|one| one["holds"] == "no").collect();
    assert_eq!(
        (failed.len(), &failed[0]["name"], &failed[0]["found"]),
        (1, &json!("scopes"), &json!("profile"))
    );

    // The rules change; the record is still judged by those of its time, and beside it by those of now.
    let role = "/v1/namespaces/insurance/roles/policy-reader";
    let mut open = get(role).await;
    open["permissions"][0]["scopes"] = json!({});
    body(mesh.send(Method::PUT, role, &root, Some(open)).await).await;
    let explained = get("/v1/decisions/r-1/explain").await;
    let decisions = [&explained["then"], &explained["now"]].map(|one| one["explanation"]["decision"].clone());
    assert_eq!(decisions, [json!("deny"), json!("allow")]);
    assert_eq!(explained["then"]["epoch"], explained["decision"]["epoch"]);

    // A header that a condition read is kept as a hash, and its absence from the record is told.
    let mut guarded = get(role).await;
    guarded["permissions"][0]["when"] = json!({"header": "x-env", "equals": "blue"});
    body(mesh.send(Method::PUT, role, &root, Some(guarded)).await).await;
    let ask =
        Ask::new("GET", "/policies/1").bearer(&mesh.token("reader", "profile")).header("x-env", "secret");
    let refused = mesh.check(&ask).await;
    let id = refused.metadata()["decision_id"].as_str().unwrap().to_owned();
    let explained = get(&format!("/v1/decisions/{id}/explain")).await;
    assert_eq!(explained["not_kept"], json!(["header:x-env"]));
    let hashed = explained["decision"]["hashed"][0].as_str().unwrap();
    assert!(
        hashed.starts_with("x-env=") && !explained["decision"].to_string().contains("secret"),
        "{hashed}"
    );

    let ask = json!({"who": {"issuer": "demo", "subject": "outsider"}, "what": {"host": "policies.insurance", "path": "/policies/1"}});
    let told = body(mesh.send(Method::POST, "/v1/explain", &root, Some(ask)).await).await;
    assert_eq!(
        (&told["explanation"]["reason"], &told["epoch"]),
        (&json!("role_missing"), &explained["then"]["epoch"])
    );
    let odd = json!({"what": {"path": "*"}});
    problem(mesh.send(Method::POST, "/v1/explain", &root, Some(odd)).await, 400, "request_malformed").await;
    problem(mesh.send(Method::GET, "/v1/decisions/none/explain", &root, None).await, 404, "not_found").await;
}

#[tokio::test]
async fn who_waits_for_a_change_is_told_where_it_does_not_come_into_force() {
    let mesh = Running::demo().await;
    let root = mesh.administrator("root").await;
    let path = "/v1/namespaces/insurance/bindings/more";
    let binding = json!({"role": "policy-reader", "who": {"issuer": "demo", "subject": "more"}});
    let odd = json!({"kind": "Service", "namespace": "insurance", "name": "odd"});
    mesh.apply(vec![serde_json::from_value(odd).unwrap()]).await;
    // A replica that cannot use what is in the database keeps the old policy whole.
    let file = mesh.folder.path().join("authz.db");
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(file).foreign_keys(false);
    let pool = sqlx::SqlitePool::connect_with(options).await.unwrap();
    let before = mesh.cell.load().epoch;
    let mut tx = pool.begin().await.unwrap();
    for sql in [
        "UPDATE epoch SET n = n + 1",
        "UPDATE services SET callers = '[\"nonsense\"]' WHERE name = 'odd'",
        "INSERT INTO changes (epoch, position, at, author, reason, kind, namespace, name)
            SELECT n, 0, 0, '', '', 'Service', 'insurance', 'odd' FROM epoch",
    ] {
        sqlx::query(sql).execute(&mut *tx).await.unwrap();
    }
    tx.commit().await.unwrap();
    let late = mesh.send(Method::PUT, &format!("{path}?wait=applied"), &root, Some(binding.clone())).await;
    problem(late, 504, "not_in_force").await;
    assert_eq!(mesh.cell.load().epoch, before);
    // It is kept all the same, and the usual answer says that it is not in force.
    let kept = mesh.send(Method::GET, path, &root, None).await;
    assert_eq!(kept.status(), 200);
    let usual = mesh.send(Method::DELETE, path, &root, None).await;
    assert_eq!((usual.status().as_u16(), header(&usual, "x-tollgate-in-force")), (204, "false"));
}

/// What was logged, as text.
#[derive(Clone, Default)]
struct Logged(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);

impl std::io::Write for Logged {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_denied_administrator_is_in_the_log_by_name() {
    let mesh = Running::demo().await;
    let root = mesh.administrator("root").await;
    let system = "/v1/namespaces/tollgate-system";
    for (path, object) in [
        (
            "services/admin",
            json!({"callers": ["external"], "issuers": ["demo"], "audiences": ["tollgate-admin"]}),
        ),
        (
            "roles/looker",
            json!({"permissions": [{"name": "look", "service": "admin", "methods": ["GET"], "paths": ["/v1/status"]}]}),
        ),
        ("bindings/looker", json!({"role": "looker", "who": {"issuer": "demo", "subject": "clerk"}})),
    ] {
        let put = mesh.send(Method::PUT, &format!("{system}/{path}"), &root, Some(object)).await;
        assert!(put.status().is_success(), "{path}: {}", put.text().await.unwrap());
    }
    let mut said = crate::running::claims("clerk", "");
    said["aud"] = json!("tollgate-admin");
    let clerk = mesh.signer.token(&said);
    assert_eq!(mesh.send(Method::GET, "/v1/status", &clerk, None).await.status(), 200);

    let logged = Logged::default();
    let writer = logged.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    let listening = tracing::subscriber::set_default(subscriber);
    let role = "/v1/namespaces/insurance/roles/policy-reader";
    assert_eq!(mesh.send(Method::DELETE, role, &clerk, None).await.status(), 403);
    drop(listening);
    let text = String::from_utf8(logged.0.lock().unwrap().clone()).unwrap();
    let line = text.lines().find(|line| line.contains("admin request of demo/clerk refused")).expect(&text);
    for part in ["WARN", "DELETE", role, "reason=", "request_id="] {
        assert!(line.contains(part), "{part} in {line}");
    }
    assert!(!text.contains(&clerk), "a token is never logged");
}

#[tokio::test]
async fn an_identity_belongs_to_one_enforcer() {
    let mesh = Running::demo().await;
    let root = mesh.administrator("root").await;
    let enforcer =
        json!({"point": "sidecar-in", "spiffe_id": "spiffe://tollgate.demo/ns/insurance/sa/adjusting"});
    let put = async |name: &str| {
        mesh.send(Method::PUT, &format!("/v1/enforcers/{name}"), &root, Some(enforcer.clone())).await
    };
    assert_eq!(put("one").await.status(), 201);
    let refused = put("two").await;
    assert!(refused.status().is_client_error());
    let told = refused.text().await.unwrap();
    assert!(told.contains("spiffe_id") && told.contains("already belongs to Enforcer one"), "{told}");
    // The workload itself may well be a service.
    assert_eq!(put("one").await.status(), 200);
}
