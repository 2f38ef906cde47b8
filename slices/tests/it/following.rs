//! What becomes of a Service's pods, and of the API while they are followed.

use serde_json::{Value, json};
use tollgate_slices::{Family, News, Service};
use tollgate_testkit::kubernetes_api::{Condition, KubernetesApi, Lists, endpoint, slice};

use crate::watcher::{Watcher, account, orders, ready, until};

const ONE: &str = "10.244.1.17:8080";
const TWO: &str = "10.244.2.17:8080";

async fn with_one() -> (KubernetesApi, tempfile::TempDir, Watcher) {
    let (api, folder) = (KubernetesApi::start().await, tempfile::tempdir().unwrap());
    api.put(ready("orders-a", &["10.244.1.17"]));
    let watcher = Watcher::of(account(&api, &folder), orders());
    watcher.finds(&[ONE]).await;
    until("a watch", || api.watchers() == 1).await;
    (api, folder, watcher)
}

fn lists(api: &KubernetesApi) -> usize {
    api.asked().iter().filter(|asked| !asked.contains("watch=true")).count()
}

/// From which versions it was watched.
fn versions(api: &KubernetesApi) -> Vec<String> {
    let asked = api.asked();
    let watches = asked.iter().filter(|asked| asked.contains("watch=true"));
    watches
        .filter_map(|asked| Some(asked.split("resourceVersion=").nth(1)?.split('&').next()?.to_owned()))
        .collect()
}

#[tokio::test]
async fn every_change_is_told_and_nothing_else() {
    let (api, _folder, watcher) = with_one().await;
    // Another Service of the namespace, and one of this name elsewhere.
    let ip = [10, 9, 9, 9].into();
    api.put(slice("shop", "payments", "payments-a", 1, &[endpoint(ip, Condition::Ready, None)]));
    api.put(slice("other", "orders", "orders-a", 1, &[endpoint(ip, Condition::Ready, None)]));
    api.put(ready("orders-b", &["10.244.2.17", "10.244.1.17"]));
    watcher.finds(&[ONE, TWO]).await;
    api.put(ready("orders-c", &["fd00:10:244:1::11"]));
    watcher.finds(&[ONE, TWO, "[fd00:10:244:1::11]:8080"]).await;
    api.delete("shop", "orders-a");
    watcher.finds(&[TWO, ONE, "[fd00:10:244:1::11]:8080"]).await;
    api.delete("shop", "orders-c");
    watcher.finds(&[TWO, ONE]).await;
    // The same again is no news.
    let before = watcher.news().len();
    api.put(ready("orders-b", &["10.244.2.17", "10.244.1.17"]));
    api.put(ready("orders-b", &["10.244.2.17"]));
    watcher.finds(&[TWO]).await;
    assert_eq!(watcher.news().len(), before + 1);
    assert!(watcher.news().iter().all(|news| matches!(news, News::Found(found) if found.remark.is_none())));
    assert_eq!((lists(&api), versions(&api).len()), (1, 1));
    // It asks for no more than it needs.
    let asked = api.asked();
    let path = "/apis/discovery.k8s.io/v1/namespaces/shop/endpointslices?";
    assert_eq!(asked[0], format!("{path}&labelSelector=kubernetes.io%2Fservice-name%3Dorders"));
    assert!(
        asked[1].contains("allowWatchBookmarks=true") && asked[1].contains("timeoutSeconds=2"),
        "{}",
        asked[1]
    );
}

#[tokio::test]
async fn pods_that_end_are_used_while_no_other_is_ready_and_none_is_none() {
    let (api, _folder, watcher) = with_one().await;
    let set = |one: Condition, two: Condition| {
        let of = |host: u8, condition| endpoint([10, 244, host, 17].into(), condition, None);
        api.put(slice("shop", "orders", "orders-a", 8080, &[of(1, one), of(2, two)]));
    };
    set(Condition::Ending, Condition::Ready);
    watcher.finds(&[TWO]).await;
    set(Condition::Ending, Condition::NotReady);
    let found = watcher.finds(&[ONE]).await;
    assert!(found.remark.unwrap().contains("those that end and still serve are used"));
    set(Condition::NotReady, Condition::NotReady);
    assert_eq!(watcher.finds(&[]).await.remark.unwrap(), "none of the 2 pods of `shop/orders` is ready");
    api.delete("shop", "orders-a");
    watcher.until("no slice", |news| matches!(news, News::Found(found) if found.remark.as_ref().unwrap().contains("no EndpointSlice"))).await;
    set(Condition::Ready, Condition::Ready);
    assert_eq!(watcher.finds(&[ONE, TWO]).await.remark, None);
}

#[tokio::test]
async fn a_dual_stack_service_has_both_families_or_the_one_that_is_wanted() {
    let (api, folder, watcher) = with_one().await;
    api.put(ready("orders-b", &["fd00:10:244:1::11"]));
    watcher.finds(&[ONE, "[fd00:10:244:1::11]:8080"]).await;
    let six = Service { family: Some(Family::V6), ..orders() };
    Watcher::of(account(&api, &folder), six).finds(&["[fd00:10:244:1::11]:8080"]).await;
}

#[tokio::test]
async fn a_watch_that_is_over_goes_on_where_it_was() {
    let (api, _folder, watcher) = with_one().await;
    let version = api.bookmark().to_string();
    api.say("\n");
    // The bookmark has arrived once what follows it has.
    api.put(ready("orders-b", &["10.244.2.17"]));
    watcher.finds(&[ONE, TWO]).await;
    let last = (version.parse::<u64>().unwrap() + 1).to_string();
    api.end_watches();
    api.put(ready("orders-b", &["10.244.3.17"]));
    watcher.finds(&[ONE, "10.244.3.17:8080"]).await;
    assert_eq!((versions(&api).last(), lists(&api)), (Some(&last), 1));
    assert!(watcher.news().iter().all(|news| matches!(news, News::Found(_))));
}

#[tokio::test]
async fn a_bookmark_alone_moves_the_version() {
    let (api, _folder, watcher) = with_one().await;
    let version = api.bookmark();
    api.end_watches();
    until("another watch", || api.watchers() == 1).await;
    // The end may overtake nothing: what was said before it is read before it.
    assert_eq!(versions(&api).last(), Some(&version.to_string()));
    assert_eq!((lists(&api), watcher.news().len()), (1, 1));
}

#[tokio::test]
async fn a_version_that_is_gone_is_no_failure_all_is_listed_again() {
    let (api, _folder, watcher) = with_one().await;
    // Things happen while nobody watches, and are forgotten.
    api.end_watches();
    api.delete("shop", "orders-a");
    api.put(ready("orders-b", &["10.244.2.17"]));
    api.forget();
    watcher.finds(&[TWO]).await;
    assert_eq!(lists(&api), 2);
    assert!(watcher.news().iter().all(|news| matches!(news, News::Found(_))), "{:?}", watcher.news());
    // And followed from there.
    api.put(ready("orders-b", &["10.244.3.17"]));
    watcher.finds(&["10.244.3.17:8080"]).await;
}

#[tokio::test]
async fn a_watch_that_speaks_nonsense_is_not_believed_and_all_is_listed_again() {
    for nonsense in [
        "<html>\n".to_owned(),
        "{\"type\":\"ADDED\",\"object\":{\"kind\":\"Pod\",\"apiVersion\":\"v1\",\"metadata\":{}}}\n".to_owned(),
        "{\"type\":\"RENAMED\",\"object\":{}}\n".to_owned(),
        "{\"type\":\"MODIFIED\",\"object\":{\"metadata\":{\"name\":\"orders-a\"},\"addressType\":\"IPv4\",\"endpoints\":[]}}\n"
            .to_owned(),
        "{\"type\":\"ERROR\",\"object\":{\"kind\":\"Status\",\"apiVersion\":\"v1\",\"metadata\":{},\"message\":\"etcd\",\"code\":500}}\n"
            .to_owned(),
        // An event without an end.
        " ".repeat(5 << 20),
    ] {
        let (api, _folder, watcher) = with_one().await;
        api.say(&nonsense);
        until("another list", || lists(&api) == 2).await;
        watcher.finds(&[ONE]).await;
        let news = watcher.news();
        let why = news.iter().find_map(|news| match news {
            News::Failed(why) => Some(why.clone()),
            News::Found(_) => None,
        });
        let why = why.unwrap_or_else(|| panic!("{nonsense:.40}: nothing was said: {news:?}"));
        assert!(why.contains("cannot be read") || why.contains("longer than 4194304 bytes"), "{why}");
    }
}

#[tokio::test]
async fn a_list_that_cannot_be_used_is_not_believed() {
    let (api, folder) = (KubernetesApi::start().await, tempfile::tempdir().unwrap());
    let list = |metadata: Value| json!({"kind": "EndpointSliceList", "apiVersion": "discovery.k8s.io/v1", "metadata": metadata, "items": []});
    for (lists, why) in [
        (Lists::Say("<html>".to_owned()), "cannot be read: expected value"),
        (
            Lists::Say("{\"kind\":\"PodList\",\"apiVersion\":\"v1\",\"items\":[]}".to_owned()),
            "cannot be read: ",
        ),
        (Lists::Say(list(json!({})).to_string()), "a list of no version"),
        (
            Lists::Say(list(json!({"resourceVersion": "1", "continue": "abc"})).to_string()),
            "it is a part of a list",
        ),
        (Lists::Endless, "longer than 8388608 bytes"),
        (
            Lists::Refuse(403, "endpointslices.discovery.k8s.io is forbidden".to_owned(), None),
            "answers 403 Forbidden: endpointslices.discovery.k8s.io is forbidden",
        ),
        (Lists::Refuse(429, "too many requests".to_owned(), Some(1)), "answers 429 Too Many Requests"),
    ] {
        api.lists(lists);
        let watcher = Watcher::of(account(&api, &folder), orders());
        let said = watcher.fails().await;
        assert!(said.starts_with("`orders`: ") && said.contains(why), "{said}");
        // Nothing was found, so nothing was told to be.
        assert!(watcher.news().iter().all(|news| matches!(news, News::Failed(_))));
        api.lists(Lists::Honest);
        watcher.until("a list", |news| matches!(news, News::Found(_))).await;
    }
}
