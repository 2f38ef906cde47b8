//! Limits files that change while the service runs.

use std::os::unix::fs::symlink;

use crate::support::{Served, descriptor, eventually, per_day, request};

async fn limit_in_force(served: &Served) -> u32 {
    let answer = served.ask(request("test", vec![descriptor(&[("key", "look")])])).await;
    answer.statuses[0].current_limit.as_ref().map_or(0, |limit| limit.requests_per_unit)
}

async fn becomes(served: &Served, limit: u32) {
    eventually(&format!("the limit becomes {limit}"), || async { limit_in_force(served).await == limit })
        .await;
}

#[tokio::test]
async fn a_file_replaced_by_rename_or_written_in_place_is_taken() {
    let served = Served::with_limits(&per_day(5)).await;
    assert_eq!(limit_in_force(&served).await, 5);
    served.write("limits.yaml", &per_day(6));
    becomes(&served, 6).await;
    std::fs::write(served.folder.path().join("limits.yaml"), per_day(77)).unwrap();
    becomes(&served, 77).await;
}

#[tokio::test]
async fn a_symlink_swap_is_taken() {
    let served = Served::with_limits("domain: other").await;
    let folder = served.folder.path();
    for (edition, limit) in [("..1", 5), ("..2", 6)] {
        std::fs::create_dir(folder.join(edition)).unwrap();
        std::fs::write(folder.join(edition).join("test.yaml"), per_day(limit)).unwrap();
    }
    // As Kubernetes mounts a ConfigMap: the file is a link through `..data`, which alone is swapped.
    symlink("..1", folder.join("..data")).unwrap();
    symlink("..data/test.yaml", folder.join("test.yaml")).unwrap();
    becomes(&served, 5).await;
    symlink("..2", folder.join("..data_tmp")).unwrap();
    std::fs::rename(folder.join("..data_tmp"), folder.join("..data")).unwrap();
    becomes(&served, 6).await;
}

#[tokio::test]
async fn a_bad_edition_keeps_the_last_good_one_whole() {
    let served = Served::with_limits(&per_day(5)).await;
    // The first file would be good by itself; the second spoils the edition.
    served.write("extra.yaml", "domain: extra\ndescriptors: [{key: k, rate_limit: {unit: never}}]");
    served.write("limits.yaml", &per_day(6));
    let reloads = || async {
        let text = served.service.telemetry().render_metrics().unwrap();
        text.lines().any(|line| {
            line.starts_with("tollgate_ratelimit_limits_reloads") && line.contains("result=\"refused\"")
        })
    };
    eventually("the bad edition is refused and counted", reloads).await;
    assert_eq!(limit_in_force(&served).await, 5);
    served.write("extra.yaml", "domain: extra");
    becomes(&served, 6).await;
}

#[tokio::test]
async fn counts_go_on_over_a_reload() {
    let served = Served::with_limits(&per_day(5)).await;
    assert_eq!(served.passing_of(3, "v").await, 3);
    served.write("limits.yaml", &per_day(4));
    becomes(&served, 4).await;
    assert_eq!(served.passing_of(3, "v").await, 1);
}
