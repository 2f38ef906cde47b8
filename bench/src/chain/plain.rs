//! Forwarding and nothing else, HTTP/1.1 on both sides, with every request in an OTLP access log on both.
//!
//! Envoy traces nothing here, so our proxy records no traces either.

use serde_json::json;
use tempfile::TempDir;
use tollgate_testkit::envoy::{Envoy, EnvoyConfig};

use super::{Args, compare, upstream};
use crate::process::{self, HELPER_CORE, Running, TESTED_CORE};
use crate::{Options, collector};

/// Measures and prints.
pub(crate) fn run(options: &Options, args: &Args) -> anyhow::Result<()> {
    process::pin(std::process::id(), HELPER_CORE)?;
    let upstream = upstream::start()?;
    let collector = collector::start()?;
    let folder = TempDir::new()?;
    let [listen] = process::free_addresses()?;
    let config = json!({
        "process": {"listen": null},
        "telemetry": {"endpoint": format!("http://{}", collector), "log": "warn", "sample_ratio": 0.0},
        "listeners": [{"name": "in", "bind": listen, "role": "ingress", "limit_by_address": {"per_second": 0}}],
        "routes": [{"name": "all", "matches": [{}], "authz": "off", "backends": [{"cluster": "app"}]}],
        "clusters": [{"name": "app", "endpoints": {"static": [upstream]}}],
    });
    let file = folder.path().join("proxy.yaml");
    std::fs::write(&file, config.to_string())?;
    let arguments = ["--config".to_owned(), file.display().to_string()];
    let proxy = Running::start(&options.binaries.join("tollgate-proxy"), TESTED_CORE, &arguments)?;
    process::wait_for(listen)?;
    let envoy = Envoy::start(&EnvoyConfig {
        identity: None,
        authz: None,
        ratelimit: None,
        upstream,
        otlp: Some(collector),
        concurrency: 1,
        service: "",
        domain: "",
    });
    process::pin(envoy.pid(), TESTED_CORE)?;
    compare(options, args, [(listen, proxy.id()), (envoy.address(), envoy.pid())], None)
}
