//! Administrators of one namespace: they see theirs, change theirs, and grant no more than they hold.

use reqwest::Method;
use serde_json::{Value, json};

use crate::admin::problem;
use crate::running::{Ask, Running, claims};

/// Two namespaces; `ann` administers the first, and holds the role `reader` in it.
pub(crate) struct Two {
    pub(crate) mesh: Running,
    pub(crate) root: String,
    pub(crate) ann: String,
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
    pub(crate) async fn start() -> Self {
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
                        "/v1/export", "/v1/diff", "/v1/status", "/v1/explain", "/v1/token/verify",
                        "/access/v1/{**}"]}]}),
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

    pub(crate) async fn as_ann(&self, method: Method, path: &str, body: Option<Value>) -> reqwest::Response {
        self.mesh.send(method, path, &self.ann, body).await
    }

    pub(crate) async fn seen(&self, path: &str) -> Value {
        let answer = self.as_ann(Method::GET, path, None).await;
        assert_eq!(answer.status(), 200, "{path}");
        answer.json().await.unwrap()
    }
}

pub(crate) fn binding(role: &str, subject: &str) -> Value {
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

#[tokio::test]
async fn what_is_not_hers_is_neither_told_nor_answered_about() {
    let two = Two::start().await;
    let post = async |path: &str, body: Value| two.as_ann(Method::POST, path, Some(body)).await;
    // The right comes before the work: whether there is such an epoch is not even looked at.
    let explain = |service: Value, epoch: u64| json!({"what": {"service": service, "path": "/orders/1", "host": "nowhere"}, "epoch": epoch});
    problem(post("/v1/explain", explain(json!("b/orders"), 999_999)).await, 403, "role_missing").await;
    problem(post("/v1/explain", explain(json!("a/orders"), 999_999)).await, 404, "no_such_epoch").await;
    problem(post("/v1/explain", explain(Value::Null, 1)).await, 403, "default_deny").await;
    let epoch = two.mesh.cell.load().epoch;
    assert_eq!(post("/v1/explain", explain(json!("a/orders"), epoch - 1)).await.status(), 200);

    // A token is explained with a service of hers, and the issuers are not hers.
    let verify = |service: Value| json!({"token": two.ann, "service": service});
    problem(post("/v1/token/verify", verify(json!("b/orders"))).await, 403, "role_missing").await;
    problem(post("/v1/token/verify", verify(json!("b/none"))).await, 403, "role_missing").await;
    problem(post("/v1/token/verify", verify(Value::Null)).await, 403, "role_missing").await;
    assert_eq!(post("/v1/token/verify", verify(json!("a/orders"))).await.status(), 200);
    let by_root = two.mesh.send(Method::POST, "/v1/token/verify", &two.root, Some(verify(Value::Null))).await;
    assert_eq!(by_root.status(), 200);

    // AuthZEN answers about what she may read, one by one and in a batch.
    let ask = |service: &str| {
        json!({"subject": {"type": "user", "id": "ann", "properties": {"issuer": "demo"}}, "action": {"name": "GET"},
            "resource": {"type": "service", "id": service, "properties": {"path": "/orders/1"}}})
    };
    for (service, status) in [("a/orders", 200), ("b/orders", 403), ("b/none", 403), ("orders", 403)] {
        assert_eq!(post("/access/v1/evaluation", ask(service)).await.status(), status, "{service}");
    }
    let batch = json!({"evaluations": [ask("a/orders"), ask("b/orders")]});
    let answers: Value = post("/access/v1/evaluations", batch).await.json().await.unwrap();
    assert_eq!(answers["evaluations"][0]["decision"], true, "{answers}");
    assert_eq!(
        answers["evaluations"][1]["context"],
        json!({"error": {"status": 403,
        "message": "resource.id: a service that the caller may not read"}})
    );

    // What a refused roll back or a refused prune would have touched is not named.
    let put = async |path: &str, body: Value| two.mesh.send(Method::PUT, path, &two.root, Some(body)).await;
    assert_eq!(put("/v1/namespaces/b/services/secret", json!({"callers": []})).await.status(), 201);
    let back = post("/v1/rollback", json!({"epoch": epoch})).await;
    let pruned = post("/v1/apply", json!({"documents": shop("a"), "prune": true})).await;
    for refused in [back, pruned] {
        let said = problem(refused, 403, "role_missing").await.to_string();
        assert!(!said.contains("secret") && !said.contains("namespaces/b"), "{said}");
    }
    // Nor whether one object has changed.
    for name in ["secret", "orders", "none"] {
        let object = json!({"kind": "Service", "namespace": "b", "name": name});
        let one = post("/v1/rollback", json!({"epoch": epoch, "object": object})).await;
        problem(one, 403, "role_missing").await;
    }
}

#[tokio::test]
async fn the_linter_speaks_of_what_the_caller_may_read() {
    let two = Two::start().await;
    let system = "/v1/namespaces/tollgate-system";
    let role = json!({"permissions": [{"name": "bind", "service": "admin", "methods": ["*"],
        "paths": ["/v1/namespaces/a/bindings/{name}", "/v1/apply", "/v1/grants/a"]}]});
    for (path, body) in [("roles/binder", role), ("bindings/bob", binding("binder", "bob"))] {
        let put = two.mesh.send(Method::PUT, &format!("{system}/{path}"), &two.root, Some(body)).await;
        assert_eq!(put.status(), 201);
    }
    let mut said = claims("bob", "");
    said["aud"] = json!("tollgate-admin");
    let bob = two.mesh.signer.token(&said);
    let open = json!({"kind": "Binding", "namespace": "a", "name": "open", "role": "writer", "who": {"anyone": true}});
    let apply = async |token: &str| -> Value {
        let body = json!({"documents": [open], "dry_run": true});
        let tried = two.mesh.send(Method::POST, "/v1/apply", token, Some(body)).await;
        assert_eq!(tried.status(), 200, "{}", tried.text().await.unwrap());
        tried.json().await.unwrap()
    };
    // It would name the permission of a role that he may not read.
    assert_eq!(apply(&two.root).await["warnings"][0]["code"], "anyone_may_change");
    assert_eq!(apply(&bob).await.get("warnings"), None);
}

#[tokio::test]
async fn what_is_denied_or_revoked_is_not_given_back_by_who_does_not_hold_it() {
    let two = Two::start().await;
    let root = async |method: Method, path: &str, body: Option<Value>| {
        let done = two.mesh.send(method, path, &two.root, body).await;
        assert!(done.status().is_success(), "{}", done.text().await.unwrap());
    };
    let path = "/v1/namespaces/a/denials/eve";
    let denial = |method: &str| {
        let path = if method == "GET" { "/orders/{id}" } else { "/orders" };
        json!({"who": {"issuer": "demo", "subject": "eve"}, "service": "orders", "methods": [method], "paths": [path]})
    };
    // She reads, so she may give reading back.
    root(Method::PUT, path, Some(denial("GET"))).await;
    assert_eq!(two.as_ann(Method::DELETE, path, None).await.status(), 204);
    root(Method::PUT, path, Some(denial("POST"))).await;
    problem(two.as_ann(Method::DELETE, path, None).await, 403, "grant_not_held").await;
    let mut narrower = denial("POST");
    narrower["dry_run"] = json!(true);
    problem(two.as_ann(Method::PUT, path, Some(narrower)).await, 403, "grant_not_held").await;
    let mut wider = denial("POST");
    wider["methods"] = json!(["*"]);
    assert_eq!(two.as_ann(Method::PUT, path, Some(wider)).await.status(), 200);

    // Whoever may write revocations may revoke; taking one back is for those who could give themselves everything.
    let role = json!({"permissions": [{"name": "all", "service": "admin", "methods": ["*"],
        "paths": ["/v1/revocations/{name}"]}]});
    root(Method::PUT, "/v1/namespaces/tollgate-system/roles/revoker", Some(role)).await;
    root(Method::PUT, "/v1/namespaces/tollgate-system/bindings/ann-revokes", Some(binding("revoker", "ann")))
        .await;
    let path = "/v1/revocations/eve";
    let mut revocation = json!({"issuer": "demo", "subject": "eve", "until": "2100-01-01T00:00:00Z"});
    assert_eq!(two.as_ann(Method::PUT, path, Some(revocation.clone())).await.status(), 201);
    revocation["until"] = json!("2099-01-01T00:00:00Z");
    problem(two.as_ann(Method::PUT, path, Some(revocation)).await, 403, "role_missing").await;
    problem(two.as_ann(Method::DELETE, path, None).await, 403, "role_missing").await;
    root(Method::DELETE, path, None).await;
}

#[tokio::test]
async fn a_list_looks_at_a_bounded_number_of_rows_that_are_not_hers() {
    let two = Two::start().await;
    let services = (0..2_500).map(|n| {
        serde_json::from_value(json!({"kind": "Service", "namespace": "b", "name": format!("s{n:04}")}))
            .unwrap()
    });
    two.mesh.apply(services.collect()).await;
    let first = two.seen("/v1/changes?limit=5").await;
    assert_eq!(first["items"], json!([]));
    let next = first["next"].as_str().unwrap();
    let rest = two.seen(&format!("/v1/changes?limit=5&cursor={next}")).await;
    assert_eq!((rest["items"].as_array().unwrap().len(), rest.get("next")), (4, None));
}
