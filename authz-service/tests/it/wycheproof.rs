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
    let symmetric = keys["keys"].as_array().is_some_and(|keys| keys.iter().any(|key| key["kty"] == "oct"));
    let keys = if symmetric { KeySet::parse_shared(keys) } else { KeySet::parse(keys) };
    keys.is_ok_and(|keys| Jws::parse(jws).is_ok_and(|jws| jws.verify(&keys, 0).is_ok()))
}

/// The numbers of all tests, and of those whose outcome is another than they are marked with.
fn run(file: &str, key_set: impl Fn(&Value) -> Value) -> Option<(usize, Vec<i64>)> {
    let vectors = vectors(file)?;
    let (mut count, mut others) = (0, Vec::new());
    for group in vectors["testGroups"].as_array().unwrap() {
        let keys = group.get("public").unwrap_or(&group["private"]);
        for test in group["tests"].as_array().unwrap() {
            count += 1;
            // A JWS in JSON serialisation is an object there; nobody presents one as a token.
            let jws = test["jws"].as_str().map_or_else(|| test["jws"].to_string(), str::to_owned);
            if accepts(&key_set(keys), &jws) != (test["result"] == "valid") {
                others.push(test["tcId"].as_i64().unwrap());
            }
        }
    }
    Some((count, others))
}

/// Where we differ from the marks, and why that is right.
const DIFFERENT: [(i64, &str); 8] = [
    (346, "signed with PS384 by a key whose own alg is PS256"),
    (347, "P-521, with a key whose alg, ES521, does not exist"),
    (350, "as 346"),
    (351, "as 347"),
    (367, "marked invalid for its padding, of which it has none: byte for byte the valid one"),
    (370, "as 367"),
    (372, "marked valid with a character in the header that base64url does not have"),
    (373, "as 372, in the payload"),
];

#[test]
fn signatures() {
    let Some((count, others)) = run("json_web_signature_test.json", |key| json!({"keys": [key]})) else {
        return;
    };
    assert_eq!((count, others), (401, DIFFERENT.map(|(number, _)| number).to_vec()));
}

#[test]
fn key_sets() {
    let Some((count, others)) = run("json_web_key_test.json", Value::clone) else { return };
    // Number 7 is a ROCA key, which looks like any other but for an arithmetic test that no JWT library makes.
    assert_eq!((count, others), (26, vec![7]));
}
