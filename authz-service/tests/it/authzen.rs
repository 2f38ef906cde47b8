//! AuthZEN's evaluation API.

use serde_json::{Value, json};

use crate::running::Running;

async fn post(mesh: &Running, administrator: &str, path: &str, body: &Value) -> (u16, Value) {
    let request = mesh.http.post(mesh.url(path)).bearer_auth(administrator).json(body);
    let answer = request.header("x-request-id", "r-9").send().await.unwrap();
    assert_eq!(answer.headers()["x-request-id"], "r-9");
    (answer.status().as_u16(), answer.json().await.unwrap())
}

fn question(subject: Value, method: &str, path: &str) -> Value {
    json!({"subject": subject, "action": {"name": method},
        "resource": {"type": "service", "id": "insurance/policies", "properties": {"path": path}}})
}

fn user(id: &str) -> Value {
    json!({"type": "user", "id": id, "properties": {"issuer": "demo", "scopes": ["policies:read"]}})
}

#[tokio::test]
async fn one_question_and_its_answer() {
    let mesh = Running::demo().await;
    let administrator = mesh.administrator("root").await;
    let ask = async |question: Value| {
        let (status, answer) = post(&mesh, &administrator, "/access/v1/evaluation", &question).await;
        assert_eq!(status, 200, "{answer}");
        let reason = answer["context"]["reason"].as_str().unwrap().to_owned();
        (answer["decision"].as_bool().unwrap(), reason)
    };
    let token = |subject: &str| json!({"type": "token", "id": mesh.token(subject, "policies:read")});
    for (subject, method, decision, reason) in [
        (user("reader"), "GET", true, "ok"),
        (user("outsider"), "GET", false, "role_missing"),
        (user("reader"), "DELETE", false, "default_deny"),
        (token("reader"), "GET", true, "ok"),
        (token("outsider"), "GET", false, "role_missing"),
        (json!({"type": "token", "id": "broken"}), "GET", false, "token_malformed"),
        (json!({"type": "workload", "id": "spiffe://a/b"}), "GET", false, "caller_denied"),
    ] {
        let asked = question(subject, method, "/policies/1");
        assert_eq!(ask(asked.clone()).await, (decision, reason.to_owned()), "{asked}");
    }
    // Nobody's word counts with a service that does not accept it.
    let service =
        json!({"kind": "Service", "namespace": "insurance", "name": "policies", "callers": ["external"]});
    mesh.apply(vec![serde_json::from_value(service).unwrap()]).await;
    let asked = question(user("reader"), "GET", "/policies/1");
    assert_eq!(ask(asked).await, (false, "token_issuer".to_owned()));
}

#[tokio::test]
async fn several_questions_share_what_they_have_in_common() {
    let mesh = Running::demo().await;
    let administrator = mesh.administrator("root").await;
    let ask = async |semantic: &str| {
        let mut asked = question(user("reader"), "GET", "/policies/1");
        asked["options"] = json!({"evaluations_semantic": semantic});
        asked["evaluations"] =
            json!([{}, {"action": {"name": "POST"}}, {"subject": {"type": "x", "id": "y"}}, {}]);
        let (status, answer) = post(&mesh, &administrator, "/access/v1/evaluations", &asked).await;
        assert_eq!(status, 200, "{answer}");
        let answers = answer["evaluations"].as_array().unwrap().clone();
        answers.iter().map(|answer| answer["decision"].as_bool().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(ask("execute_all").await, [true, false, false, true]);
    assert_eq!(ask("deny_on_first_deny").await, [true, false]);
    assert_eq!(ask("permit_on_first_permit").await, [true]);
    // Without a list it is a single question.
    let single = question(user("reader"), "GET", "/policies/1");
    let (_, answer) = post(&mesh, &administrator, "/access/v1/evaluations", &single).await;
    assert_eq!(answer["decision"], true);
}

#[tokio::test]
async fn what_cannot_be_answered_says_why() {
    let mesh = Running::demo().await;
    let administrator = mesh.administrator("root").await;
    let good = question(user("reader"), "GET", "/policies/1");
    let changed = |pointer: &str, value: Value| {
        let mut asked = good.clone();
        *asked.pointer_mut(pointer).unwrap() = value;
        asked
    };
    for (asked, needle) in [
        (json!({}), "subject is missing"),
        (changed("/resource", Value::Null), "resource is missing"),
        (changed("/action", Value::Null), "action is missing"),
        (changed("/resource/type", json!("book")), "resource.type"),
        (changed("/subject/type", json!("ghost")), "subject.type"),
        (changed("/subject/id", json!("")), "subject.id"),
        (changed("/subject/properties/issuer", json!("nobody")), "there is no issuer"),
        (changed("/subject/properties/issuer", Value::Null), "issuer is missing"),
        (changed("/resource/properties/path", json!("*")), "path"),
        (changed("/action", json!("GET")), "action"),
    ] {
        let (status, answer) = post(&mesh, &administrator, "/access/v1/evaluation", &asked).await;
        assert_eq!(status, 400, "{asked}");
        assert!(answer["error"].as_str().unwrap().contains(needle), "{asked}: {answer}");
    }
    let many = json!({"evaluations": vec![json!({}); 300]});
    assert_eq!(post(&mesh, &administrator, "/access/v1/evaluations", &many).await.0, 400);
}

#[tokio::test]
async fn nobody_asks_without_credentials() {
    let mesh = Running::demo().await;
    for path in ["/access/v1/evaluation", "/access/v1/evaluations"] {
        let answer = mesh.http.post(mesh.url(path)).json(&json!({})).send().await.unwrap();
        assert_eq!(answer.status(), 401, "{path}");
    }
    let path = "/.well-known/authzen-configuration";
    assert_eq!(mesh.http.get(mesh.url(path)).send().await.unwrap().status(), 401);
    let administrator = mesh.administrator("root").await;
    let answer = mesh.http.get(mesh.url(path)).bearer_auth(administrator).send().await.unwrap();
    let configuration: Value = answer.json().await.unwrap();
    assert_eq!(configuration["access_evaluation_endpoint"], mesh.url("/access/v1/evaluation"));
}
