//! `tollgate ratelimit` against a running service, and the translation of an environment.

use serde_json::{Value, json};
use tollgate_ratelimit::{App, Config};
use tollgate_runtime::config::parse_yaml;
use tollgate_runtime::{App as _, Service};

use super::{text, tollgate};

const LIMITS: &str = "domain: shop
descriptors:
  - key: user
    rate_limit: {unit: day, requests_per_unit: 3, name: per-user}
";

struct Served {
    folder: tempfile::TempDir,
    door: String,
    service: Service,
}

async fn served() -> Served {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("limits")).unwrap();
    std::fs::write(folder.path().join("limits/shop.yaml"), LIMITS).unwrap();
    let mut config = Config::with_folder(folder.path().join("limits"));
    config.listen = "127.0.0.1:0".parse().unwrap();
    config.http = Some("127.0.0.1:0".parse().unwrap());
    let service = Service::for_test("ratelimit");
    let app = App::build(config, service.clone()).await.unwrap();
    let door = format!("http://{}", app.addresses().http.unwrap());
    drop(service.tasks().spawn("ratelimit", app.run()));
    Served { folder, door, service }
}

impl Served {
    /// Exit code, and what was said on both streams.
    async fn run(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let at = self.folder.path().to_owned();
        let mut all = vec!["ratelimit".to_owned()];
        all.extend(arguments.iter().map(|one| (*one).to_owned()));
        if arguments[0] != "migrate-env" {
            all.extend(["--server".to_owned(), self.door.clone()]);
        }
        let ran = tokio::task::spawn_blocking(move || {
            tollgate(&at, &all.iter().map(String::as_str).collect::<Vec<_>>())
        });
        let output = ran.await.unwrap();
        (output.status.code(), text(&output.stdout) + &text(&output.stderr))
    }

    async fn ask(&self, user: &str) {
        let question =
            json!({"domain": "shop", "descriptors": [{"entries": [{"key": "user", "value": user}]}]});
        reqwest::Client::new().post(format!("{}/json", self.door)).json(&question).send().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_are_seen_explained_tried_and_reset() {
    let served = served().await;
    for _ in 0..5 {
        served.ask("alice").await;
    }
    let (code, told) = served.run(&["usage"]).await;
    assert!(code == Some(0) && told.contains("per-user of 3 in 86400 s, fixed_window, enforce"), "{told}");
    assert!(told.contains("5 calls, 2 over") && told.contains("limits/shop.yaml:3"), "{told}");
    assert!(told.contains("user=alice: 5 hits") && told.contains("limited until"), "{told}");
    let (_, told) = served.run(&["usage", "--domain", "other shop", "--json"]).await;
    let usage: Value = serde_json::from_str(&told).unwrap();
    assert_eq!(
        (usage["store"].as_str(), usage["limits"].as_array().map(Vec::len)),
        (Some("memory"), Some(0))
    );

    let (code, told) = served.run(&["explain", "--domain", "shop", "user=alice", "plan=x"]).await;
    assert!(code == Some(0) && told.starts_with("decision: over_limit"), "{told}");
    assert!(told.contains("5 -> 6 of 3, over") && told.contains("shop.yaml:3"), "{told}");

    std::fs::write(served.folder.path().join("new.yaml"), LIMITS.replace("unit: 3", "unit: 1")).unwrap();
    let (code, told) = served.run(&["simulate", "--limits", "new.yaml", "--traffic", "last-1h"]).await;
    assert!(code == Some(0) && told.contains("refused 2 now, 4 then; newly refused 2"), "{told}");
    let (code, told) = served.run(&["simulate", "--limits", "new.yaml", "--traffic", "yesterday"]).await;
    assert!(code == Some(1) && told.contains("last-24h"), "{told}");
    std::fs::write(served.folder.path().join("new.yaml"), LIMITS.replace("day", "fortnight")).unwrap();
    let (code, told) = served.run(&["simulate", "--limits", "new.yaml"]).await;
    assert!(code == Some(1) && told.contains("new.yaml:4"), "{told}");

    let (code, told) =
        served.run(&["reset", "--domain", "shop", "user=alice", "--reason", "a mistake of ours"]).await;
    assert!(code == Some(0) && told.contains("reset: per-user"), "{told}");
    let (_, told) = served.run(&["explain", "--domain", "shop", "user=alice"]).await;
    assert!(told.contains("decision: ok") && told.contains("0 -> 1 of 3"), "{told}");
    let (_, told) = served.run(&["audit"]).await;
    assert!(told.contains("shop user=alice (a mistake of ours)"), "{told}");
    let (code, told) = served.run(&["reset", "--domain", "shop", "nobody=alice", "--reason", "none"]).await;
    assert!(code == Some(1) && told.contains("404"), "{told}");
    let (code, told) = served.run(&["quota"]).await;
    assert!(code == Some(0) && told.contains("no limit is divided"), "{told}");
    served.service.stop().await;
    let (code, told) = served.run(&["usage"]).await;
    assert!(code == Some(1) && told.contains("does not answer"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_environment_becomes_a_configuration() {
    let served = served().await;
    let environment = "# of a container\nexport GRPC_PORT=9001\nREDIS_URL=\"redis.local:6379\"\nBACKEND_TYPE=redis\n\
         SHADOW_MODE=true\nMEMCACHE_TLS=true\n";
    std::fs::write(served.folder.path().join("rl.env"), environment).unwrap();
    let (code, told) = served.run(&["migrate-env", "--env-file", "rl.env"]).await;
    assert!(code == Some(0) && told.contains("# left out: MEMCACHE_TLS"), "{told}");
    let config: Config = parse_yaml(std::path::Path::new("migrated.yaml"), &told).unwrap();
    assert_eq!(config.listen.port(), 9001);
    assert_eq!(config.counters.redis.url.unwrap().expose(), "redis://redis.local:6379");
    let (code, told) = served.run(&["migrate-env", "--env-file", "nowhere.env"]).await;
    assert!(code == Some(1) && told.contains("nowhere.env"), "{told}");
    served.service.stop().await;
}
