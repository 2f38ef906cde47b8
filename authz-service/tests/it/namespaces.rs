//! Administrators of one namespace: they see theirs, change theirs, and grant no more than they hold.

use reqwest::Method;
use serde_json::{Value, json};

use crate::admin::problem;
use crate::running::{Ask, Running, claims};

/// Two namespaces; `ann` administers the first, and holds the role `reader` in it.
struct Two {
    mesh: Running,
    root: String,
    ann: String,
}

fn shop(namespace: &str) -> Vec<Value> {
    vec![
        json!({"kind": "Service", "namespace": namespace, "name": "orders", "callers": ["external"],
            "issuers": ["demo"], "audiences": ["insurance"]}),
        json!({"kind": "Role", "namespace": namespace, "name": "reader", "permissions": [
            {"name": "read", "service": "orders", "methods": ["GET"], "paths": ["/orders/{id}"]}]}),
        json!({"kind": "Role", "namespace": namespace, "name": "writer", "includes": ["reader"], "permissions": [
            {"name": "write", "service": "orders", "methods": ["POST"], "paths": ["/orders"]}]}),
        json!({"kind": "Binding", "namespace": namespace, "name": "ann-reads", "role": "reader",
            "who": {"issuer": "demo", "subject": "ann"}}),
    ]
}

impl Two {
    async fn start() -> Self {
        let mesh = Running::demo().await;
        let root = mesh.administrator("root").await;
        let mut documents = [shop("a"), shop("b")].concat();
        documents.extend([
            json!({"kind": "Service", "namespace": "tollgate-system", "name": "admin", "callers": ["external"],
                "issuers": ["demo"], "audiences": ["tollgate-admin"]}),
            json!({"kind": "Role", "namespace": "tollgate-system", "name": "admin-of-a", "permissions": [
                {"name": "objects", "service": "admin", "methods": ["*"], "paths": ["/v1/namespaces/a/{**}"]},
                {"name": "tools", "service": "admin", "methods": ["GET", "POST"],
                    "paths": ["/v1/apply", "/v1/rollback", "/v1/changes", "/v1/decisions", "/v1/decisions/{**}",
                        "/v1/export", "/v1/diff", "/v1/status"]}]}),
            json!({"kind": "Role", "namespace": "tollgate-system", "name": "grants-in-a", "permissions": [
                {"name": "grant", "service": "admin", "methods": ["PUT"], "paths": ["/v1/grants/a"]}]}),
            json!({"kind": "Binding", "namespace": "tollgate-system", "name": "ann", "role": "admin-of-a",
                "who": {"issuer": "demo", "subject": "ann"}}),
        ]);
        let applied =
            mesh.send(Method::POST, "/v1/apply", &root, Some(json!({"documents": documents}))).await;
        assert_eq!(applied.status(), 200, "{}", applied.text().await.unwrap());
        let mut said = claims("ann", "");
        said["aud"] = json!("tollgate-admin");
        let ann = mesh.signer.token(&said);
        Self { mesh, root, ann }
    }

    async fn as_ann(&self, method: Method, path: &str, body: Option<Value>) -> reqwest::Response {
        self.mesh.send(method, path, &self.ann, body).await
    }

    async fn seen(&self, path: &str) -> Value {
        let answer = self.as_ann(Method::GET, path, None).await;
        assert_eq!(answer.status(), 200, "{path}");
        answer.json().await.unwrap()
    }
}

fn binding(role: &str, subject: &str) -> Value {
    json!({"role": role, "who": {"issuer": "demo", "subject": subject}})
}

#[tokio::test]
async fn an_administrator_of_one_namespace_reads_and_writes_no_other() {
    let two = Two::start().await;
    let service = json!({"callers": ["external"]});
    let made = two.as_ann(Method::PUT, "/v1/namespaces/a/services/more", Some(service.clone())).await;
    assert_eq!(made.status(), 201);
    assert_eq!(two.as_ann(Method::GET, "/v1/namespaces/a/services/more", None).await.status(), 200);
    assert_eq!(two.as_ann(Method::DELETE, "/v1/namespaces/a/services/more", None).await.status(), 204);
    for (method, path) in [
        (Method::GET, "/v1/namespaces/b/services"),
        (Method::GET, "/v1/namespaces/b/services/orders"),
        (Method::GET, "/v1/namespaces/b/services/orders/history"),
        (Method::PUT, "/v1/namespaces/b/services/more"),
        (Method::DELETE, "/v1/namespaces/b/services/orders"),
        (Method::GET, "/v1/namespaces/tollgate-system/roles"),
        (Method::PUT, "/v1/namespaces/tollgate-system/bindings/mine"),
        (Method::GET, "/v1/issuers"),
        (Method::PUT, "/v1/issuers/mine"),
        (Method::PUT, "/v1/enforcers/local"),
        (Method::GET, "/docs"),
        // Not by another spelling either.
        (Method::GET, "/v1/namespaces/a/../b/services"),
        (Method::GET, "/v1/namespaces/a%2F..%2Fb/services"),
        (Method::GET, "/v1/namespaces//b/services"),
    ] {
        let answer = two.as_ann(method.clone(), path, Some(service.clone())).await;
        assert!([403, 400].contains(&answer.status().as_u16()), "{method} {path}: {}", answer.status());
    }
    let other = json!({"documents": [{"kind": "Service", "namespace": "b", "name": "more"}]});
    problem(two.as_ann(Method::POST, "/v1/apply", Some(other)).await, 403, "role_missing").await;
    // A folder with her own objects and prune would remove those of others.
    let prune = json!({"documents": shop("a"), "prune": true});
    problem(two.as_ann(Method::POST, "/v1/apply", Some(prune)).await, 403, "role_missing").await;
    // Rolling everything back would change what is not hers; one object of hers does not.
    let epoch = two.mesh.cell.load().epoch;
    let change = json!({"callers": []});
    let mine = "/v1/namespaces/a/services/orders";
    for path in [mine, "/v1/namespaces/b/services/orders"] {
        let put = two.mesh.send(Method::PUT, path, &two.root, Some(change.clone())).await;
        assert_eq!(put.status(), 200);
    }
    let all = two.as_ann(Method::POST, "/v1/rollback", Some(json!({"epoch": epoch}))).await;
    problem(all, 403, "role_missing").await;
    let object = json!({"kind": "Service", "namespace": "a", "name": "orders"});
    let one = two.as_ann(Method::POST, "/v1/rollback", Some(json!({"epoch": epoch, "object": object}))).await;
    assert_eq!(one.status(), 200);
    assert_eq!(two.seen(mine).await["callers"], json!(["external"]));
}

#[tokio::test]
async fn what_spans_the_policy_shows_each_administrator_their_own_part() {
    let two = Two::start().await;
    for service in ["a/orders", "b/orders", "nowhere/none"] {
        let mut ask = Ask::new("GET", "/orders/1");
        ask.extensions[0].1 = service;
        assert_eq!(two.mesh.check(&ask).await.status(), 401);
    }
    let decisions = two.seen("/v1/decisions").await;
    let services: Vec<_> =
        decisions["items"].as_array().unwrap().iter().map(|row| row["service"].clone()).collect();
    assert_eq!(services, ["a/orders"]);
    let page: Value = two
        .mesh
        .send(Method::GET, "/v1/decisions?service=b/orders", &two.root, None)
        .await
        .json()
        .await
        .unwrap();
    let of_b = page["items"][0]["id"].as_str().unwrap();
    problem(two.as_ann(Method::GET, &format!("/v1/decisions/{of_b}"), None).await, 404, "not_found").await;

    let changes = two.seen("/v1/changes?limit=3").await;
    let mut rows = changes["items"].as_array().unwrap().clone();
    let next = changes["next"].as_str().unwrap();
    rows.extend(two.seen(&format!("/v1/changes?cursor={next}")).await["items"].as_array().unwrap().clone());
    assert_eq!(rows.len(), 4);
    assert!(rows.iter().all(|row| row["namespace"] == "a"), "{rows:?}");

    let export = two.as_ann(Method::GET, "/v1/export", None).await.text().await.unwrap();
    assert!(export.contains("namespace: a") && !export.contains("namespace: b"), "{export}");
    assert!(!export.contains("kind: Issuer") && !export.contains("tollgate-system"), "{export}");
    let diff = two.seen("/v1/diff?from=0").await;
    let namespaces: Vec<_> =
        diff["changes"].as_array().unwrap().iter().map(|row| row["object"]["namespace"].clone()).collect();
    assert_eq!(namespaces, ["a"; 4]);
}

#[tokio::test]
async fn nobody_grants_what_they_do_not_hold() {
    let two = Two::start().await;
    let put = async |path: &str, body: Value| two.as_ann(Method::PUT, path, Some(body)).await;
    // She reads, so she may let others read; she does not write.
    let path = "/v1/namespaces/a/bindings/bob";
    assert_eq!(put(path, binding("reader", "bob")).await.status(), 201);
    let refused = problem(put(path, binding("writer", "bob")).await, 403, "grant_not_held").await;
    assert_eq!(refused["faults"][0]["key"], "role");
    assert!(refused["faults"][0]["problem"].as_str().unwrap().contains("writer.write"), "{refused}");
    problem(put("/v1/namespaces/a/bindings/me", binding("writer", "ann")).await, 403, "grant_not_held").await;
    // Nor by making the role that she holds larger, by a new role, by an inclusion, or by switching the service open.
    let wider =
        json!({"permissions": [{"name": "read", "service": "orders", "methods": ["*"], "paths": ["/{**}"]}]});
    problem(put("/v1/namespaces/a/roles/reader", wider.clone()).await, 403, "grant_not_held").await;
    problem(put("/v1/namespaces/a/roles/new", wider.clone()).await, 403, "grant_not_held").await;
    problem(put("/v1/namespaces/a/roles/new", json!({"includes": ["writer"]})).await, 403, "grant_not_held")
        .await;
    let open = json!({"callers": ["external"], "mode": "audit"});
    problem(put("/v1/namespaces/a/services/orders", open).await, 403, "grant_not_held").await;
    // Nor by apply, in one go with the role, nor as a trial.
    let role = json!({"kind": "Role", "namespace": "a", "name": "new", "permissions": wider["permissions"]});
    let grant = json!({"kind": "Binding", "namespace": "a", "name": "me", "role": "new",
        "who": {"issuer": "demo", "subject": "ann"}});
    for dry_run in [false, true] {
        let body = json!({"documents": [role, grant], "dry_run": dry_run});
        problem(two.as_ann(Method::POST, "/v1/apply", Some(body)).await, 403, "grant_not_held").await;
    }
    // Nor by going back to a time when somebody had it.
    let root = async |method: Method, body: Option<Value>| {
        let path = "/v1/namespaces/a/bindings/eve";
        assert!(two.mesh.send(method, path, &two.root, body).await.status().is_success());
    };
    root(Method::PUT, Some(binding("writer", "eve"))).await;
    let epoch = two.mesh.cell.load().epoch;
    root(Method::DELETE, None).await;
    let back = two.as_ann(Method::POST, "/v1/rollback", Some(json!({"epoch": epoch}))).await;
    problem(back, 403, "grant_not_held").await;
    // What narrows is no grant.
    assert_eq!(put("/v1/namespaces/a/roles/writer", json!({})).await.status(), 200);
    assert_eq!(two.as_ann(Method::DELETE, path, None).await.status(), 204);
    // Whoever holds the right to grant in the namespace may, and only there.
    let system = "/v1/namespaces/tollgate-system/bindings/ann-grants";
    let given = two.mesh.send(Method::PUT, system, &two.root, Some(binding("grants-in-a", "ann"))).await;
    assert_eq!(given.status(), 201);
    assert_eq!(put("/v1/namespaces/a/roles/writer", wider).await.status(), 200);
    assert_eq!(put(path, binding("writer", "bob")).await.status(), 201);
    assert_eq!(put("/v1/namespaces/b/bindings/bob", binding("reader", "bob")).await.status(), 403);
}
