//! Killed with SIGKILL again and again: what was acknowledged is there exactly once, and no file is damaged.

use std::collections::HashSet;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};
use sqlx::{Connection as _, Row as _};
use tollgate_proto::opentelemetry_proto::tonic::collector::logs::v1::logs_service_client::LogsServiceClient;
use tollgate_testkit::ports::{free_address, free_addresses};

use crate::harness::{DEADLINE, Story, request};

const ROUNDS: usize = 6;
const BATCH: usize = 20;

struct Process {
    child: Child,
    link: String,
}

fn start(dir: &Path, grpc: SocketAddr) -> Process {
    let config = dir.join("dashboard.yaml");
    let [web, http] = free_addresses();
    let text = format!(
        "web: {{listen: \"{web}\"}}\notlp: {{grpc: \"{grpc}\", http: \"{http}\"}}\n\
         store: {{dir: \"{}\", seal_records: 64, seal_after: 50ms}}\n",
        dir.join("telemetry").display()
    );
    std::fs::write(&config, text).unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_tollgate-dashboard"))
        .arg("--config")
        .arg(&config)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let link = lines
        .by_ref()
        .map_while(Result::ok)
        .find_map(|line| line.split_once("(works once): ").map(|(_, link)| link.to_owned()))
        .expect("the process says how to sign in");
    // Whatever else it says must not fill the pipe.
    std::thread::spawn(move || lines.for_each(drop));
    Process { child, link }
}

/// Sends until the process dies; the ids of what was acknowledged.
async fn send_until_dead(
    grpc: SocketAddr,
    round: usize,
    acknowledged: &mut HashSet<String>,
    enough: usize,
    kill: impl FnOnce(),
) {
    let connect = async {
        loop {
            match LogsServiceClient::connect(format!("http://{grpc}")).await {
                Ok(client) => break client,
                Err(_) => tokio::task::yield_now().await,
            }
        }
    };
    let mut client = tokio::time::timeout(DEADLINE, connect).await.expect("the process listens");
    let mut kill = Some(kill);
    let mut sent = 0;
    for batch in 0.. {
        let ids: Vec<String> = (0..BATCH).map(|n| format!("k-{round}-{batch}-{n}")).collect();
        let records = ids.iter().map(|id| Story { id, ..Story::default() }.record()).collect();
        match client.export(request(records)).await {
            Ok(_) => acknowledged.extend(ids),
            Err(_) => return,
        }
        sent += BATCH;
        if sent >= enough
            && let Some(kill) = kill.take()
        {
            kill();
        }
    }
}

async fn stored(link: &str) -> Vec<String> {
    let (base, token) = link.split_once("/login#token=").unwrap();
    let http = reqwest::Client::new();
    let login =
        http.post(format!("{base}/api/v1/auth/login")).json(&json!({"token": token})).send().await.unwrap();
    let cookie = login.headers()["set-cookie"].to_str().unwrap().split(';').next().unwrap().to_owned();
    let csrf = login.json::<Value>().await.unwrap()["csrf"].as_str().unwrap().to_owned();
    let answer = http
        .post(format!("{base}/api/v1/requests/search"))
        .header("cookie", cookie)
        .header("x-csrf-token", csrf)
        .header("accept", "application/x-ndjson")
        .json(&json!({"q": "", "limit": 100_000}))
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 200);
    let lines = answer.text().await.unwrap();
    lines
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["id"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_records_survive_sigkill_exactly_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged = HashSet::new();
    for round in 0..ROUNDS {
        let grpc = free_address();
        let mut process = start(dir.path(), grpc);
        // Later and later in the life of a block: before, during and after sealing and joining.
        let enough = 40 + round * 170;
        let child = &mut process.child;
        send_until_dead(grpc, round, &mut acknowledged, enough, || child.kill().unwrap()).await;
        process.child.wait().unwrap();
    }
    let mut process = start(dir.path(), free_address());
    let found = stored(&process.link).await;
    let different: HashSet<String> = found.iter().cloned().collect();
    assert_eq!(found.len(), different.len(), "a record is there twice");
    let lost: Vec<_> = acknowledged.difference(&different).collect();
    assert!(lost.is_empty(), "{} of {} acknowledged records are lost", lost.len(), acknowledged.len());
    assert!(acknowledged.len() >= ROUNDS * 40);
    process.child.kill().unwrap();
    process.child.wait().unwrap();

    for entry in std::fs::read_dir(dir.path().join("telemetry")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|ext| ext == "db") {
            let mut db =
                sqlx::SqliteConnection::connect(&format!("sqlite://{}", path.display())).await.unwrap();
            let check: String =
                sqlx::query("PRAGMA integrity_check").fetch_one(&mut db).await.unwrap().get(0);
            assert_eq!(check, "ok", "{}", path.display());
        }
    }
}
