//! Telemetry with a collector that is away, comes back, refuses.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tollgate_proto::opentelemetry_proto::tonic::collector::logs::v1::logs_service_server::{
    LogsService, LogsServiceServer,
};
use tollgate_proto::opentelemetry_proto::tonic::collector::logs::v1::{
    ExportLogsPartialSuccess, ExportLogsServiceRequest, ExportLogsServiceResponse,
};
use tollgate_proto::opentelemetry_proto::tonic::logs::v1::LogRecord;
use tollgate_runtime::Service;
use tollgate_runtime::process::ProcessConfig;
use tollgate_runtime::telemetry::TelemetryConfig;
use tollgate_testkit::ports::free_address;
use tonic::{Request, Response, Status};

const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Clone, Default)]
struct Collector {
    taken: Arc<AtomicUsize>,
    refuses_each: i64,
}

#[tonic::async_trait]
impl LogsService for Collector {
    async fn export(
        &self,
        request: Request<ExportLogsServiceRequest>,
    ) -> Result<Response<ExportLogsServiceResponse>, Status> {
        let records = request
            .into_inner()
            .resource_logs
            .iter()
            .flat_map(|r| &r.scope_logs)
            .map(|s| s.log_records.len())
            .sum();
        self.taken.fetch_add(records, Ordering::SeqCst);
        let partial_success = (self.refuses_each > 0).then(|| ExportLogsPartialSuccess {
            rejected_log_records: self.refuses_each,
            ..Default::default()
        });
        Ok(Response::new(ExportLogsServiceResponse { partial_success }))
    }
}

fn collect(collector: Collector, address: SocketAddr, tasks: &Service) {
    let stopping = tasks.tasks().stopping();
    let server = tonic::transport::Server::builder()
        .add_service(LogsServiceServer::new(collector))
        .serve_with_shutdown(address, stopping.wait());
    tasks.tasks().spawn("collector", server);
}

fn service(address: SocketAddr, log_queue: usize) -> Service {
    let telemetry =
        TelemetryConfig { endpoint: Some(format!("http://{address}")), log_queue, ..Default::default() };
    Service::start("sample", &ProcessConfig::default(), &telemetry).unwrap()
}

fn dropped(service: &Service, reason: &str) -> Option<u64> {
    let text = service.telemetry().render_metrics().unwrap();
    let line = text.lines().find(|line| {
        line.starts_with("tollgate_telemetry_dropped")
            && line.contains("signal=\"logs\"")
            && line.contains(reason)
    })?;
    line.rsplit(' ').next()?.parse().ok()
}

async fn eventually(what: &str, done: impl Fn() -> bool) {
    let started = Instant::now();
    while !done() {
        assert!(started.elapsed() < PATIENCE, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_away_costs_what_does_not_fit_the_queue_and_no_more() {
    let address = free_address();
    let service = service(address, 10);
    // More than a batch in hand and the queue behind it can ever hold.
    for _ in 0..5000 {
        service.telemetry().logs().offer(LogRecord::default());
    }
    let lost = dropped(&service, "queue_full").expect("drops are counted") as usize;
    assert!(lost > 0 && lost < 5000, "{lost}");

    let helper = Service::for_test("helper");
    let collector = Collector::default();
    collect(collector.clone(), address, &helper);
    eventually("what was kept arrives", || collector.taken.load(Ordering::SeqCst) == 5000 - lost).await;
    service.stop().await;
    helper.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_collector_refuses_is_counted() {
    let address = free_address();
    let helper = Service::for_test("helper");
    collect(Collector { refuses_each: 2, ..Collector::default() }, address, &helper);
    let service = service(address, 100);
    for _ in 0..3 {
        service.telemetry().logs().offer(LogRecord::default());
    }
    eventually("the refusal is counted", || dropped(&service, "refused").is_some_and(|n| n >= 2)).await;
    service.stop().await;
    helper.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn records_that_are_large_together_are_sent_apart() {
    let address = free_address();
    let helper = Service::for_test("helper");
    let collector = Collector::default();
    collect(collector.clone(), address, &helper);
    let service = service(address, 1000);
    // 20 MiB in one batch; a receiver takes 4 MiB a message unless told otherwise.
    for _ in 0..200 {
        let record = LogRecord { severity_text: "x".repeat(100 << 10), ..Default::default() };
        service.telemetry().logs().offer(record);
    }
    eventually("all of them arrive", || collector.taken.load(Ordering::SeqCst) == 200).await;
    service.stop().await;
    helper.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_sends_what_is_still_queued() {
    let address = free_address();
    let helper = Service::for_test("helper");
    let collector = Collector::default();
    collect(collector.clone(), address, &helper);
    let service = service(address, 100);
    for _ in 0..7 {
        service.telemetry().logs().offer(LogRecord::default());
    }
    service.stop().await;
    assert_eq!(collector.taken.load(Ordering::SeqCst), 7);
    helper.stop().await;
}
