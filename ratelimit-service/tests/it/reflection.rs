//! gRPC reflection, asked as tools ask it.

use tollgate_testkit::reflection::{Version, files_of, services};
use tonic::Code;

use crate::support::Served;

const LIMITS: &str = "domain: shop\ndescriptors: []\n";

#[tokio::test]
async fn a_tool_learns_what_is_spoken_and_how() {
    let served = Served::with_limits(LIMITS).await;
    let spoken = [
        "envoy.service.rate_limit_quota.v3.RateLimitQuotaService",
        "envoy.service.ratelimit.v3.RateLimitService",
    ];
    for version in [Version::V1, Version::V1Alpha] {
        let names = services(&served.channel(), version).await.unwrap();
        assert_eq!(names[..2], spoken);
        for symbol in spoken {
            assert!(files_of(&served.channel(), version, symbol).await.unwrap().len() > 5, "{symbol}");
        }
    }
}

#[tokio::test]
async fn it_can_be_switched_off() {
    let served = Served::with(LIMITS, |config| config.reflection = false).await;
    let refused = services(&served.channel(), Version::V1).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unimplemented);
}
