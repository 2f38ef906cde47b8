//! The command as a person runs it.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod explain;
mod https;
mod ratelimit;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn tollgate(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tollgate"))
        .current_dir(folder)
        .env_remove("TOLLGATE_DATA")
        .args(arguments)
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

mod check {
    use super::*;

    #[test]
    fn every_example_is_right() {
        let output = tollgate(&project(), &["check", "config"]);
        let told = text(&output.stdout);
        assert!(output.status.success(), "{told}");
        for (file, kind) in [
            ("config/authz.yaml", "authz configuration"),
            ("config/ratelimit.yaml", "rate-limit configuration"),
            ("config/dashboard.yaml", "dashboard configuration"),
            ("config/ingress.yaml", "proxy configuration"),
            ("config/sidecar.yaml", "proxy configuration"),
            ("config/limits/insurance.yaml", "limits"),
            ("config/policy/roles.yaml", "policy"),
            ("config/policy-cases.yaml", "policy cases"),
        ] {
            assert!(told.contains(&format!("{file}: ok ({kind})")), "{told}");
        }
    }

    #[test]
    fn a_folder_of_parts_is_one_proxy() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, content: &str| std::fs::write(folder.path().join(name), content).unwrap();
        write("1.yaml", "listeners: [{name: main, bind: '127.0.0.1:0', role: sidecar}]\n");
        write("2.yaml", "clusters: [{name: app, endpoints: {static: ['127.0.0.1:1']}}]\n");
        let route = "routes:\n  - {name: shop, matches: [{}], authz: off, backends: [{cluster: app}]}\n";
        write("3.yaml", route);
        let check = || {
            let output = tollgate(folder.path(), &["check", "."]);
            (output.status.code(), text(&output.stdout))
        };
        let (code, told) = check();
        assert!(code == Some(0) && told.starts_with(".: ok (proxy configuration)"), "{told}");
        assert!(told.contains("shop") && told.contains("app"), "{told}");
        write("3.yaml", &route.replace("cluster: app", "cluster: gone"));
        let (code, told) = check();
        assert!(code == Some(2) && told.contains("3.yaml:2:"), "{told}");
        assert!(told.contains("routes[0].backends[0].cluster"), "{told}");
    }

    #[test]
    fn a_wrong_file_is_told_with_line_key_and_exit_code_2() {
        let folder = tempfile::tempdir().unwrap();
        for (name, content, expected) in [
            (
                "limits.yaml",
                "domain: a\ndescriptors:\n  - key: k\n    rate_limit: {unit: fortnight, requests_per_unit: 1}\n",
                "limits.yaml:4:",
            ),
            ("authz.yaml", "database:\n  ulr: sqlite://x\n", "authz.yaml:2:8: database.ulr"),
            (
                "policy.yaml",
                "kind: Role\nnamespace: a\nname: b\npermissions:\n  - {name: x, service: nowhere, methods: [GET], paths: [\"/a/{\"]}\n",
                "policy.yaml:",
            ),
            ("proxy.yaml", "listeners: []\nroutes: 7\n", "proxy.yaml:2:"),
            ("other.yaml", "hello: world\n", "not a file of Tollgate's"),
        ] {
            let file = folder.path().join(name);
            std::fs::write(&file, content).unwrap();
            let output = tollgate(folder.path(), &["check", name]);
            let told = text(&output.stdout);
            assert_eq!(output.status.code(), Some(2), "{told}");
            assert!(told.starts_with("error: ") && told.contains(expected), "{told}");
            std::fs::remove_file(file).unwrap();
        }
    }
}

mod policy {
    use super::*;

    const ROLE: &str = "kind: Service\nnamespace: shop\nname: orders\nhosts: [orders.shop]\ncallers: [external]\n---\nkind: Role\nnamespace: shop\nname: orders-reader\npermissions:\n  - {name: read, service: orders, methods: [GET], paths: [\"/orders/{id}\"]}\n";

    /// A data folder with a policy database in it, as a service leaves it.
    fn data() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("authz.db"), "").unwrap();
        folder
    }

    fn run(folder: &Path, arguments: &[&str]) -> (Option<i32>, String) {
        let output = tollgate(folder, &[arguments, &["--data", "."]].concat());
        (output.status.code(), text(&output.stdout) + &text(&output.stderr))
    }

    #[test]
    fn apply_shows_the_diff_once_and_get_gives_back_what_apply_reads() {
        let folder = data();
        let at = folder.path();
        std::fs::write(at.join("orders.yaml"), ROLE).unwrap();

        let (code, told) = run(at, &["policy", "apply", "-f", "orders.yaml", "--dry-run"]);
        assert!(
            code == Some(0) && told.contains("orders-reader") && told.contains("nothing was changed"),
            "{told}"
        );
        let (_, told) = run(at, &["policy", "get", "--namespace", "shop"]);
        assert!(!told.contains("orders-reader"), "a dry run changes nothing: {told}");

        let (code, told) = run(at, &["policy", "apply", "-f", "orders.yaml", "--reason", "a shop"]);
        assert!(code == Some(0) && told.contains("applied as epoch"), "{told}");
        let (code, told) = run(at, &["policy", "apply", "-f", "orders.yaml"]);
        assert!(code == Some(0) && told.contains("nothing to change"), "{told}");

        let (code, exported) = run(at, &["policy", "get", "--namespace", "shop"]);
        assert_eq!(code, Some(0), "{exported}");
        std::fs::write(at.join("orders.yaml"), exported).unwrap();
        let (code, told) = run(at, &["policy", "apply", "-f", "orders.yaml"]);
        assert!(code == Some(0) && told.contains("nothing to change"), "{told}");
    }

    #[test]
    fn the_demos_policy_is_clean_and_does_what_its_cases_say() {
        let nowhere = tempfile::tempdir().unwrap();
        let config = project().join("config");
        let (policy, cases) = (config.join("policy"), config.join("policy-cases.yaml"));
        let (policy, cases) = (policy.to_str().unwrap(), cases.to_str().unwrap());
        let (code, told) = run(nowhere.path(), &["policy", "lint", "-f", policy, "--deny", "warnings"]);
        assert!(code == Some(0) && told.contains("0 errors, 0 warnings, 0 notes"), "{told}");
        let (code, told) = run(nowhere.path(), &["policy", "test", cases, "-f", policy]);
        assert!(code == Some(0) && told.contains("17 cases: 17 passed, 0 failed"), "{told}");
    }

    #[test]
    fn lint_tells_where_and_what_to_do_and_fails_as_asked() {
        let folder = data();
        let at = folder.path();
        let odd = ROLE.to_owned() + "---\nkind: Role\nnamespace: shop\nname: empty\n";
        std::fs::write(at.join("odd.yaml"), odd).unwrap();
        let (code, told) = run(at, &["policy", "lint", "-f", "odd.yaml"]);
        assert_eq!(code, Some(0), "{told}");
        assert!(
            told.contains("odd.yaml:") && told.contains("warning[role_empty]: Role shop/empty"),
            "{told}"
        );
        assert!(told.contains("remove it") && told.contains("0 errors, 3 warnings"), "{told}");
        assert_eq!(run(at, &["policy", "lint", "-f", "odd.yaml", "--deny", "warnings"]).0, Some(1));
        let (code, json) = run(at, &["policy", "lint", "-f", "odd.yaml", "--format", "json"]);
        assert!(code == Some(0) && json.contains("\"code\": \"role_unheld\""), "{json}");
        // Said at apply too.
        let (_, told) = run(at, &["policy", "apply", "-f", "odd.yaml"]);
        assert!(told.contains("warning[role_empty]") && told.contains("applied as epoch 1"), "{told}");
        let (_, told) = run(at, &["policy", "lint"]);
        assert!(told.contains("3 warnings"), "{told}");
        std::fs::write(
            at.join("bad.yaml"),
            ROLE.replace("methods: [GET], ", "methods: [GET], hosts: [no.shop], "),
        )
        .unwrap();
        let (code, told) = run(at, &["policy", "lint", "-f", "bad.yaml", "--alone"]);
        assert!(code == Some(1) && told.contains("error[host_not_of_service]"), "{told}");
    }

    #[test]
    fn a_case_that_fails_says_why() {
        let folder = data();
        let at = folder.path();
        std::fs::write(at.join("orders.yaml"), ROLE).unwrap();
        let case = "cases:\n  - name: everybody reads\n    what: {service: shop/orders, path: /orders/1}\n    expect: allow\n";
        std::fs::write(at.join("cases.yaml"), case).unwrap();
        let (code, told) = run(at, &["policy", "test", "cases.yaml", "-f", "orders.yaml"]);
        assert!(code == Some(1) && told.contains("FAILED everybody reads"), "{told}");
        assert!(told.contains("expected allow") && told.contains("got      deny (token_absent)"), "{told}");
        assert!(told.contains("because  ") && told.contains("orders-reader"), "{told}");
        let binding = ROLE.to_owned()
            + "---\nkind: Binding\nnamespace: shop\nname: all\nrole: orders-reader\nwho: {anyone: true}\n";
        std::fs::write(at.join("orders.yaml"), binding).unwrap();
        let (code, told) = run(at, &["policy", "test", "cases.yaml", "-f", "orders.yaml"]);
        assert!(code == Some(0) && told.contains("1 passed"), "{told}");
        // A draft that means nothing is told by file and line.
        std::fs::write(at.join("orders.yaml"), ROLE.replace("service: orders,", "service: ordres,")).unwrap();
        let (code, told) = run(at, &["policy", "test", "cases.yaml", "-f", "orders.yaml"]);
        assert!(code == Some(2) && told.contains("orders.yaml:"), "{told}");
        std::fs::write(at.join("cases.yaml"), "cases: [{nam: x}]").unwrap();
        assert_eq!(run(at, &["policy", "test", "cases.yaml", "-f", "orders.yaml"]).0, Some(2));
    }

    #[test]
    fn history_diff_export_and_rollback() {
        let folder = data();
        let at = folder.path();
        std::fs::write(at.join("orders.yaml"), ROLE).unwrap();
        run(at, &["policy", "apply", "-f", "orders.yaml", "--reason", "a shop"]);
        std::fs::write(at.join("orders.yaml"), ROLE.replace("[GET]", "[GET, HEAD]")).unwrap();
        let (_, told) = run(at, &["policy", "diff", "-f", "orders.yaml"]);
        assert!(told.contains("~ Role shop/orders-reader") && told.contains("HEAD"), "{told}");
        run(at, &["policy", "apply", "-f", "orders.yaml", "--reason", "heads too"]);
        let (_, told) = run(at, &["policy", "history"]);
        assert!(told.lines().count() == 3 && told.contains("heads too") && told.contains("a shop"), "{told}");
        let (_, told) = run(at, &["policy", "history", "role/shop/orders-reader"]);
        assert!(told.lines().count() == 2 && told.contains("~ Role shop/orders-reader"), "{told}");
        let (code, told) = run(at, &["policy", "history", "role/shop"]);
        assert!(code == Some(2) && told.contains("KIND/NAMESPACE/NAME"), "{told}");
        let (_, told) = run(at, &["policy", "diff", "1..2"]);
        assert!(told.contains("HEAD"), "{told}");
        let (code, told) = run(at, &["policy", "diff", "1..9"]);
        assert!(code == Some(1) && told.contains("there is no epoch 9"), "{told}");
        let (_, told) = run(at, &["policy", "export", "--epoch", "1"]);
        assert!(told.contains("orders-reader") && !told.contains("HEAD"), "{told}");
        let (_, told) = run(at, &["policy", "rollback", "1", "--dry-run"]);
        assert!(told.contains("HEAD") && told.contains("dry run"), "{told}");
        let (_, told) = run(at, &["policy", "rollback", "1"]);
        assert!(told.contains("applied as epoch 3"), "{told}");
        let (_, told) = run(at, &["policy", "export"]);
        assert!(!told.contains("HEAD"), "{told}");
        let (_, told) = run(at, &["policy", "history", "--limit", "1"]);
        assert!(told.contains("rollback to epoch 1"), "{told}");
    }

    #[test]
    fn who_can_and_can() {
        let folder = data();
        let at = folder.path();
        let binding = ROLE.to_owned()
            + "---\nkind: Binding\nnamespace: shop\nname: a\nrole: orders-reader\nwho: {issuer: demo, subject: ann}\n";
        std::fs::write(at.join("orders.yaml"), binding).unwrap();
        run(at, &["policy", "apply", "-f", "orders.yaml"]);
        let (code, told) = run(at, &["policy", "who-can", "GET", "/orders/1", "--host", "orders.shop"]);
        assert!(
            code == Some(0) && told.contains("subject ann, issuer demo  by shop/a → orders-reader.read"),
            "{told}"
        );
        assert!(told.contains("BUT the service does not accept tokens of demo"), "{told}");
        let (_, told) = run(at, &["policy", "who-can", "PUT", "/orders/1", "--service", "orders"]);
        assert!(told.contains("nobody may"), "{told}");
        let (code, told) = run(at, &["policy", "who-can", "GET", "/", "--service", "none"]);
        assert!(code == Some(1) && told.contains("shop/orders"), "{told}");
        let (_, told) = run(at, &["policy", "can", "ann"]);
        assert!(told.contains("GET /orders/{id} on shop/orders  by shop/a"), "{told}");
        // What takes it away, and under which condition.
        let more = "kind: Denial\nnamespace: shop\nname: never\nservice: orders\nmethods: [GET]\npaths: [\"/{**}\"]\n\
            who: {issuer: demo, subject: ann}\nwhen: {claim: tier, equals: bronze}\n\
            ---\nkind: Role\nnamespace: shop\nname: caller\npermissions:\n  \
            - {name: list, service: orders, grpc: {service: shop.v1.Orders, methods: [List]}, when: {claim: tier, equals: gold}}\n\
            ---\nkind: Binding\nnamespace: shop\nname: c\nrole: caller\nwho: {issuer: demo, subject: ann}\n";
        std::fs::write(at.join("more.yaml"), more).unwrap();
        let (code, told) = run(at, &["policy", "apply", "-f", "more.yaml"]);
        assert_eq!(code, Some(0), "{told}");
        let (_, told) = run(at, &["policy", "can", "ann"]);
        assert!(told.contains("DENIED IN PART by shop/never (subject ann, issuer demo) where"), "{told}");
        assert!(told.contains("gRPC shop.v1.Orders/List on shop/orders"), "{told}");
        let grpc = ["policy", "who-can", "--grpc", "shop.v1.Orders/List", "--service", "orders"];
        let (_, told) = run(at, &grpc);
        assert!(told.contains("by shop/c → caller.list  ONLY WHERE {\"claim\":\"tier\""), "{told}");
        let (code, told) = run(at, &["policy", "who-can", "GET"]);
        assert!(code == Some(2) && told.contains("PATH"), "{told}");
        let (code, told) = run(at, &["policy", "can", "bob"]);
        assert!(code == Some(1) && told.contains("nothing is granted"), "{told}");
    }

    #[test]
    fn a_wrong_policy_changes_nothing_and_exits_with_2() {
        let folder = data();
        std::fs::write(folder.path().join("bad.yaml"), ROLE.replace("service: orders,", "service: ordres,"))
            .unwrap();
        let (code, told) = run(folder.path(), &["policy", "apply", "-f", "bad.yaml"]);
        assert!(code == Some(2) && told.contains("bad.yaml:") && told.contains("ordres"), "{told}");
        let (_, told) = run(folder.path(), &["policy", "get", "--namespace", "shop"]);
        assert!(!told.contains("orders-reader"), "{told}");
    }

    #[test]
    fn an_administrator_can_be_recovered_where_the_database_can_be_written() {
        let folder = data();
        let (code, token) = run(folder.path(), &["admin", "recover", "--name", "me"]);
        assert!(code == Some(0) && token.trim().len() > 20, "{token}");
        let nowhere = tempfile::tempdir().unwrap();
        let (code, told) = run(nowhere.path(), &["admin", "recover", "--name", "me"]);
        assert!(code == Some(1) && told.contains("no policy in"), "{told}");
    }
}

mod token {
    use super::*;

    #[test]
    fn without_a_demo_issuer_it_says_what_makes_one() {
        let folder = tempfile::tempdir().unwrap();
        let output = tollgate(folder.path(), &["token", "--user", "reader"]);
        assert_eq!(output.status.code(), Some(1));
        assert!(text(&output.stderr).contains("`tollgate up` makes it"), "{}", text(&output.stderr));
    }

    #[test]
    fn bad_arguments_exit_with_2() {
        let folder = tempfile::tempdir().unwrap();
        let output = tollgate(folder.path(), &["token", "--user", "reader", "--ttl", "soon"]);
        assert_eq!(output.status.code(), Some(2));
        assert!(text(&output.stderr).contains("not a duration"), "{}", text(&output.stderr));
    }
}

mod token_verify {
    use super::*;

    #[test]
    fn the_demo_issuers_tokens_are_printed_and_explained() {
        let folder = tempfile::tempdir().unwrap();
        assert!(tollgate(folder.path(), &["demo", "seed"]).status.success());
        let print = |more: &[&str]| {
            let output = tollgate(folder.path(), &[&["token", "--user", "reader"], more].concat());
            assert!(output.status.success(), "{}", text(&output.stderr));
            text(&output.stdout).trim().to_owned()
        };
        let good = print(&["--scope", "policies:read"]);
        let service = ["--service", "insurance/policies"];
        let output = tollgate(folder.path(), &[&["token", "verify", &good], &service[..]].concat());
        let told = text(&output.stdout);
        assert!(output.status.success(), "{told}{}", text(&output.stderr));
        for line in ["✓ has a signature that verifies", "subject: \"reader\"", "verdict: ok"] {
            assert!(told.contains(line), "{told}");
        }
        assert!(!told.contains(good.rsplit('.').next().unwrap()), "no part of the signature is echoed");
        // An expired one, and rubbish: exit code 1, and why.
        let output = tollgate(folder.path(), &["token", "verify", &print(&["--expired"])]);
        assert_eq!(output.status.code(), Some(1));
        assert!(
            text(&output.stdout).contains("✗ has not expired (exp): exp has passed [token_expired, expiry]")
        );
        let output = tollgate(folder.path(), &["token", "verify", "rubbish"]);
        assert_eq!(output.status.code(), Some(1));
        assert!(text(&output.stdout).contains("verdict: token_malformed"));
        // What is no question.
        let unknown = tollgate(folder.path(), &["token", "verify", &good, "--service", "no/where"]);
        assert!(!unknown.status.success() && text(&unknown.stderr).contains("no/where"));
        let empty = tempfile::tempdir().unwrap();
        let nowhere = tollgate(empty.path(), &["token", "verify", &good]);
        assert!(!nowhere.status.success() && text(&nowhere.stderr).contains("--data"));
        assert!(!tollgate(folder.path(), &["token"]).status.success(), "--user is still needed");
    }
}
