//! The process is killed in the middle of writes: what was answered is there.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::json;
use tempfile::TempDir;
use tollgate_authz::Store;
use tollgate_authz::policy::object::{Kind, ObjectId};
use tollgate_runtime::clock::Clock;
use tollgate_runtime::config::Secret;
use tollgate_testkit::ports::free_addresses;

/// Writes are answered in milliseconds, beside other tests in a second or two.
const ANSWERED_WITHIN: Duration = Duration::from_secs(30);

/// A service in a process of its own.
struct Process {
    child: Child,
    http: String,
}

impl Process {
    async fn start(folder: &Path) -> Self {
        let [grpc, http] = free_addresses();
        let file = folder.join("authz.yaml");
        let config = json!({
            "listen": {"grpc": grpc, "http": http},
            "database": {"url": format!("sqlite://{}", folder.join("authz.db").display())},
            "bootstrap": {"token_file": folder.join("bootstrap-admin.token")},
        });
        std::fs::write(&file, config.to_string()).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_tollgate-authz"))
            .arg("--config")
            .arg(&file)
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        // Its words are read, so that it is never held up by a full pipe.
        let words = BufReader::new(child.stderr.take().unwrap());
        std::thread::spawn(move || words.lines().for_each(drop));
        let process = Self { child, http: format!("http://{http}") };
        let client = reqwest::Client::new();
        let up = async {
            while client.get(format!("{}/healthz", process.http)).send().await.is_err() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), up).await.expect("it starts in time");
        process
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have been killed before, on purpose.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_write_that_was_answered_survives_a_kill() {
    let folder = TempDir::new().unwrap();
    let mut process = Process::start(folder.path()).await;
    let client = reqwest::Client::new();
    let one_use = std::fs::read_to_string(folder.path().join("bootstrap-admin.token")).unwrap();
    let request = client.post(format!("{}/v1/bootstrap", process.http)).bearer_auth(one_use.trim());
    let answer = request.json(&json!({"name": "root"})).send().await.unwrap();
    let root = answer.json::<serde_json::Value>().await.unwrap()["token"].as_str().unwrap().to_owned();

    let answered = Arc::new(AtomicUsize::new(0));
    let writes = (0..100).map(|n| {
        let (client, root, answered) = (client.clone(), root.clone(), Arc::clone(&answered));
        let url = format!("{}/v1/namespaces/crash/services/s{n}", process.http);
        async move {
            let sent = client.put(url).bearer_auth(root).json(&json!({})).send().await;
            let good = sent.is_ok_and(|response| response.status().is_success());
            answered.fetch_add(usize::from(good), Ordering::SeqCst);
            good.then_some(n)
        }
    });
    let writing = futures_util::future::join_all(writes);
    let killing = async {
        let twenty = async {
            while answered.load(Ordering::SeqCst) < 20 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(ANSWERED_WITHIN, twenty).await.expect("twenty writes are answered");
        process.kill();
    };
    let (written, ()) = tokio::join!(writing, killing);
    let written: Vec<_> = written.into_iter().flatten().collect();
    assert!(written.len() >= 20);

    let _again = Process::start(folder.path()).await;
    let url = Secret::new(format!("sqlite://{}", folder.path().join("authz.db").display()));
    let store = Store::open(&url, Clock::system()).await.unwrap();
    let loaded = store.load().await.unwrap();
    for n in written {
        let id = ObjectId::new(Kind::Service, "crash", format!("s{n}"));
        assert!(loaded.objects.contains_key(&id), "{id} was answered and is not there");
    }
    // Every epoch has its row of history: nothing was written by half.
    let mut epochs: Vec<_> = store.changes(None, 1000).await.unwrap().iter().map(|row| row.epoch).collect();
    epochs.sort_unstable();
    epochs.dedup();
    assert_eq!(epochs, (1..=loaded.epoch).collect::<Vec<_>>());
}

#[test]
fn bad_input_ends_with_two() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("authz.yaml");
    std::fs::write(&file, "listen:\n  grcp: 127.0.0.1:0\n").unwrap();
    let output =
        Command::new(env!("CARGO_BIN_EXE_tollgate-authz")).arg("--config").arg(&file).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("authz.yaml:2:9") && said.contains("grcp"), "{said}");
}
