//! Somebody who follows a Service, for tests.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde_json::Value;
use tempfile::TempDir;
use tokio::task::JoinSet;
use tollgate_slices::{Api, Found, News, Port, Service, follow};
use tollgate_testkit::kubernetes_api::{Condition, KubernetesApi, endpoint, slice};

/// How long a test waits for what should come by itself.
const PATIENCE: Duration = Duration::from_secs(30);

/// Follows `shop/orders`, until dropped.
pub(crate) struct Watcher {
    news: Arc<Mutex<Vec<News>>>,
    _following: JoinSet<()>,
}

impl Watcher {
    pub(crate) fn of(api: Api, service: Service) -> Self {
        let news: Arc<Mutex<Vec<News>>> = Arc::default();
        let told = Arc::clone(&news);
        let mut following = JoinSet::new();
        following.spawn(async move { follow(&api, &service, |news| told.lock().push(news)).await });
        Self { news, _following: following }
    }

    /// All it was told.
    pub(crate) fn news(&self) -> Vec<News> {
        self.news.lock().clone()
    }

    /// Waits until the last that it was told is so.
    pub(crate) async fn until(&self, what: &str, so: impl Fn(&News) -> bool) -> News {
        let began = Instant::now();
        loop {
            let last = self.news.lock().last().cloned();
            match last {
                Some(news) if so(&news) => return news,
                last => assert!(began.elapsed() < PATIENCE, "waited in vain: {what}: {last:?}"),
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits until exactly these addresses are found.
    pub(crate) async fn finds(&self, expected: &[&str]) -> Found {
        let these = |news: &News| addresses(news).is_some_and(|found| found == expected);
        match self.until(&format!("{expected:?}"), these).await {
            News::Found(found) => found,
            News::Failed(_) => unreachable!("it has addresses"),
        }
    }

    /// Waits until it is told of a failure, and says which.
    pub(crate) async fn fails(&self) -> String {
        match self.until("a failure", |news| matches!(news, News::Failed(_))).await {
            News::Failed(why) => why,
            News::Found(_) => unreachable!("it is a failure"),
        }
    }
}

fn addresses(news: &News) -> Option<Vec<String>> {
    match news {
        News::Found(found) => Some(found.pods.iter().map(|pod| pod.address.to_string()).collect()),
        News::Failed(_) => None,
    }
}

/// Waits for what has no news.
pub(crate) async fn until(what: &str, so: impl Fn() -> bool) {
    let began = Instant::now();
    while !so() {
        assert!(began.elapsed() < PATIENCE, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The Service that tests follow.
pub(crate) fn orders() -> Service {
    Service { namespace: None, name: "orders".to_owned(), port: Port::Name("http".to_owned()), family: None }
}

/// What a pod of namespace `shop` has of the API, in this folder.
pub(crate) fn account(api: &KubernetesApi, folder: &TempDir) -> Api {
    api.mount(folder.path(), "shop");
    let at = |name: &str| folder.path().join(name);
    Api::Account { url: api.url(), ca_file: at("ca.crt"), token_file: at("token") }
}

/// A slice of `shop/orders` with these pods, all ready, at port 8080.
pub(crate) fn ready(name: &str, ips: &[&str]) -> Value {
    let ip = |ip: &&str| ip.parse::<IpAddr>().unwrap();
    let endpoints: Vec<_> = ips.iter().map(|text| endpoint(ip(text), Condition::Ready, None)).collect();
    slice("shop", "orders", name, 8080, &endpoints)
}
