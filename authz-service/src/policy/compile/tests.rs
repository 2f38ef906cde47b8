//! A snapshot that was changed step by step is the one that is compiled whole, and shares what did not change.

use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{Compiler, Parts, compile};
use crate::facts::{Credential, Entry, Facts, NoHeaders, PathReadings};
use crate::policy::object::{Document, Kind, ObjectId, PolicySet, policy_set};
use crate::policy::references::references;
use crate::policy::{Snapshot, check, evaluate};
use crate::token::{Issuer, VerifiedToken};

const SUBJECTS: [&str; 3] = ["ann", "bob", "cyd"];
const PATHS: [&str; 3] = ["/one", "/two", "/three"];

fn document(value: Value) -> Document {
    serde_json::from_value(value).unwrap()
}

/// One of few objects in one of few forms, so that random ones meet.
fn any_document() -> impl Strategy<Value = Document> {
    let service = (0_u8..3, 0_u8..3, any::<bool>()).prop_map(|(n, host, open)| {
        let callers = if open { json!(["external"]) } else { json!([]) };
        json!({"kind": "Service", "namespace": "a", "name": format!("s{n}"), "hosts": [format!("h{host}")],
            "callers": callers, "issuers": ["i"]})
    });
    let permission = (0_u8..4, 0..PATHS.len()).prop_map(|(service, path)| {
        let service = if service == 3 { "*".to_owned() } else { format!("s{service}") };
        json!({"service": service, "methods": ["GET"], "paths": [PATHS[path]]})
    });
    let permissions = prop::collection::vec(permission, 0..3).prop_map(|mut permissions| {
        for (n, permission) in permissions.iter_mut().enumerate() {
            permission["name"] = json!(format!("p{n}"));
        }
        permissions
    });
    let role = (0_u8..4, permissions, prop::collection::vec(0_u8..4, 0..3)).prop_map(
        |(n, permissions, includes)| {
            let includes: Vec<_> = includes.into_iter().map(|n| format!("r{n}")).collect();
            json!({"kind": "Role", "namespace": "a", "name": format!("r{n}"), "includes": includes,
            "permissions": permissions})
        },
    );
    let who = (0_u8..6, 0..SUBJECTS.len()).prop_map(|(form, subject)| match form {
        0 => json!({"anyone": true}),
        1 => json!({"authenticated": true}),
        2 => json!({"issuer": "i", "group": "g"}),
        3 => json!({"workload": "spiffe://d/ns/a/*"}),
        _ => json!({"issuer": "i", "subject": SUBJECTS[subject]}),
    });
    let binding = (0_u8..5, 0_u8..4, who).prop_map(|(n, role, who)| {
        json!({"kind": "Binding", "namespace": "a", "name": format!("b{n}"), "role": format!("r{role}"), "who": who})
    });
    let issuer = (0_u8..2).prop_map(|place| {
        let places = if place == 0 { json!([]) } else { json!([{"header": "x-token"}]) };
        json!({"kind": "Issuer", "name": "i", "issuer": format!("https://i{place}"), "token_places": places,
            "jwks_url": "https://i/keys"})
    });
    let denial = (0_u8..3, 0_u8..4, 0..PATHS.len(), 0..SUBJECTS.len()).prop_map(|(n, service, path, subject)| {
        let service = if service == 3 { "*".to_owned() } else { format!("s{service}") };
        json!({"kind": "Denial", "namespace": "a", "name": format!("d{n}"), "service": service, "methods": ["*"],
            "paths": [PATHS[path]], "who": {"issuer": "i", "subject": SUBJECTS[subject]}})
    });
    let revocation = (0_u8..2, 0..SUBJECTS.len()).prop_map(|(n, subject)| {
        json!({"kind": "Revocation", "name": format!("v{n}"), "issuer": "i", "subject": SUBJECTS[subject],
            "until": "2030-01-01T00:00:00Z"})
    });
    prop_oneof![2 => service, 3 => role, 3 => binding, 1 => issuer, 1 => denial, 1 => revocation]
        .prop_map(document)
}

/// One write: objects that are put, and kinds and numbers of objects that are removed.
fn any_write() -> impl Strategy<Value = (Vec<Document>, Vec<ObjectId>)> {
    let removed = (0_u8..6, 0_u8..5).prop_map(|(kind, n)| match kind {
        3 => ObjectId::new(Kind::Denial, "a", format!("d{n}")),
        4 => ObjectId::new(Kind::Revocation, "", format!("v{n}")),
        0 => ObjectId::new(Kind::Service, "a", format!("s{n}")),
        1 => ObjectId::new(Kind::Role, "a", format!("r{n}")),
        2 => ObjectId::new(Kind::Binding, "a", format!("b{n}")),
        _ => ObjectId::new(Kind::Issuer, "", "i"),
    });
    (prop::collection::vec(any_document(), 1..6), prop::collection::vec(removed, 0..3))
}

fn whole(set: &PolicySet) -> Snapshot {
    compile(check::check(set).unwrap(), Parts::default(), &Snapshot::default())
}

fn token(subject: &str) -> VerifiedToken {
    VerifiedToken {
        issuer_url: "https://i0".into(),
        groups: if subject == "bob" { vec!["g".into()] } else { Vec::new() },
        expires_at: 60,
        ..VerifiedToken::of_subject("i", subject)
    }
}

/// What a policy answers to every question that there is about it.
fn answers(snapshot: &Snapshot) -> Vec<String> {
    let tokens = SUBJECTS.map(token);
    let credentials = tokens.iter().map(Credential::Verified).chain([Credential::Absent]);
    let mut answers = Vec::new();
    for credential in credentials {
        for (service, path) in (0..3).flat_map(|n| PATHS.map(|path| (format!("a/s{n}"), path))) {
            let facts = Facts {
                guard: crate::facts::Guard::Deny,
                service: snapshot.service(&service),
                entry: Entry::Outside,
                peer: Some("spiffe://d/ns/a/sa/x"),
                method: "GET",
                host: "h",
                path: PathReadings::of_target(path).unwrap(),
                credential,
                headers: &NoHeaders,
                source: None,
                certificate_serial: None,
            };
            let decision = evaluate(snapshot, &facts, 0);
            answers.push(format!(
                "{service} {path} {:?} {} {}",
                decision.verdict, decision.reason, decision.rule
            ));
        }
    }
    for host in ["h0", "h1", "h2"] {
        answers.push(format!("{host} {:?}", snapshot.service_of_host(host).map(|rules| &rules.service)));
    }
    let places = |n| snapshot.service(&format!("a/s{n}")).map(|rules| rules.token_places.clone());
    answers.push(format!("{:?}", (0..3).map(places).collect::<Vec<_>>()));
    answers.push(format!("{:?}", ["https://i0", "https://i1"].map(|iss| snapshot.issuer(iss).is_some())));
    answers
}

proptest! {
    #[test]
    fn step_by_step_is_as_good_as_whole(writes in prop::collection::vec(any_write(), 1..12)) {
        let (mut set, mut snapshot) = (PolicySet::new(), Snapshot::default());
        for (put, removed) in writes {
            let mut next = set.clone();
            let removed: Vec<_> = removed.into_iter().filter(|id| next.remove(id).is_some()).collect();
            let put: PolicySet = put.into_iter().map(|document| (document.id(), document)).collect();
            next.extend(put.clone());
            // What cannot be is never applied.
            let Ok(mut model) = check::check(&next) else { continue };
            let mut compiler = Compiler::on(&snapshot);
            removed.iter().filter(|id| !put.contains_key(id)).for_each(|id| compiler.remove(id));
            let is_put = |kind, key: &Arc<str>| {
                let (namespace, name) = key.split_once('/').unwrap_or(("", key));
                put.contains_key(&ObjectId::new(kind, namespace, name))
            };
            model.issuers.retain(|name, _: &mut Arc<Issuer>| is_put(Kind::Issuer, name));
            model.services.retain(|key, _| is_put(Kind::Service, key));
            model.roles.retain(|key, _| is_put(Kind::Role, key));
            model.bindings.retain(|key, _| is_put(Kind::Binding, key));
            model.denials.retain(|key, _| is_put(Kind::Denial, key));
            model.revocations.retain(|name, _| is_put(Kind::Revocation, name));
            compiler.put(model);
            (snapshot, set) = (compiler.finish(snapshot.epoch + 1), next);
            prop_assert_eq!(answers(&snapshot), answers(&whole(&set)));
        }
    }
}

#[test]
fn what_did_not_change_is_shared() {
    let set = policy_set([
        document(json!({"kind": "Service", "namespace": "a", "name": "s"})),
        document(json!({"kind": "Service", "namespace": "b", "name": "t"})),
    ]);
    let first = whole(&set.unwrap());
    let mut compiler = Compiler::on(&first);
    let changed = document(json!({"kind": "Service", "namespace": "b", "name": "t", "audiences": ["x"]}));
    assert!(references(&changed).is_empty());
    compiler.put(check::check(&policy_set([changed]).unwrap()).unwrap());
    let second = compiler.finish(2);
    let same = |key| Arc::ptr_eq(&first.service(key).unwrap().offers, &second.service(key).unwrap().offers);
    assert!(same("a/s"));
    assert!(!same("b/t"));
}
