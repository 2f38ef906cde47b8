//! Whom an API is believed to be, and who we are to it.

use tollgate_slices::{Api, News, Service};
use tollgate_testkit::authority::Authority;
use tollgate_testkit::kubernetes_api::{KubernetesApi, TOKEN};

use crate::watcher::{Watcher, account, orders, ready, until};

const ONE: &str = "10.244.1.17:8080";

#[tokio::test]
async fn while_the_api_is_away_nothing_is_told_but_that() {
    let (api, folder) = (KubernetesApi::start().await, tempfile::tempdir().unwrap());
    api.put(ready("orders-a", &["10.244.1.17"]));
    let watcher = Watcher::of(account(&api, &folder), orders());
    watcher.finds(&[ONE]).await;
    until("a watch", || api.watchers() == 1).await;
    api.away(true);
    let why = watcher.fails().await;
    assert!(why.contains("the Kubernetes API cannot be reached: "), "{why}");
    api.put(ready("orders-b", &["10.244.2.17"]));
    api.away(false);
    watcher.finds(&[ONE, "10.244.2.17:8080"]).await;
    // Nothing was missed, so nothing was listed again.
    assert_eq!(api.asked().iter().filter(|asked| !asked.contains("watch=true")).count(), 1);
    let emptied = |news: &News| matches!(news, News::Found(found) if found.pods.is_empty());
    assert!(!watcher.news().iter().any(emptied), "{:?}", watcher.news());
}

#[tokio::test]
async fn a_token_that_is_taken_no_more_is_read_anew() {
    let (api, folder) = (KubernetesApi::start().await, tempfile::tempdir().unwrap());
    api.put(ready("orders-a", &["10.244.1.17"]));
    let watcher = Watcher::of(account(&api, &folder), orders());
    watcher.finds(&[ONE]).await;
    until("a watch", || api.watchers() == 1).await;
    api.take_token("another");
    api.end_watches();
    let why = watcher.fails().await;
    assert!(why.contains("answers 401 Unauthorized") && !why.contains(TOKEN), "{why}");
    std::fs::write(folder.path().join("token"), "another").unwrap();
    watcher.finds(&[ONE]).await;
}

#[tokio::test]
async fn what_is_missing_is_named_and_may_come_later() {
    let (api, folder) = (KubernetesApi::start().await, tempfile::tempdir().unwrap());
    api.put(ready("orders-a", &["10.244.1.17"]));
    let account = account(&api, &folder);
    for name in ["ca.crt", "token", "namespace"] {
        let file = folder.path().join(name);
        std::fs::remove_file(&file).unwrap();
        let watcher = Watcher::of(account.clone(), orders());
        let why = watcher.fails().await;
        assert!(why.contains(&format!("{}: No such file", file.display())), "{why}");
        api.mount(folder.path(), "shop");
        watcher.finds(&[ONE]).await;
    }
    // Where the namespace is given, ours need not be known.
    std::fs::remove_file(folder.path().join("namespace")).unwrap();
    let given = Service { namespace: Some("shop".to_owned()), ..orders() };
    Watcher::of(account, given).finds(&[ONE]).await;
}

#[tokio::test]
async fn somebody_else_is_not_asked_and_shown_no_token() {
    let (api, folder) = (KubernetesApi::start().await, tempfile::tempdir().unwrap());
    let account = account(&api, &folder);
    std::fs::write(folder.path().join("ca.crt"), Authority::new("kubernetes").root_pem()).unwrap();
    let why = Watcher::of(account.clone(), orders()).fails().await;
    assert!(why.contains("invalid peer certificate"), "{why}");
    assert!(api.asked().is_empty());
    let Api::Account { ca_file, token_file, .. } = account else { unreachable!("it is an account") };
    let plain = Api::Account { url: api.url().replace("https", "http"), ca_file, token_file };
    let why = Watcher::of(plain, orders()).fails().await;
    assert!(why.contains("is no address by HTTPS"), "{why}");
    assert!(api.asked().is_empty());
}

fn kubeconfig(cluster: &str, user: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: here\n\
         contexts: [{{name: here, context: {{cluster: c, user: u, namespace: shop}}}}]\n\
         clusters: [{{name: c, cluster: {{{cluster}}}}}]\n\
         users: [{{name: u, user: {{{user}}}}}]\n"
    )
}

#[tokio::test]
async fn outside_a_cluster_a_kubeconfig_says_where_it_is() {
    let (api, folder) = (KubernetesApi::start().await, tempfile::tempdir().unwrap());
    api.put(ready("orders-a", &["10.244.1.17"]));
    std::fs::write(folder.path().join("ca.crt"), api.root_pem()).unwrap();
    let file = folder.path().join("config");
    let follow = || Watcher::of(Api::Kubeconfig(file.clone()), orders());
    let server = format!("server: '{}', certificate-authority: ca.crt", api.url());
    let token = format!("token: {TOKEN}");
    for (text, why) in [
        (
            kubeconfig(&format!("{server}, insecure-skip-tls-verify: true"), &token),
            "`insecure-skip-tls-verify`",
        ),
        (
            kubeconfig(&format!("{server}, proxy-url: 'http://127.0.0.1:1'"), &token),
            "`proxy-url` is not followed",
        ),
        (kubeconfig(&server.replace("https", "http"), &token), "is no address by HTTPS"),
        (
            kubeconfig(&server, "exec: {apiVersion: client.authentication.k8s.io/v1, command: /bin/false}"),
            "`exec` and `auth-provider` are commands",
        ),
        ("nonsense: [".to_owned(), "config: "),
    ] {
        std::fs::write(&file, text).unwrap();
        let said = follow().fails().await;
        assert!(said.contains(why) && !said.contains(TOKEN), "{said}");
    }
    assert!(api.asked().is_empty());
    std::fs::write(&file, kubeconfig(&server, &token)).unwrap();
    follow().finds(&[ONE]).await;
}
