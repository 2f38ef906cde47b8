//! Google's Wycheproof vectors for JWS and JWK, where they are at hand.
//!
//! They are not in the repository. `TOLLGATE_WYCHEPROOF` names their folder; without them the test says that it
//! tested nothing.

use std::path::PathBuf;

use serde_json::{Value, json};
use tollgate_authz::token::Jws;
use tollgate_authz::token::keys::KeySet;

fn vectors(file: &str) -> Option<Value> {
    let beside = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/vectors/wycheproof");
    #[expect(clippy::disallowed_methods, reason = "a test may be told where its vectors are")]
    let folder = std::env::var_os("TOLLGATE_WYCHEPROOF").map_or(beside, PathBuf::from);
    let Ok(text) = std::fs::read_to_string(folder.join(file)) else {
        println!("SKIPPED: no {file} in {}; set TOLLGATE_WYCHEPROOF", folder.display());
        return None;
    };
    Some(serde_json::from_str(&text).unwrap())
}

fn accepts(keys: &Value, jws: &str) -> bool {
    KeySet::parse(keys).is_ok_and(|keys| Jws::parse(jws).is_ok_and(|jws| jws.verify(&keys).is_ok()))
}

/// Runs every test that has a public key: (accepted, refused though valid).
fn run(file: &str, key_set: impl Fn(&Value) -> Value) -> Option<(usize, Vec<String>)> {
    let vectors = vectors(file)?;
    let (mut accepted, mut stricter) = (0, Vec::new());
    for group in vectors["testGroups"].as_array().unwrap() {
        let Some(public) = group.get("public") else { continue };
        for test in group["tests"].as_array().unwrap() {
            let Some(jws) = test["jws"].as_str() else { continue };
            let name = format!("{} {}: {}", test["tcId"], group["comment"], test["comment"]);
            match (accepts(&key_set(public), jws), test["result"] == "valid") {
                (true, true) => accepted += 1,
                // A ROCA key looks like any other, but for an arithmetic test that no JWT library makes.
                (true, false) => assert!(name.contains("RocaVulnerability"), "accepted {name}"),
                (false, true) => stricter.push(name),
                (false, false) => {}
            }
        }
    }
    Some((accepted, stricter))
}

#[test]
fn signatures() {
    let Some((accepted, stricter)) = run("json_web_signature_test.json", |key| json!({"keys": [key]})) else {
        return;
    };
    assert!(accepted > 30, "the vectors were looked at");
    // Figure 20 is signed with another algorithm than its key's own `alg`; figure 27 is on P-521.
    let known = |name: &&String| name.ends_with("\"Figure20\"") || name.ends_with("\"Figure27\"");
    assert_eq!(stricter.len(), stricter.iter().filter(known).count(), "{stricter:#?}");
}

#[test]
fn key_sets() {
    let Some((accepted, stricter)) = run("json_web_key_test.json", Value::clone) else { return };
    assert!(accepted > 0 && stricter.is_empty(), "{accepted} {stricter:#?}");
}
