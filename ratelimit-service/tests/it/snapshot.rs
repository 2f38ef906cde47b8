//! Counters from one run to the next.

use crate::support::{Served, per_day};

async fn run(file: &std::path::Path) -> Served {
    let file = file.to_owned();
    Served::with(&per_day(3), |config| config.counters.snapshot = Some(file)).await
}

async fn stop(served: Served) {
    let (service, app) = (served.service.clone(), served.app);
    service.stop().await;
    app.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_counted_still_counts_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("counters.snapshot");
    let served = run(&file).await;
    assert_eq!(served.passing_of(2, "a").await, 2);
    stop(served).await;
    let served = run(&file).await;
    assert_eq!(served.passing_of(5, "a").await, 1);
    assert_eq!(served.passing_of(5, "b").await, 3);
    stop(served).await;

    // What cannot be read is as if it were not there, and the next end writes a whole one.
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[40] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let served = run(&file).await;
    assert_eq!(served.passing_of(5, "a").await, 3);
    stop(served).await;
    let served = run(&file).await;
    assert_eq!(served.passing_of(5, "a").await, 0);
    stop(served).await;
}
