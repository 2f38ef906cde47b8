//! What every database must do: one suite, run on SQLite and on a real PostgreSQL.

use serde_json::{Value, json};
use tempfile::TempDir;
use tollgate_authz::policy::object::{Document, Kind, ObjectId};
use tollgate_authz::store::{Authorship, Operation, Store, StoreError, Write};
use tollgate_runtime::clock::Clock;
use tollgate_runtime::config::Secret;
use tollgate_testkit::postgres::PostgresServer;
use tollgate_testkit::signer::Signer;

async fn open(url: &str) -> Store {
    Store::open(&Secret::new(url), Clock::system()).await.unwrap()
}

fn by() -> Authorship {
    Authorship::new("test/me", "because")
}

fn document(value: Value) -> Document {
    serde_json::from_value(value).unwrap()
}

fn service(name: &str) -> Document {
    document(json!({"kind": "Service", "namespace": "a", "name": name, "callers": ["external"]}))
}

/// Every kind, with every field that there is.
fn everything() -> Vec<Document> {
    let signer = Signer::new(jsonwebtoken::Algorithm::EdDSA, "k");
    [
        json!({"kind": "Issuer", "name": "i", "issuer": "https://i", "jwks": signer.jwks(), "algorithms": ["EdDSA"],
            "audiences": ["x"], "typ": ["JWT"], "token_places": [{"header": "x-t"}, {"cookie": "c"}, {"query": "q"}],
            "leeway_seconds": 7, "max_lifetime_seconds": 9, "claims": {"groups": ["roles"]}}),
        json!({"kind": "Issuer", "name": "j", "issuer": "https://j", "jwks_url": "https://j/keys"}),
        json!({"kind": "Enforcer", "name": "local", "spiffe_id": "spiffe://d/ns/x/sa/y", "point": "sidecar-in",
            "services": ["a/s"], "sources": ["spiffe://d/ns/x/*"]}),
        json!({"kind": "Service", "namespace": "a", "name": "s", "hosts": ["h"], "spiffe_id": "spiffe://d/ns/a/sa/s",
            "callers": ["external", "spiffe://d/ns/a/*"], "issuers": ["i"], "audiences": ["x"], "mode": "audit",
            "upstream": {"strip_params": false}}),
        json!({"kind": "Role", "namespace": "a", "name": "r", "includes": ["q"], "permissions": [
            {"name": "two", "service": "s", "methods": ["GET"], "paths": ["/a/{id}"], "hosts": ["h"],
                "scopes": {"all": ["x"], "any": ["y", "z"]}, "dry_run": true, "when": {"all": [
                    {"claim": "tier", "in": ["gold", "silver"]}, {"not": {"header": "x-env", "prefix": "p"}},
                    {"any": [{"source_cidr": ["10.0.0.0/8"]}, {"claim": "a.b", "equals": 1.5}]},
                    {"time": {"days": ["mon"], "from": "08:00", "to": "18:00", "zone": "Europe/Berlin"}}]}},
            {"name": "three", "service": "s", "grpc": {"service": "p.S", "methods": ["Get"]}},
            {"name": "one", "service": "*", "methods": ["*"], "paths": ["/{**}"]}]}),
        json!({"kind": "Role", "namespace": "a", "name": "q"}),
        json!({"kind": "Binding", "namespace": "a", "name": "b", "role": "r", "who": {"issuer": "i", "subject": "s",
            "group": "g", "client": "c", "workload": "spiffe://d/ns/a/*"},
            "not_before": "2026-01-01T00:00:00Z", "not_after": "2027-01-01T00:00:00.5Z",
            "when": {"claim": "groups", "contains": "x"}, "dry_run": true}),
        json!({"kind": "Binding", "namespace": "a", "name": "c", "role": "q", "who": {"anyone": true}}),
        json!({"kind": "Denial", "namespace": "a", "name": "d", "service": "s", "who": {"issuer": "i", "group": "g"},
            "methods": ["POST"], "paths": ["/a/{id:encoded}"], "hosts": ["h"], "when": {"header": "x", "equals": "y"},
            "not_before": "2026-01-01T00:00:00Z", "not_after": "2027-01-01T00:00:00Z", "dry_run": true,
            "reason": "frozen"}),
        json!({"kind": "Denial", "namespace": "a", "name": "e", "service": "*", "who": {"anyone": true},
            "grpc": {"service": "p.S"}}),
        json!({"kind": "Revocation", "name": "t", "issuer": "i", "jti": "1", "until": "2027-01-01T00:00:00Z"}),
        json!({"kind": "Revocation", "name": "u", "issuer": "i", "subject": "s", "until": "2027-01-01T00:00:00Z",
            "issued_before": "2026-01-01T00:00:00Z", "reason": "left"}),
        json!({"kind": "Revocation", "name": "v", "issuer": "i", "client": "c", "until": "2027-01-01T00:00:00Z"}),
        json!({"kind": "Revocation", "name": "w", "issuer": "i", "key_id": "k", "until": "2027-01-01T00:00:00Z"}),
        json!({"kind": "Revocation", "name": "x", "workload": "spiffe://d/ns/a/*", "until": "2027-01-01T00:00:00Z"}),
        json!({"kind": "Revocation", "name": "y", "certificate_serial": "0A:1b", "until": "2027-01-01T00:00:00Z"}),
    ]
    .map(document)
    .to_vec()
}

async fn what_is_written_is_read(url: &str) {
    let store = open(url).await;
    let applied = store.apply(everything(), by(), false, false).await.unwrap();
    assert_eq!((applied.epoch, applied.changes.len()), (1, 16));
    let loaded = store.load().await.unwrap();
    assert_eq!(loaded.epoch, 1);
    let mut wanted = everything();
    wanted.sort_by_key(Document::id);
    let found: Vec<_> = loaded.objects.into_values().map(|stored| stored.document).collect();
    assert_eq!(found, wanted_without_generated_keys(wanted, &found));
    // Once more: nothing changes, and the epoch stays.
    let again = store.apply(found, by(), false, false).await.unwrap();
    assert_eq!((again.epoch, again.changes.len()), (1, 0));
    let changes = store.changes(None, 100).await.unwrap();
    assert_eq!(changes.len(), 16);
    assert!(changes.iter().all(|row| row.epoch == 1 && row.author == "test/me" && row.reason == "because"));
    assert!(changes.iter().all(|row| row.before.is_none() && row.after.is_some()));
    store.close().await;
    // What was written is there when somebody else opens the database.
    assert_eq!(open(url).await.load().await.unwrap().objects.len(), 16);
}

/// The key in the first issuer is new in each call of `everything`.
fn wanted_without_generated_keys(mut wanted: Vec<Document>, found: &[Document]) -> Vec<Document> {
    for (wanted, found) in wanted.iter_mut().zip(found) {
        if let (Document::Issuer(wanted), Document::Issuer(found)) = (wanted, found) {
            wanted.jwks.clone_from(&found.jwks);
        }
    }
    wanted
}

async fn epochs_have_no_gaps_and_no_doubles(url: &str) {
    let store = open(url).await;
    let writes = (0..40).map(|n| {
        let store = store.clone();
        async move { store.apply(vec![service(&format!("s{n}"))], by(), false, false).await.unwrap().epoch }
    });
    let mut epochs = futures_util::future::join_all(writes).await;
    epochs.sort_unstable();
    assert_eq!(epochs, (1..=40).collect::<Vec<u64>>());
    let history: Vec<_> = store.changes(None, 1000).await.unwrap().into_iter().map(|row| row.epoch).collect();
    assert_eq!(history, (1..=40).rev().collect::<Vec<u64>>());
    assert_eq!(store.changes(Some((40, 0)), 2).await.unwrap()[0].epoch, 39);
}

async fn a_write_that_would_break_the_policy_leaves_no_trace(url: &str) {
    let store = open(url).await;
    store.apply(everything(), by(), false, false).await.unwrap();
    let delete = |kind, name: &str| Write {
        operations: vec![Operation::Delete(ObjectId::new(kind, "a", name))],
        prune: false,
        dry_run: false,
        expected: None,
        base: None,
        by: by(),
        key: None,
    };
    // Something refers to it.
    for (kind, name) in [(Kind::Role, "q"), (Kind::Service, "s")] {
        assert!(matches!(store.write(delete(kind, name)).await, Err(StoreError::Invalid(_))), "{name}");
    }
    assert!(matches!(store.write(delete(Kind::Role, "x")).await, Err(StoreError::NotFound(_))));
    let bad = document(json!({"kind": "Service", "namespace": "b", "name": "t", "hosts": ["h"]}));
    let good = service("fine");
    assert!(matches!(store.apply(vec![good, bad], by(), false, false).await, Err(StoreError::Invalid(_))));
    // Tried only.
    let tried = store.apply(vec![service("new")], by(), true, true).await.unwrap();
    assert!(tried.changes.len() > 1, "what is absent would go");
    let loaded = store.load().await.unwrap();
    assert_eq!((loaded.epoch, loaded.objects.len()), (1, 16));
    assert_eq!(store.changes(None, 100).await.unwrap().len(), 16);
}

/// A write looks at what it touches; that must be enough to find what is wrong, and no more than is wrong.
async fn a_write_is_checked_within_what_is_around_it(url: &str) {
    let store = open(url).await;
    store.apply(everything(), by(), false, false).await.unwrap();
    let put = |value| store.apply(vec![document(value)], by(), false, false);
    for (value, key) in [
        // `r` includes `q`, which is not part of the write.
        (json!({"kind": "Role", "namespace": "a", "name": "q", "includes": ["r"]}), "includes"),
        (json!({"kind": "Role", "namespace": "a", "name": "q", "includes": ["x"]}), "includes"),
        (
            json!({"kind": "Binding", "namespace": "a", "name": "n", "role": "x", "who": {"anyone": true}}),
            "role",
        ),
        (
            json!({"kind": "Binding", "namespace": "b", "name": "n", "role": "r", "who": {"anyone": true}}),
            "role",
        ),
        (json!({"kind": "Service", "namespace": "b", "name": "t", "hosts": ["H"]}), "hosts"),
        (
            json!({"kind": "Service", "namespace": "b", "name": "t", "spiffe_id": "spiffe://d/ns/a/sa/s"}),
            "hosts",
        ),
        (
            json!({"kind": "Issuer", "name": "k", "issuer": "https://j", "jwks_url": "https://j/keys"}),
            "issuer",
        ),
    ] {
        let Err(StoreError::Invalid(faults)) = put(value.clone()).await else {
            panic!("{value} was accepted")
        };
        assert_eq!(faults.iter().map(|fault| fault.key.as_str()).collect::<Vec<_>>(), [key], "{value}");
    }
    // Two services change their hosts in one write, and a role that is bound and included changes.
    let pair = |first: &str, second: &str| {
        vec![
            document(json!({"kind": "Service", "namespace": "c", "name": "one", "hosts": [first]})),
            document(json!({"kind": "Service", "namespace": "c", "name": "two", "hosts": [second]})),
        ]
    };
    store.apply(pair("x", "y"), by(), false, false).await.unwrap();
    store.apply(pair("y", "x"), by(), false, false).await.unwrap();
    let changed = json!({"kind": "Role", "namespace": "a", "name": "q", "permissions": [
        {"name": "p", "service": "s", "methods": ["GET"], "paths": ["/"]}]});
    put(changed).await.unwrap();
    let id = ObjectId::new(Kind::Role, "a", "q");
    assert_eq!(store.get(&id).await.unwrap().unwrap().epoch, 4);
    let listed = store.list(Kind::Service, "c", "one", 10).await.unwrap();
    assert_eq!(listed.iter().map(|stored| stored.document.id().name).collect::<Vec<_>>(), ["two"]);
}

/// Whoever writes past the service cannot make a grant point nowhere, nor leave one behind that does.
async fn the_database_itself_refuses_what_points_nowhere(url: &str) {
    let store = open(url).await;
    store.apply(everything(), by(), false, false).await.unwrap();
    for sql in [
        "UPDATE bindings SET role = 'gone'",
        "UPDATE permissions SET service = 'gone'",
        "UPDATE roles SET includes = '[\"gone\"]'",
        "DELETE FROM services WHERE name = 's'",
        "DELETE FROM roles WHERE name = 'r'",
        "INSERT INTO services SELECT namespace, 'other', hosts, NULL, callers, issuers, audiences, mode, upstream, epoch \
         FROM services WHERE name = 's'",
    ] {
        let statement = || sqlx::AssertSqlSafe(sql.to_owned());
        let refused = if url.starts_with("sqlite") {
            let pool = sqlx::SqlitePool::connect(url).await.unwrap();
            sqlx::query(statement()).execute(&pool).await.is_err()
        } else {
            let pool = sqlx::PgPool::connect(url).await.unwrap();
            sqlx::query(statement()).execute(&pool).await.is_err()
        };
        assert!(refused, "{sql}");
    }
}

async fn revisions_guard_against_lost_updates(url: &str) {
    let store = open(url).await;
    let put = |expected| Write {
        operations: vec![Operation::put(service("s"))],
        prune: false,
        dry_run: false,
        expected,
        base: None,
        by: by(),
        key: None,
    };
    assert!(matches!(store.write(put(Some(7))).await, Err(StoreError::Moved { found: 0, .. })));
    assert_eq!(store.write(put(Some(0))).await.unwrap().epoch, 1);
    assert!(matches!(store.write(put(Some(0))).await, Err(StoreError::Moved { found: 1, .. })));
    let stale = Write { base: Some(0), ..put(None) };
    assert!(matches!(store.write(stale).await, Err(StoreError::PolicyMoved { found: 1, .. })));
}

async fn pruning_spares_what_governs_tollgate(url: &str) {
    let store = open(url).await;
    store.recover_administrator("root", "test").await.unwrap();
    store.apply(everything(), by(), false, false).await.unwrap();
    let applied = store.apply(vec![service("only")], by(), true, false).await.unwrap();
    assert_eq!(applied.changes.iter().filter(|change| change.after.is_none()).count(), 7);
    let left: Vec<String> = store.load().await.unwrap().objects.keys().map(ToString::to_string).collect();
    assert_eq!(
        left,
        [
            "Issuer i",
            "Issuer j",
            "Enforcer local",
            "Service a/only",
            "Service tollgate-system/admin",
            "Role tollgate-system/admin",
            "Binding tollgate-system/admin-root",
            "Revocation t",
            "Revocation u",
            "Revocation v",
            "Revocation w",
            "Revocation x",
            "Revocation y"
        ]
    );
}

async fn the_first_administrator_is_made_once(url: &str) {
    let store = open(url).await;
    let token = store.new_bootstrap_token().await.unwrap().unwrap();
    assert!(matches!(store.bootstrap("wrong", "root").await, Err(StoreError::BootstrapRefused)));
    // A newer token makes the older void.
    let newer = store.new_bootstrap_token().await.unwrap().unwrap();
    assert!(matches!(store.bootstrap(token.expose(), "root").await, Err(StoreError::BootstrapRefused)));
    let issued = store.bootstrap(newer.expose(), "root").await.unwrap();
    assert!(matches!(store.bootstrap(newer.expose(), "again").await, Err(StoreError::BootstrapRefused)));
    assert!(store.new_bootstrap_token().await.unwrap().is_none());
    let administrators = store.load().await.unwrap().administrators;
    assert_eq!(administrators[0].hash, tollgate_authz::store::hash_secret(issued.token.expose()));
    // Recovery makes another, the same name twice is refused, and the last one stays.
    store.recover_administrator("second", "local").await.unwrap();
    let twice = store.recover_administrator("second", "local").await;
    assert!(matches!(twice, Err(StoreError::AdministratorExists(_))));
    let delete = |name: &str| Write {
        operations: vec![Operation::Delete(ObjectId::new(Kind::Binding, "tollgate-system", name))],
        prune: false,
        dry_run: false,
        expected: None,
        base: None,
        by: by(),
        key: None,
    };
    store.write(delete("admin-root")).await.unwrap();
    assert!(matches!(store.write(delete("admin-second")).await, Err(StoreError::LastAdministrator)));
}

async fn a_one_use_token_lasts_an_hour(url: &str) {
    let (clock, hand) = Clock::manual(1_800_000_000_000_000_000);
    let store = Store::open(&Secret::new(url), clock).await.unwrap();
    let token = store.new_bootstrap_token().await.unwrap().unwrap();
    hand.advance(std::time::Duration::from_secs(3601));
    assert!(matches!(store.bootstrap(token.expose(), "root").await, Err(StoreError::BootstrapRefused)));
}

async fn nobody_is_locked_out(url: &str) {
    let store = open(url).await;
    store.recover_administrator("root", "test").await.unwrap();
    let system = |mut value: Value| {
        value["namespace"] = json!("tollgate-system");
        document(value)
    };
    // The way in stays open for administrators and shut for others.
    for (key, value) in [("callers", json!([])), ("mode", json!("audit"))] {
        let mut admin = json!({"kind": "Service", "name": "admin", "callers": ["external"]});
        admin[key] = value;
        let refused = store.apply(vec![system(admin)], by(), false, false).await;
        assert!(matches!(&refused, Err(StoreError::Invalid(faults)) if faults[0].key == key), "{refused:?}");
    }
    // Bindings that look like an administrator's and are not do not replace one.
    let binding = |name: &str, who: Value| {
        system(json!({"kind": "Binding", "name": name, "role": "admin", "who": who}))
    };
    let pretenders = vec![
        binding("no-credential", json!({"issuer": "tollgate-admin", "subject": "ghost"})),
        binding("group", json!({"issuer": "tollgate-admin", "subject": "root", "group": "g"})),
        binding("not-accepted", json!({"issuer": "i", "subject": "t"})),
        binding("workload", json!({"workload": "spiffe://d/ns/a/sa/w"})),
    ];
    store.apply(everything(), by(), false, false).await.unwrap();
    store.apply(pretenders, by(), false, false).await.unwrap();
    let delete_root = || Write {
        operations: vec![Operation::Delete(ObjectId::new(Kind::Binding, "tollgate-system", "admin-root"))],
        prune: false,
        dry_run: false,
        expected: None,
        base: None,
        by: by(),
        key: None,
    };
    assert!(matches!(store.write(delete_root()).await, Err(StoreError::LastAdministrator)));
    // The role must go on to allow everything.
    for (key, value) in [
        ("methods", json!(["GET", "PUT"])),
        ("hosts", json!(["h"])),
        ("service", json!("other")),
        ("paths", json!(["/v1/{**}"])),
        ("dry_run", json!(true)),
        ("when", json!({"source_cidr": ["10.0.0.0/8"]})),
    ] {
        let mut permission =
            json!({"name": "everything", "service": "admin", "methods": ["*"], "paths": ["/{**}"]});
        permission[key] = value;
        let other = system(json!({"kind": "Service", "name": "other"}));
        let role = system(json!({"kind": "Role", "name": "admin", "permissions": [permission]}));
        let refused = store.apply(vec![other, role], by(), false, false).await;
        assert!(matches!(refused, Err(StoreError::LastAdministrator)), "{key}: {refused:?}");
    }
    // Nor may whoever is left be denied or revoked.
    let denial = |who: Value| {
        system(
            json!({"kind": "Denial", "name": "d", "service": "*", "methods": ["GET"], "paths": ["/x"], "who": who}),
        )
    };
    let revoked = |subject: &str| {
        document(json!({"kind": "Revocation", "name": "r", "issuer": "tollgate-admin", "subject": subject,
            "until": "2027-01-01T00:00:00Z"}))
    };
    for refused in
        [denial(json!({"anyone": true})), denial(json!({"issuer": "tollgate-admin"})), revoked("root")]
    {
        let answer = store.apply(vec![refused.clone()], by(), false, false).await;
        assert!(matches!(answer, Err(StoreError::LastAdministrator)), "{refused:?}: {answer:?}");
    }
    let others = vec![denial(json!({"issuer": "tollgate-admin", "subject": "ghost"})), revoked("ghost")];
    store.apply(others, by(), false, false).await.unwrap();
    // Once the service accepts the issuer, its subject can.
    let open_to_i = json!({"kind": "Service", "name": "admin", "callers": ["external"], "issuers": ["i"]});
    store.apply(vec![system(open_to_i)], by(), false, false).await.unwrap();
    store.write(delete_root()).await.unwrap();
}

#[tokio::test]
async fn recovery_repairs_the_way_in() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("authz.db");
    let url = format!("sqlite://{}", file.display());
    let store = open(&url).await;
    store.recover_administrator("root", "test").await.unwrap();
    // As an older version would have let it become.
    let pool = sqlx::SqlitePool::connect(&url).await.unwrap();
    let sql = "UPDATE services SET callers = '[]', mode = '\"audit\"', audiences = '[\"mine\"]' WHERE name = 'admin'";
    assert_eq!(sqlx::query(sql).execute(&pool).await.unwrap().rows_affected(), 1);
    store.recover_administrator("second", "local").await.unwrap();
    let loaded = store.load().await.unwrap();
    let id = ObjectId::new(Kind::Service, "tollgate-system", "admin");
    let admin = serde_json::to_value(&loaded.objects[&id].document).unwrap();
    assert_eq!((&admin["callers"], &admin["audiences"]), (&json!(["external"]), &json!(["mine"])));
    assert!(admin.get("mode").is_none(), "enforce again: {admin}");
}

macro_rules! contract {
    ($($name:ident),* $(,)?) => {
        mod sqlite {
            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $name() {
                    let folder = super::TempDir::new().unwrap();
                    let url = format!("sqlite://{}", folder.path().join("deep/er/authz.db").display());
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
    what_is_written_is_read,
    epochs_have_no_gaps_and_no_doubles,
    a_write_that_would_break_the_policy_leaves_no_trace,
    a_write_is_checked_within_what_is_around_it,
    the_database_itself_refuses_what_points_nowhere,
    revisions_guard_against_lost_updates,
    pruning_spares_what_governs_tollgate,
    the_first_administrator_is_made_once,
    a_one_use_token_lasts_an_hour,
    nobody_is_locked_out,
);
