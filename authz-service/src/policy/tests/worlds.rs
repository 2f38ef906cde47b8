//! Small policies and requests in which everything that rules can ask happens often.

use std::collections::HashMap;
use std::net::IpAddr;

use proptest::prelude::*;
use serde_json::{Map, Value, json};
use smol_str::SmolStr;

use super::{NOW, document, snapshot};
use crate::facts::{Credential, Entry, Facts, PathReadings};
use crate::policy::object::{Document, PolicySet, policy_set};
use crate::policy::snapshot::Snapshot;
use crate::token::VerifiedToken;

/// How many requests are put to one policy.
pub(super) const REQUESTS: usize = 16;

const TEMPLATES: [&str; 9] =
    ["/{**}", "/a", "/a/{id}", "/a/{id:encoded}/x", "/a/{**}", "/Admin", "/b:c", "/{*}/x", "/p.S/Get"];
const PATHS: [&str; 16] = [
    "/a",
    "/a/1",
    "/a/1/x",
    "/a/g%2Fp/x",
    "/a/..;/Admin",
    "/Admin",
    "/admin",
    "/%41dmin",
    "/b%3Ac",
    "//a",
    "/a//1",
    "/a/../Admin",
    "/a/1;v=2",
    "/a\\1",
    "/p.S/Get",
    "/none",
];
const SUBJECTS: [&str; 3] = ["ann", "bob", "cyd"];
const WORKLOADS: [&str; 3] = ["spiffe://d/ns/a/sa/friend", "spiffe://d/ns/b/sa/x", "spiffe://d/ns/c/sa/foe"];
const ENVIRONMENTS: [&str; 4] = ["prod", "dev", "prod,dev", "dev, prod"];

fn conditions() -> Vec<Value> {
    vec![
        json!({"claim": "tier", "equals": "gold"}),
        json!({"claim": "tier", "in": ["gold", "silver"]}),
        json!({"claim": "tier", "prefix": "g"}),
        json!({"claim": "teams", "contains": "x"}),
        json!({"claim": "nested.level", "equals": 3}),
        json!({"header": "x-env", "equals": "prod"}),
        json!({"header": "x-env", "contains": "dev"}),
        json!({"header": "x-other", "in": ["1", "2"]}),
        json!({"source_cidr": ["10.0.0.0/8"]}),
        json!({"time": {"from": "08:00", "to": "18:00"}}),
        json!({"time": {"days": ["fri"], "from": "22:00", "to": "06:00", "zone": "Europe/Berlin"}}),
        json!({"not": {"claim": "tier", "equals": "gold"}}),
        json!({"all": [{"claim": "tier", "equals": "gold"}, {"header": "x-env", "prefix": "p"}]}),
        json!({"any": [{"claim": "tier", "prefix": "s"}, {"source_cidr": ["10.0.0.0/8", "::1"]}]}),
        json!({"not": {"all": [{"header": "x-other", "equals": "1"}, {"claim": "teams", "contains": "y"}]}}),
    ]
}

fn whos() -> Vec<Value> {
    vec![
        json!({"anyone": true}),
        json!({"authenticated": true}),
        json!({"issuer": "demo"}),
        json!({"issuer": "demo", "subject": "ann"}),
        json!({"issuer": "demo", "subject": "bob"}),
        json!({"issuer": "else", "subject": "ann"}),
        json!({"issuer": "demo", "group": "staff"}),
        json!({"issuer": "demo", "client": "web"}),
        json!({"issuer": "demo", "group": "staff", "client": "web"}),
        json!({"workload": "spiffe://d/ns/a/sa/friend"}),
        json!({"workload": "spiffe://d/ns/b/*", "authenticated": true}),
    ]
}

fn moment(offset: i64) -> String {
    jiff::Timestamp::from_second(NOW + offset).unwrap().to_string()
}

/// What permissions, bindings and denials have in common: seldom a condition, a period, a dry run.
fn extras() -> impl Strategy<Value = Value> {
    let when = prop_oneof![2 => Just(None), 1 => prop::sample::select(conditions()).prop_map(Some)];
    (when, prop::bool::weighted(0.15)).prop_map(|(when, dry_run)| {
        let mut fields = json!({"dry_run": dry_run});
        if let Some(when) = when {
            fields["when"] = when;
        }
        fields
    })
}

fn period() -> impl Strategy<Value = Value> {
    prop::sample::select(vec![
        json!({}),
        json!({}),
        json!({"not_after": moment(-5)}),
        json!({"not_after": moment(600)}),
        json!({"not_before": moment(-600), "not_after": moment(5)}),
        json!({"not_before": moment(300)}),
    ])
}

fn requests() -> impl Strategy<Value = Value> {
    (
        prop::sample::select(vec!["s", "*"]),
        prop::sample::select(vec![json!(["GET"]), json!(["*"]), json!(["POST", "PUT"])]),
        prop::sample::subsequence(TEMPLATES.to_vec(), 1..=2),
        prop::sample::select(vec![json!([]), json!([]), json!(["h1"])]),
        prop::bool::weighted(0.05),
    )
        .prop_map(|(service, methods, paths, hosts, grpc)| match grpc {
            true => {
                json!({"service": service, "hosts": hosts, "grpc": {"service": "p.S", "methods": ["Get"]}})
            }
            false => json!({"service": service, "methods": methods, "paths": paths, "hosts": hosts}),
        })
}

fn with(mut base: Value, more: impl IntoIterator<Item = Value>) -> Value {
    for more in more {
        let fields = base.as_object_mut().unwrap();
        fields.extend(more.as_object().unwrap().clone());
    }
    base
}

fn service() -> impl Strategy<Value = Value> {
    let upstream = prop::sample::select(vec![
        json!({}),
        json!({}),
        json!({"decode_slash": false}),
        json!({"strip_params": false}),
        json!({"decode": false, "merge": false}),
        json!({"fold_case": true}),
    ]);
    let callers = prop::sample::select(vec![
        json!(["external"]),
        json!(["external", "spiffe://d/ns/a/sa/friend"]),
        json!(["spiffe://d/ns/b/*"]),
        json!([]),
    ]);
    (upstream, callers, prop::bool::weighted(0.1)).prop_map(|(upstream, callers, audit)| {
        json!({"kind": "Service", "namespace": "a", "name": "s", "issuers": ["demo"], "upstream": upstream,
            "callers": callers, "mode": if audit { "audit" } else { "enforce" }})
    })
}

fn role(number: usize) -> impl Strategy<Value = Value> {
    let scopes = prop::sample::select(vec![
        json!({}),
        json!({}),
        json!({"scopes": {"all": ["read"]}}),
        json!({"scopes": {"all": ["read"], "any": ["x", "y"]}}),
    ]);
    let permission =
        (requests(), scopes, extras()).prop_map(|(base, scopes, extras)| with(base, [scopes, extras]));
    // Only higher numbers are included, so there is no circle.
    let includes = prop::sample::subsequence((number + 1..3).collect::<Vec<_>>(), 0..=2 - number.min(2));
    (prop::collection::vec(permission, 0..3), includes).prop_map(move |(mut permissions, includes)| {
        for (index, permission) in permissions.iter_mut().enumerate() {
            permission["name"] = json!(format!("p{index}"));
        }
        let includes: Vec<_> = includes.into_iter().map(|other| format!("r{other}")).collect();
        json!({"kind": "Role", "namespace": "a", "name": format!("r{number}"), "includes": includes,
            "permissions": permissions})
    })
}

fn revocation() -> impl Strategy<Value = Value> {
    let what = prop::sample::select(vec![
        json!({"issuer": "demo", "jti": "t1"}),
        json!({"issuer": "demo", "subject": "bob", "issued_before": moment(-100)}),
        json!({"issuer": "else", "subject": "ann"}),
        json!({"issuer": "demo", "client": "app"}),
        json!({"issuer": "demo", "key_id": "k1"}),
        json!({"workload": "spiffe://d/ns/c/*"}),
        json!({"workload": "spiffe://d/ns/b/sa/x"}),
        json!({"certificate_serial": "0A:1b"}),
    ]);
    (what, prop::sample::select(vec![-5_i64, 5, 6000]))
        .prop_map(|(what, until)| with(json!({"kind": "Revocation", "until": moment(until)}), [what]))
}

/// A policy.
pub(super) fn policy() -> impl Strategy<Value = PolicySet> {
    let roles = (role(0), role(1), role(2)).prop_map(|(a, b, c)| vec![a, b, c]);
    let who = || prop::sample::select(whos());
    let binding = (who(), 0_usize..3, period(), extras()).prop_map(|(who, role, period, extras)| {
        with(
            json!({"kind": "Binding", "namespace": "a", "who": who, "role": format!("r{role}")}),
            [period, extras],
        )
    });
    let denial = (who(), requests(), period(), extras()).prop_map(|(who, requests, period, extras)| {
        with(json!({"kind": "Denial", "namespace": "a", "who": who}), [requests, period, extras])
    });
    let rules = (
        service(),
        roles,
        prop::collection::vec(binding, 0..6),
        prop_oneof![3 => Just(Vec::new()), 1 => prop::collection::vec(denial, 1..3)],
        prop_oneof![3 => Just(Vec::new()), 1 => prop::collection::vec(revocation(), 1..3)],
    );
    rules.prop_map(|(service, roles, bindings, denials, revocations)| {
        let mut all = vec![service];
        all.extend(roles);
        for (prefix, named) in [("b", bindings), ("d", denials), ("v", revocations)] {
            for (index, mut value) in named.into_iter().enumerate() {
                value["name"] = json!(format!("{prefix}{index}"));
                all.push(value);
            }
        }
        policy_set(all.into_iter().map(document)).unwrap()
    })
}

/// A request, owned.
#[derive(Debug, Clone)]
pub(super) struct Request {
    pub(super) method: &'static str,
    pub(super) path: &'static str,
    pub(super) host: &'static str,
    pub(super) entry: Entry,
    pub(super) peer: Option<&'static str>,
    pub(super) source: Option<IpAddr>,
    pub(super) serial: Option<&'static str>,
    pub(super) headers: HashMap<String, String>,
    pub(super) token: Option<VerifiedToken>,
    pub(super) now: i64,
}

impl Request {
    pub(super) fn facts<'a>(&'a self, snapshot: &'a Snapshot) -> Facts<'a> {
        Facts {
            guard: crate::facts::Guard::Deny,
            service: snapshot.service("a/s"),
            entry: self.entry,
            peer: self.peer,
            method: self.method,
            host: self.host,
            path: PathReadings::of_target(self.path).unwrap(),
            credential: self.token.as_ref().map_or(Credential::Absent, Credential::Verified),
            headers: &self.headers,
            source: self.source,
            certificate_serial: self.serial,
        }
    }
}

fn claims() -> impl Strategy<Value = Map<String, Value>> {
    let tier =
        prop::sample::select(vec![None, Some(json!("gold")), Some(json!("silver")), Some(json!(["gold"]))]);
    let teams =
        prop::sample::select(vec![None, Some(json!(["x"])), Some(json!(["y", 1])), Some(json!({"x": 1}))]);
    let nested = prop::sample::select(vec![None, Some(json!({"level": 3})), Some(json!({"level": "3"}))]);
    (tier, teams, nested).prop_map(|(tier, teams, nested)| {
        let named = [("tier", tier), ("teams", teams), ("nested", nested)];
        named.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
    })
}

pub(super) fn token() -> impl Strategy<Value = VerifiedToken> {
    let some = |texts: &'static [&'static str]| {
        let any = prop::sample::subsequence(texts.to_vec(), 0..=texts.len());
        any.prop_map(|texts| texts.into_iter().map(SmolStr::new).collect::<Vec<_>>())
    };
    let maybe =
        |texts: Vec<&'static str>| prop::option::of(prop::sample::select(texts).prop_map(SmolStr::new));
    (
        (prop::sample::select(vec!["demo", "demo", "else"]), prop::sample::select(SUBJECTS.to_vec())),
        (some(&["read", "x", "z"]), some(&["staff", "boss"]), maybe(vec!["web", "app"])),
        (maybe(vec!["t1", "t2"]), maybe(vec!["k1", "k2"]), prop::option::of(-200_i64..0)),
        (prop::sample::select(vec![7_i64, 60, 4000]), claims()),
    )
        .prop_map(
            |((issuer, subject), (scopes, groups, client), (jti, kid, issued), (lives, claims))| {
                VerifiedToken {
                    scopes,
                    groups,
                    client_id: client,
                    jti,
                    kid: kid.as_deref().map(Into::into),
                    issued_at: issued.map(|ago| NOW + ago),
                    expires_at: NOW + lives,
                    claims: claims.into(),
                    ..VerifiedToken::of_subject(issuer, subject)
                }
            },
        )
}

/// A request.
pub(super) fn request() -> impl Strategy<Value = Request> {
    let header = |values: Vec<&'static str>| prop::option::of(prop::sample::select(values));
    (
        (
            prop::sample::select(vec!["GET", "GET", "POST"]),
            prop::sample::select(PATHS.to_vec()),
            prop::sample::select(vec!["h1", "H1:80", "h2"]),
        ),
        (
            prop::sample::select(vec![Entry::Outside, Entry::Outside, Entry::Inside]),
            prop::option::of(prop::sample::select(WORKLOADS.to_vec())),
            prop::option::of(prop::sample::select(vec!["10.1.1.1", "192.0.2.1", "::1"])),
            prop::option::of(prop::sample::select(vec!["a1b", "ff"])),
        ),
        (header(ENVIRONMENTS.to_vec()), header(vec!["1", "3", "1,1"])),
        prop::option::weighted(0.8, token()),
        // Some days of a week, at all hours.
        0_i64..600_000,
    )
        .prop_map(|((method, path, host), (entry, peer, source, serial), (env, other), token, later)| {
            let named = [("x-env", env), ("x-other", other)];
            let headers =
                named.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned())));
            Request {
                method,
                path,
                host,
                entry,
                peer,
                source: source.map(|source| source.parse().unwrap()),
                serial,
                headers: headers.collect(),
                token,
                // Nearly always the moment that periods and tokens are written around.
                now: if later % 3 == 0 { NOW + later } else { NOW },
            }
        })
}

/// A policy, and requests about it.
pub(super) fn world() -> impl Strategy<Value = (PolicySet, Vec<Request>)> {
    (policy(), prop::collection::vec(request(), REQUESTS))
}

/// The compiled policy; documents come from [`policy`] and are always good.
pub(super) fn compiled(set: &PolicySet) -> Snapshot {
    snapshot(set)
}

pub(super) fn documents_of(set: &PolicySet) -> impl Iterator<Item = &Document> {
    set.values()
}
