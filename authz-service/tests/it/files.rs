//! Files that people write: the examples load, and mistakes are named with file, line and key.

use std::path::{Path, PathBuf};

use tempfile::TempDir;
use tollgate_authz::Config;
use tollgate_authz::policy::{diff, documents};
use tollgate_runtime::config::{Env, load, load_text};

use crate::running::demo_documents;

fn in_repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

#[test]
fn the_examples_load() {
    let loaded = load::<Config>(&in_repository("config/authz.yaml"), &[], &Env::default()).unwrap();
    let defaults = Config::default();
    assert_eq!(loaded.config.database.url, defaults.database.url);
    assert_eq!(loaded.config.listen.grpc, defaults.listen.grpc);
    let policy = documents::load_dir(&in_repository("config/policy")).unwrap();
    documents::check(&policy).unwrap();
}

#[test]
fn the_objects_in_the_guide_are_right() {
    let guide = std::fs::read_to_string(in_repository("docs/policy.md")).unwrap();
    let (_, rest) = guide.split_once("```yaml\n").unwrap();
    let (objects, _) = rest.split_once("```").unwrap();
    // The guide's role includes another one that it does not show.
    let text = format!("{objects}---\nkind: Role\nnamespace: shop\nname: reader\n");
    let written = documents::parse(Path::new("docs/policy.md"), &text).unwrap();
    let faults = documents::check(&written).err().unwrap_or_default();
    assert!(faults.is_empty(), "{faults:?}");
    assert_eq!(written.len(), 7);
}

/// The blocks of the page on identity that are for this service; who it is may stand in another one.
#[test]
fn the_page_on_identity_can_be_copied() {
    let page = std::fs::read_to_string(in_repository("docs/identity.md")).unwrap();
    let blocks: Vec<_> = page
        .split("```yaml\n# authz\n")
        .skip(1)
        .filter_map(|rest| rest.split("```").next())
        .map(|block| match block.contains("ca:\n") {
            true => block.to_owned(),
            false => format!("ca: {{trust_domain: example.org}}\n{block}"),
        })
        .collect();
    assert_eq!(blocks.len(), 2);
    for block in blocks {
        let loaded = load_text::<Config>(Path::new("docs/identity.md"), &block, &[], &Env::empty());
        assert!(loaded.is_ok(), "{}\n{block}", loaded.unwrap_err());
    }
    let kubernetes = tollgate_authz::ca::KubernetesConfig::default();
    let shown = serde_json::to_value(&kubernetes).unwrap();
    for key in ["api", "audience", "ca_file", "token_file"] {
        let line = format!("    {key}: {}\n", shown[key].as_str().unwrap());
        assert!(page.contains(&line), "the page shows another default than {line}");
    }
}

#[test]
fn what_is_exported_is_the_same_again() {
    let before: Vec<_> = demo_documents();
    let text = documents::export(&before);
    let again = documents::parse(Path::new("export.yaml"), &text).unwrap();
    assert_eq!(again.into_iter().map(|written| written.document).collect::<Vec<_>>(), before, "{text}");
}

#[test]
fn mistakes_in_policy_are_named() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("policy.yaml");
    let check = |text: &str, expected: &str| {
        std::fs::write(&file, text).unwrap();
        let found = match documents::load_dir(folder.path()) {
            Err(error) => error.to_string(),
            Ok(written) => match documents::check(&written) {
                Err(errors) => errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"),
                Ok(()) => String::new(),
            },
        };
        let found = found.replace(&format!("{}/", folder.path().display()), "");
        assert!(found.starts_with(expected), "expected {expected}\nfound    {found}");
    };
    let service = "kind: Service\nnamespace: a\nname: s\n---\n";
    check("kind: Service\nnamespace: a\nname: s\nhots: [x]\n", "policy.yaml:4:1: ");
    check(&format!("{service}kind: Sevice\nname: x\n"), "policy.yaml:5:7: ");
    check(
        &format!("{service}kind: Service\nnamespace: a\nname: s\n"),
        "policy.yaml:5: Service a/s stands twice",
    );
    check(&format!("{service}namespace: a\nname: t\n"), "policy.yaml:6:1: missing field `kind`");
    check(
        "kind: Service\nnamespace: a\nname: s\ncallers: [everybody]\n",
        "policy.yaml:4:11: callers[0]: `everybody`",
    );
    let role = "kind: Role\nnamespace: a\nname: r\npermissions:\n  - name: p\n    service: s\n    methods: [GET]\n    paths: [\"/x\", \"x\"]\n";
    check(&format!("{service}{role}"), "policy.yaml:12:19: permissions[0].paths[1]: ");
    check(
        &format!("{service}kind: Binding\nnamespace: a\nname: b\nrole: r\nwho: {{}}\n"),
        "policy.yaml:8:7: role: there is no role `r`",
    );
    check(&format!("{service}kind: Role\nnamespace: a\nname: r\nincludes: [r]\n"), "policy.yaml:8");
}

#[test]
fn mistakes_in_configuration_are_named() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("authz.yaml");
    for (text, sets, needle) in [
        ("listen: {grcp: 127.0.0.1:1}", "", "grcp"),
        ("database: {url: \"mysql://x\"}", "", "authz.yaml:1:17: database.url"),
        ("keys: {refresh: 2d}", "", "keys.refresh: "),
        ("keys: {refresh: 10s}", "", "keys.refresh: "),
        ("keys: {refresh_ceiling: 2d}", "", "keys.max_stale"),
        ("keys: {shared_secrets: {old: hunter2}}", "", "keys.shared_secrets.old: is no JSON"),
        ("keys: {min_interval: 0s}", "", "keys.min_interval"),
        ("listen: {}", "database.url=oracle://x", "database.url"),
    ] {
        std::fs::write(&file, text).unwrap();
        let sets: Vec<String> = (!sets.is_empty()).then(|| sets.to_owned()).into_iter().collect();
        let error = load::<Config>(&file, &sets, &Env::default()).unwrap_err().to_string();
        assert!(error.contains(needle) && !error.contains("hunter2"), "{text}: {error}");
    }
}

#[test]
fn a_diff_shows_what_changes_and_nothing_else() {
    let set = |text: &str| documents::policy_set(&documents::parse(Path::new("x"), text).unwrap());
    let before = set(
        "kind: Service\nnamespace: a\nname: s\nhosts: [one]\n---\nkind: Service\nnamespace: a\nname: same\n",
    );
    let after = set(
        "kind: Service\nnamespace: a\nname: s\nhosts: [two]\n---\nkind: Service\nnamespace: a\nname: same\n---\nkind: Service\nnamespace: a\nname: t\n",
    );
    let text = diff::diff(&before, &after);
    assert!(text.contains("~ Service a/s") && text.contains("+ Service a/t"), "{text}");
    assert!(text.contains("one") && text.contains("two") && !text.contains("same"), "{text}");
    assert_eq!(diff::diff(&after, &after), "");
}
