//! Rollouts: the record on both databases, the wire that proxies report by, and what administrators may do.

use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tollgate_authz::store::{
    ActTerms, Authorship, IdempotencyKey, RolloutError, RolloutReport, Store, StoreError,
};
use tollgate_proto::rollout as wire;
use tollgate_proto::rollout::rollouts_client::RolloutsClient;
use tollgate_rollout::{Action, ArmCounts, Plan, Share, State, Step, Window};
use tollgate_runtime::clock::{Clock, ManualClock};
use tollgate_runtime::config::Secret;
use tollgate_testkit::postgres::PostgresServer;
use tonic::Code;
use tonic::transport::Channel;

use crate::running::Running;

/// Whatever state it is in, and every time.
const ANY: ActTerms<'_> = ActTerms { expected: None, key: None };

fn plan(name: &str) -> Plan {
    Plan {
        service: "insurance/policies".to_owned(),
        name: name.to_owned(),
        baseline: "v1-0".to_owned(),
        canary: "v1-1".to_owned(),
        steps: vec![
            Step { weight: Share::millionths(100_000), hold_ms: Some(60_000) },
            Step { weight: Share::millionths(500_000), hold_ms: None },
        ],
        min_samples: 100,
        false_alarm: Share::millionths(1_000),
        tolerance: Share::millionths(1_000),
        latency: None,
    }
}

fn report(proxy: &str, sequence: u64, canary: (u64, u64)) -> RolloutReport {
    let arm = |ok, failed| ArmCounts { ok, failed, latency: Vec::new() };
    let window = Window { baseline: arm(9 * (canary.0 + canary.1), 0), canary: arm(canary.0, canary.1) };
    RolloutReport { proxy: proxy.to_owned(), sequence, window }
}

fn asked(proxy: &str) -> RolloutReport {
    RolloutReport { proxy: proxy.to_owned(), sequence: 0, window: Window::default() }
}

fn by() -> Authorship {
    Authorship::new("test/me", "because")
}

async fn open(url: &str) -> (Store, ManualClock) {
    let (clock, hand) = Clock::manual(1_000_000_000_000_000_000);
    (Store::open(&Secret::new(url), clock).await.unwrap(), hand)
}

async fn a_window_is_counted_once_and_a_step_goes_on(url: &str) {
    let (store, hand) = open(url).await;
    let plan = plan("steps");
    let first = store.report_rollout(&plan, &[asked("a"), report("b", 1, (60, 0))]).await.unwrap();
    assert_eq!((first.record.generation, first.record.step_samples, first.counted), (1, 60, 1));
    let again =
        store.report_rollout(&plan, &[report("b", 1, (60, 0)), report("a", 7, (30, 0))]).await.unwrap();
    assert_eq!((again.record.step_samples, again.counted, again.repeated), (90, 1, 1));
    hand.advance(Duration::from_secs(60));
    // Time alone does not do it, nor do enough answers alone: the next report that completes both does.
    assert!(store.report_rollout(&plan, &[asked("a")]).await.unwrap().changes.is_empty());
    let on = store.report_rollout(&plan, &[report("a", 8, (10, 0))]).await.unwrap();
    assert_eq!(on.changes.len(), 1);
    assert_eq!((on.changes[0].0, on.changes[0].1.weight), (2, Share::millionths(500_000)));
    let kept = store.rollout("insurance", "steps").await.unwrap().unwrap();
    assert_eq!((kept.record.generation, kept.record.step, kept.in_force, kept.plan), (2, 1, true, plan.id()));
    let events = store.rollout_events("insurance", "steps", 10).await.unwrap();
    assert_eq!((events.len(), events[0].author.as_str(), events[0].weight), (1, "tollgate-authz", 50.0));
    assert_eq!(events[0].reason, "100 answers in 60.0 s");
}

/// An epoch of policy is no business of rollouts.
async fn a_bad_canary_is_rolled_back_once_by_many_replicas(url: &str) {
    let (store, _) = open(url).await;
    let (other, _) = open(url).await;
    let plan = plan("bad");
    let mut sequence = 0;
    while store
        .rollout("insurance", "bad")
        .await
        .unwrap()
        .is_none_or(|one| one.record.state == State::Progressing)
    {
        sequence += 1;
        assert!(sequence < 50, "never rolled back");
        let (a, b) = ([report("a", sequence, (19, 1))], [report("b", sequence, (19, 1))]);
        let both =
            futures_util::future::join(store.report_rollout(&plan, &a), other.report_rollout(&plan, &b));
        let (a, b) = both.await;
        a.unwrap();
        b.unwrap();
    }
    let events = other.rollout_events("insurance", "bad", 10).await.unwrap();
    assert_eq!(events.len(), 1, "{events:?}");
    assert_eq!((events[0].became.as_str(), events[0].weight), ("rolled_back", 0.0));
    assert!(events[0].reason.starts_with("the canary fails 5.00 % of its last requests"), "{events:?}");
    assert_eq!(store.epoch().await.unwrap(), 0);
    // What comes late is told where it stands, and changes nothing.
    let late = store.report_rollout(&plan, &[report("a", 1_000, (1_000, 0))]).await.unwrap();
    assert_eq!((late.record.weight(), late.changes.len()), (Share::NONE, 0));
}

async fn who_acts_on_an_old_state_is_told(url: &str) {
    let (store, hand) = open(url).await;
    let plan = plan("hands");
    let of = ("insurance", "hands");
    let nothing = store.act_on_rollout(of, Action::Pause, ANY, &by()).await.unwrap_err();
    assert!(matches!(nothing, RolloutError::NotFound(..)), "{nothing}");
    store.report_rollout(&plan, &[asked("a")]).await.unwrap();
    let seen = store.rollout(of.0, of.1).await.unwrap().unwrap().tag();
    // Of many at once that have seen the same, one gets its will.
    let by = by();
    let terms = ActTerms { expected: Some(&seen), key: None };
    let tries = (0..8).map(|_| store.act_on_rollout(of, Action::Promote, terms, &by));
    let outcomes = futures_util::future::join_all(tries).await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1);
    assert!(outcomes.iter().flat_map(Result::as_ref).all(|now| now.rollout.record.step == 1));
    assert!(
        outcomes.iter().filter_map(|one| one.as_ref().err()).all(|e| matches!(e, RolloutError::Moved { .. }))
    );
    let rolled_back = store.act_on_rollout(of, Action::RollBack, ANY, &by).await.unwrap();
    assert_eq!(rolled_back.rollout.record.weight(), Share::NONE);
    let no = store.act_on_rollout(of, Action::Promote, ANY, &by).await.unwrap_err();
    assert_eq!(no.to_string(), "a rollout that is rolled_back cannot promote");
    hand.advance(Duration::from_secs(1));
    store.act_on_rollout(of, Action::Restart, ANY, &by).await.unwrap();
    let again = store.report_rollout(&plan, &[asked("a")]).await.unwrap().record;
    assert_eq!((again.state, again.step, again.generation), (State::Progressing, 0, 4));
    let events = store.rollout_events(of.0, of.1, 10).await.unwrap();
    let told: Vec<_> =
        events.iter().map(|one| (one.action.as_str(), one.author.as_str(), one.reason.as_str())).collect();
    assert_eq!(told[0], ("restart", "test/me", "because"));
    assert_eq!(told.len(), 3);
}

async fn what_was_done_under_a_key_is_done_once(url: &str) {
    let (store, hand) = open(url).await;
    let of = ("insurance", "once");
    for name in [of.1, "other"] {
        store
            .report_rollout(&Plan { service: "insurance/x".to_owned(), ..plan(name) }, &[asked("a")])
            .await
            .unwrap();
    }
    let key = |fingerprint: &str| IdempotencyKey {
        caller: "test/me".to_owned(),
        key: "k1".to_owned(),
        fingerprint: fingerprint.to_owned(),
    };
    let (promote, by, seen) = (key("promote"), by(), store.rollout(of.0, of.1).await.unwrap().unwrap().tag());
    let terms = ActTerms { expected: Some(&seen), key: Some(&promote) };
    // A client that heard no answer asks again, and once more while the first is still under way.
    let tries = (0..8).map(|_| store.act_on_rollout(of, Action::Promote, terms, &by));
    let outcomes = futures_util::future::join_all(tries).await;
    assert!(outcomes.iter().flatten().all(|acted| acted.rollout.record.step == 1), "{outcomes:?}");
    assert_eq!(outcomes.iter().flatten().filter(|acted| !acted.replayed).count(), 1, "{outcomes:?}");
    // The key for something else is a mistake, here and at another rollout.
    let pause = key("pause");
    let terms = ActTerms { expected: None, key: Some(&pause) };
    for of in [of, ("insurance", "other")] {
        let reused = store.act_on_rollout(of, Action::Pause, terms, &by).await.unwrap_err();
        assert!(matches!(reused, RolloutError::Store(StoreError::KeyReused)), "{reused}");
    }
    assert_eq!(store.rollout_events(of.0, of.1, 10).await.unwrap().len(), 1);
    // A day later it is another request.
    hand.advance(Duration::from_secs(24 * 3600 + 1));
    assert!(!store.act_on_rollout(of, Action::Pause, terms, &by).await.unwrap().replayed);
}

/// While a configuration goes round a fleet, proxies of both report; neither disturbs the other.
async fn another_plan_is_another_record_and_the_last_adopted_is_in_force(url: &str) {
    let (store, hand) = open(url).await;
    let (old, new) = (plan("v"), Plan { min_samples: 500, ..plan("v") });
    store.report_rollout(&old, &[report("a", 1, (50, 0))]).await.unwrap();
    hand.advance(Duration::from_secs(1));
    store.report_rollout(&new, &[report("b", 1, (70, 0))]).await.unwrap();
    let both = store.report_rollout(&old, &[report("a", 2, (1, 0))]).await.unwrap();
    assert_eq!(both.record.step_samples, 51);
    assert_eq!(store.rollout("insurance", "v").await.unwrap().unwrap().plan, new.id());
    let listed = store.rollouts(("", "", ""), 10).await.unwrap();
    let listed: Vec<_> = listed.iter().map(|one| (one.plan.clone(), one.in_force)).collect();
    let mut expected = vec![(old.id(), false), (new.id(), true)];
    expected.sort();
    assert_eq!(listed, expected);
    // The old configuration is brought back.
    hand.advance(Duration::from_secs(600));
    let back = store.report_rollout(&old, &[report("a", 3, (1, 0))]).await.unwrap();
    assert_eq!(back.record.step_samples, 52, "where it was");
    assert_eq!(store.rollout("insurance", "v").await.unwrap().unwrap().plan, old.id());
    assert_eq!(store.rollouts(("insurance", "v", &expected[0].0), 10).await.unwrap().len(), 1);
}

async fn there_is_room_for_so_many_and_the_silent_make_room(url: &str) {
    let (store, hand) = open(url).await;
    let nth = |n: u64| Plan { min_samples: 100 + n, ..plan("many") };
    for n in 0..20 {
        store.report_rollout(&nth(n), &[asked("a")]).await.unwrap();
    }
    let refused = store.report_rollout(&nth(20), &[asked("a")]).await.unwrap_err();
    assert!(matches!(refused, RolloutError::TooMany), "{refused}");
    store.report_rollout(&nth(3), &[asked("a")]).await.unwrap();
    hand.advance(Duration::from_secs(3_601));
    store.report_rollout(&nth(3), &[report("a", 1, (1, 0))]).await.unwrap();
    store.report_rollout(&nth(20), &[asked("a")]).await.unwrap();
    let plans = store.rollouts(("", "", ""), 100).await.unwrap();
    assert_eq!(plans.len(), 20);
    assert!(plans.iter().any(|one| one.plan == nth(3).id()), "it was heard of");
}

macro_rules! contract {
    ($($name:ident),* $(,)?) => {
        mod sqlite {
            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $name() {
                    let folder = super::TempDir::new().unwrap();
                    let url = format!("sqlite://{}", folder.path().join("authz.db").display());
                    super::$name(&url).await;
                }
            )*
        }

        /// One server for the whole suite, a database each.
        #[tokio::test(flavor = "multi_thread")]
        async fn postgres() {
            let server = PostgresServer::start();
            $(
                println!("{}", stringify!($name));
                $name(&server.create_database(stringify!($name))).await;
            )*
        }
    };
}

contract!(
    a_window_is_counted_once_and_a_step_goes_on,
    a_bad_canary_is_rolled_back_once_by_many_replicas,
    who_acts_on_an_old_state_is_told,
    what_was_done_under_a_key_is_done_once,
    another_plan_is_another_record_and_the_last_adopted_is_in_force,
    there_is_room_for_so_many_and_the_silent_make_room,
);

fn told(service: &str, sequence: u64, canary: (u64, u64)) -> wire::RolloutReport {
    let arm = |ok, failed| Some(wire::Arm { ok, failed, latency: Vec::new() });
    wire::RolloutReport {
        plan: Some(wire::Plan {
            service: service.to_owned(),
            name: "v1-1".to_owned(),
            baseline: "v1-0".to_owned(),
            canary: "v1-1".to_owned(),
            steps: [100_000, 500_000]
                .map(|weight_millionths| wire::Step { weight_millionths, hold_ms: None })
                .to_vec(),
            min_samples: 10,
            false_alarm_millionths: 1_000,
            tolerance_millionths: 0,
            latency: None,
        }),
        sequence,
        window: Some(wire::Window {
            baseline: arm(9 * (canary.0 + canary.1), 0),
            canary: arm(canary.0, canary.1),
        }),
    }
}

fn client(running: &Running) -> RolloutsClient<Channel> {
    let channel = Channel::from_shared(format!("http://{}", running.addresses.grpc)).unwrap();
    RolloutsClient::new(channel.connect_lazy())
}

async fn send(
    client: &RolloutsClient<Channel>,
    rollouts: Vec<wire::RolloutReport>,
) -> Result<Vec<wire::Standing>, tonic::Status> {
    let request = wire::ReportRequest { proxy: "ingress-1".to_owned(), rollouts };
    Ok(client.clone().report(request).await?.into_inner().rollouts)
}

#[tokio::test(flavor = "multi_thread")]
async fn proxies_report_and_hear_where_a_rollout_stands() {
    let mesh = Running::demo().await;
    let client = client(&mesh);
    let first = send(&client, vec![told("insurance/policies", 1, (50, 0))]).await.unwrap();
    assert_eq!(first[0].state(), wire::State::Progressing);
    assert_eq!(
        (first[0].generation, first[0].weight_millionths, first[0].refused.as_str()),
        (1, 100_000, "")
    );
    // The same again is counted once; many at once are all answered.
    let many =
        (0..50).map(|n| send(&client, vec![told("insurance/policies", 1 + n % 3, (50, 0))]).into_future());
    for answer in futures_util::future::join_all(many).await {
        assert_eq!(answer.unwrap()[0].generation, 1);
    }
    let record = mesh.store.rollout("insurance", "v1-1").await.unwrap().unwrap().record;
    assert!(
        (100..=150).contains(&record.step_samples),
        "each of three at most once: {}",
        record.step_samples
    );
    for sequence in 4..20 {
        send(&client, vec![told("insurance/policies", sequence, (45, 5))]).await.unwrap();
    }
    let bad = send(&client, vec![told("insurance/policies", 20, (45, 5))]).await.unwrap();
    assert_eq!((bad[0].state(), bad[0].weight_millionths), (wire::State::RolledBack, 0));
    let metrics = mesh.service.telemetry().render_metrics().unwrap();
    let changes = metrics.lines().find(|line| line.starts_with("tollgate_rollout_changes")).unwrap();
    assert!(changes.contains("to=\"rolled_back\""), "{changes}");
}

#[tokio::test]
async fn what_no_proxy_can_have_seen_is_refused() {
    let mesh = Running::demo().await;
    let client = client(&mesh);
    let mut broken = told("insurance/policies", 1, (1, 0));
    broken.plan.as_mut().unwrap().steps.clear();
    let mut huge = told("insurance/policies", 1, (1, 0));
    huge.window.as_mut().unwrap().canary.as_mut().unwrap().ok = u64::MAX;
    let good = told("insurance/policies", 1, (1, 0));
    let nameless = told("policies", 1, (1, 0));
    let answers =
        send(&client, vec![broken, huge, wire::RolloutReport::default(), nameless, good]).await.unwrap();
    let refused: Vec<_> = answers.iter().map(|answer| answer.refused.as_str()).collect();
    assert!(refused[0].starts_with("steps: there are 0"), "{refused:?}");
    assert_eq!(refused[1..3], ["no proxy can have counted this", "there is no plan"]);
    assert!(refused[3].starts_with("service: `policies`"), "{refused:?}");
    assert_eq!((refused[4], answers[4].generation), ("", 1));
    // Refused altogether: too many, or from nobody.
    let many = vec![told("insurance/policies", 1, (1, 0)); 101];
    assert_eq!(send(&client, many).await.unwrap_err().code(), Code::InvalidArgument);
    let nobody = wire::ReportRequest::default();
    assert_eq!(client.clone().report(nobody).await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn an_enforcer_reports_of_its_own_services_alone() {
    let mesh = Running::demo().await;
    let local =
        json!({"kind": "Enforcer", "name": "local", "point": "ingress", "services": ["insurance/quotes"]});
    mesh.apply(vec![serde_json::from_value(local).unwrap()]).await;
    let both = vec![told("insurance/policies", 1, (1, 0)), told("insurance/quotes", 1, (1, 0))];
    let answers = send(&client(&mesh), both).await.unwrap();
    assert_eq!(answers[0].refused, "the enforcer may not ask about this service");
    assert_eq!(answers[1].refused, "");
    assert!(
        mesh.store
            .rollout("insurance", "v1-1")
            .await
            .unwrap()
            .unwrap()
            .record
            .plan
            .service
            .ends_with("quotes")
    );
}

struct Admin<'m> {
    mesh: &'m Running,
    token: String,
}

impl Admin<'_> {
    async fn send(&self, method: &str, path: &str, if_match: Option<&str>) -> (u16, Value, String) {
        let mut request = self.mesh.http.request(method.parse().unwrap(), self.mesh.url(path));
        request = request.bearer_auth(&self.token).header("x-tollgate-change-reason", "on purpose");
        if let Some(tag) = if_match {
            request = request.header("if-match", tag);
        }
        let answer = request.send().await.unwrap();
        let tag = answer.headers().get("etag").map(|tag| tag.to_str().unwrap().to_owned());
        (answer.status().as_u16(), answer.json().await.unwrap_or(Value::Null), tag.unwrap_or_default())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn administrators_see_pause_promote_and_roll_back() {
    let mesh = Running::demo().await;
    let admin = Admin { mesh: &mesh, token: mesh.administrator("root").await };
    send(&client(&mesh), vec![told("insurance/policies", 1, (5, 0))]).await.unwrap();
    let path = "/v1/namespaces/insurance/rollouts/v1-1";
    let (status, list, _) = admin.send("GET", "/v1/rollouts", None).await;
    assert_eq!((status, list["items"].as_array().unwrap().len()), (200, 1), "{list}");
    let (status, seen, tag) = admin.send("GET", path, None).await;
    assert_eq!(
        (status, &seen["state"], &seen["weight"]),
        (200, &json!("progressing"), &json!(10.0)),
        "{seen}"
    );
    assert_eq!(seen["waits_for"], "somebody to promote it");
    assert_eq!(seen["answers"]["canary"], 5);
    let (status, paused, _) = admin.send("POST", &format!("{path}/pause"), Some(&tag)).await;
    assert_eq!((status, &paused["state"], &paused["reason"]), (200, &json!("paused"), &json!("on purpose")));
    // Seen before the pause.
    let (status, problem, _) = admin.send("POST", &format!("{path}/promote"), Some(&tag)).await;
    assert_eq!((status, &problem["reason"]), (412, &json!("moved")), "{problem}");
    assert_eq!(admin.send("POST", &format!("{path}/resume"), None).await.1["state"], "progressing");
    assert_eq!(admin.send("POST", &format!("{path}/promote"), None).await.1["weight"], 50.0);
    assert_eq!(admin.send("POST", &format!("{path}/promote?fully=true"), None).await.1["state"], "promoted");
    let answers = send(&client(&mesh), vec![told("insurance/policies", 2, (5, 0))]).await.unwrap();
    assert_eq!((answers[0].state(), answers[0].weight_millionths), (wire::State::Promoted, 1_000_000));
    let (status, problem, _) = admin.send("POST", &format!("{path}/pause"), None).await;
    assert_eq!((status, &problem["reason"]), (409, &json!("not_possible")), "{problem}");
    assert_eq!(admin.send("POST", &format!("{path}/rollback"), None).await.1["state"], "rolled_back");
    assert_eq!(admin.send("POST", &format!("{path}/restart"), None).await.1["step"], 1);
    let (_, events, _) = admin.send("GET", &format!("{path}/events?limit=2"), None).await;
    let told: Vec<_> =
        events["items"].as_array().unwrap().iter().map(|one| one["action"].as_str().unwrap()).collect();
    assert_eq!(told.len(), 2, "{events}");
    assert_eq!(events["items"][0]["author"], "tollgate-admin/root", "{events}");
    assert_eq!(events["next"], "2");
    for (method, path) in [
        ("GET", "/v1/namespaces/insurance/rollouts/other"),
        ("POST", "/v1/namespaces/insurance/rollouts/other/pause"),
    ] {
        assert_eq!(admin.send(method, path, None).await.0, 404, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_asks_again_with_its_key_promotes_once() {
    let mesh = Running::demo().await;
    let token = mesh.administrator("root").await;
    send(&client(&mesh), vec![told("insurance/policies", 1, (5, 0))]).await.unwrap();
    let act = async |act: &str, key: &str, tag: Option<&str>| {
        let url = mesh.url(&format!("/v1/namespaces/insurance/rollouts/v1-1/{act}"));
        let mut request = mesh.http.post(url).bearer_auth(&token).header("idempotency-key", key);
        if let Some(tag) = tag {
            request = request.header("if-match", tag);
        }
        let answer = request.send().await.unwrap();
        let replayed = answer.headers().get("idempotency-replayed").is_some();
        let tag = answer.headers().get("etag").map(|tag| tag.to_str().unwrap().to_owned());
        (answer.status().as_u16(), replayed, answer.json::<Value>().await.unwrap(), tag.unwrap_or_default())
    };
    let (_, _, _, tag) = act("resume", "k0", None).await;
    let (status, replayed, first, _) = act("promote", "k1", Some(&tag)).await;
    assert_eq!((status, replayed, &first["step"]), (200, false, &json!(2)), "{first}");
    // What it had seen is no longer so, by its own doing.
    let (status, replayed, again, _) = act("promote", "k1", Some(&tag)).await;
    assert_eq!((status, replayed, &again["generation"]), (200, true, &first["generation"]), "{again}");
    assert_eq!(act("promote", "k1", None).await.2["step"], 2);
    for other in ["promote?fully=true", "rollback"] {
        let (status, _, problem, _) = act(other, "k1", None).await;
        assert_eq!((status, &problem["reason"]), (422, &json!("idempotency_key_reused")), "{problem}");
    }
    assert_eq!(act("promote", "k2", None).await.2["state"], "promoted");
    assert_eq!(act("pause", "", None).await.0, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn rollouts_of_other_namespaces_are_nobodys_business() {
    let mesh = Running::demo().await;
    let documents = [
        json!({"kind": "Service", "namespace": "tollgate-system", "name": "admin", "callers": ["external"],
            "issuers": ["demo"], "audiences": ["insurance"]}),
        // May read and steer the rollouts of one namespace.
        json!({"kind": "Role", "namespace": "tollgate-system", "name": "releases", "permissions": [
            {"name": "list", "service": "admin", "methods": ["GET"], "paths": ["/v1/rollouts"]},
            {"name": "own", "service": "admin", "methods": ["GET", "POST"],
                "paths": ["/v1/namespaces/insurance/rollouts/{**}"]}]}),
        json!({"kind": "Binding", "namespace": "tollgate-system", "name": "editor-releases", "role": "releases",
            "who": {"issuer": "demo", "subject": "editor"}}),
    ];
    mesh.apply(documents.map(|object| serde_json::from_value(object).unwrap()).to_vec()).await;
    let editor = Admin { mesh: &mesh, token: mesh.token("editor", "admin") };
    for service in ["insurance/policies", "bank/accounts"] {
        send(&client(&mesh), vec![told(service, 1, (5, 0))]).await.unwrap();
    }
    let (status, list, _) = editor.send("GET", "/v1/rollouts", None).await;
    assert_eq!(status, 200, "{list}");
    let names: Vec<_> =
        list["items"].as_array().unwrap().iter().map(|one| one["namespace"].clone()).collect();
    assert_eq!(names, ["insurance"], "{list}");
    assert_eq!(editor.send("POST", "/v1/namespaces/insurance/rollouts/v1-1/pause", None).await.0, 200);
    assert_eq!(editor.send("POST", "/v1/namespaces/bank/rollouts/v1-1/pause", None).await.0, 403);
    assert_eq!(editor.send("GET", "/v1/namespaces/bank/rollouts/v1-1", None).await.0, 403);
}
