//! OTLP by gRPC and HTTP: what is taken, what is refused, and that it is said.

use std::io::Write as _;

use prost::Message as _;
use serde_json::{Value, json};
use tollgate_proto::opentelemetry_proto::tonic::{
    collector::{
        logs::v1::{
            ExportLogsServiceRequest, ExportLogsServiceResponse, logs_service_client::LogsServiceClient,
        },
        metrics::v1::{ExportMetricsServiceRequest, metrics_service_client::MetricsServiceClient},
        trace::v1::{ExportTraceServiceRequest, trace_service_client::TraceServiceClient},
    },
    logs::v1::LogRecord,
    metrics::v1::{
        ExponentialHistogram, ExponentialHistogramDataPoint, Gauge, Histogram, HistogramDataPoint, Metric,
        NumberDataPoint, ResourceMetrics, ScopeMetrics, metric::Data, number_data_point,
    },
    trace::v1::{ResourceSpans, ScopeSpans, Span},
};

use crate::harness::{Dashboard, Story, now_ns, ok, request, start, start_with, text};

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

async fn post(dashboard: &Dashboard, path: &str, headers: &[(&str, &str)], body: Vec<u8>) -> (u16, Vec<u8>) {
    let mut request =
        dashboard.http.post(format!("http://{}{path}", dashboard.addresses.otlp_http)).body(body);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let answer = request.send().await.unwrap();
    (answer.status().as_u16(), answer.bytes().await.unwrap().to_vec())
}

type Header = (&'static str, &'static str);

const PROTOBUF: Header = ("content-type", "application/x-protobuf");
const JSON: Header = ("content-type", "application/json");
const GZIP: Header = ("content-encoding", "gzip");

#[tokio::test]
async fn every_encoding_arrives() {
    let dashboard = start().await;
    let one = |id: &str| request(vec![Story { id, ..Story::default() }.record()]);

    let mut client =
        LogsServiceClient::connect(format!("http://{}", dashboard.addresses.otlp_grpc)).await.unwrap();
    client.export(one("grpc")).await.unwrap();
    let mut zipped = client.send_compressed(tonic::codec::CompressionEncoding::Gzip);
    zipped.export(one("grpc-gzip")).await.unwrap();

    let (status, body) = post(&dashboard, "/v1/logs", &[PROTOBUF], one("protobuf").encode_to_vec()).await;
    assert_eq!((status, ExportLogsServiceResponse::decode(&body[..]).unwrap().partial_success), (200, None));
    let (status, _) =
        post(&dashboard, "/v1/logs", &[PROTOBUF, GZIP], gzip(&one("protobuf-gzip").encode_to_vec())).await;
    assert_eq!(status, 200);
    // As OTLP writes JSON: ids in hex, 64-bit numbers as text.
    let written = json!({"resourceLogs": [{"resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "edge"}}]},
        "scopeLogs": [{"logRecords": [{"timeUnixNano": now_ns().to_string(), "eventName": "tollgate.access",
            "traceId": "5b8efff798038103d269b633813fc60c", "spanId": "eee19b7ec3c1b174",
            "body": {"stringValue": "a line"},
            "attributes": [{"key": "tollgate.request.id", "value": {"stringValue": "json"}},
                {"key": "http.response.status_code", "value": {"intValue": "200"}},
                {"key": "tollgate.duration_us", "value": {"intValue": 1500}},
                {"key": "list", "value": {"arrayValue": {"values": [{"stringValue": "a"}, {"boolValue": true}]}}}]}]}]}]});
    let (status, body) = post(&dashboard, "/v1/logs", &[JSON], written.to_string().into_bytes()).await;
    assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
    let (status, _) = post(
        &dashboard,
        "/v1/logs",
        &[JSON, GZIP],
        gzip(written.to_string().replace("\"json\"", "\"json-gzip\"").as_bytes()),
    )
    .await;
    assert_eq!(status, 200);

    for id in ["grpc", "grpc-gzip", "protobuf", "protobuf-gzip", "json", "json-gzip"] {
        let page = dashboard.search(&format!("id:{id}")).await;
        assert_eq!(page["matched"], 1, "{id}: {page}");
    }
    let row = &dashboard.search("id:json").await["rows"][0];
    assert_eq!(row["trace_id"], "5b8efff798038103d269b633813fc60c");
    assert_eq!((&row["status"], &row["duration_ms"]), (&json!(200), &json!(1.5)));
    let detail = dashboard.json("/requests/json").await;
    let other =
        detail["records"][0]["groups"].as_array().unwrap().iter().find(|g| g["title"] == "Other").unwrap();
    assert!(
        other["attributes"].as_array().unwrap().contains(&json!({"key": "list", "value": ["a", true]})),
        "{other}"
    );
    dashboard.service.stop().await;
}

#[tokio::test]
async fn what_cannot_be_read_is_refused_and_harms_nobody() {
    let dashboard = start_with(|config| config.otlp.max_request_bytes = 64 * 1024).await;
    let good = request(vec![Story::default().record()]).encode_to_vec();
    let large =
        request(vec![Story { path: &"x".repeat(100_000), ..Story::default() }.record()]).encode_to_vec();
    let cases: Vec<(&[Header], Vec<u8>, u16)> = vec![
        (&[("content-type", "text/plain")], good.clone(), 415),
        (&[], good.clone(), 415),
        (&[PROTOBUF, ("content-encoding", "br")], good.clone(), 415),
        (&[PROTOBUF, GZIP], good.clone(), 400),
        (&[PROTOBUF], b"garbage that is no protobuf".to_vec(), 400),
        (&[JSON], good.clone(), 400),
        (&[JSON], b"{\"resourceLogs\": 7}".to_vec(), 400),
        (
            &[JSON],
            b"{\"resourceLogs\":[{\"scopeLogs\":[{\"logRecords\":[{\"traceId\":\"not hex\"}]}]}]}".to_vec(),
            400,
        ),
        (&[PROTOBUF], large.clone(), 413),
        // Small on the wire, large unpacked.
        (&[PROTOBUF, GZIP], gzip(&vec![0; 10_000_000]), 413),
        (&[PROTOBUF, GZIP], gzip(&large), 413),
    ];
    for (number, (headers, body, expected)) in cases.into_iter().enumerate() {
        assert_eq!(post(&dashboard, "/v1/logs", headers, body).await.0, expected, "case {number}");
    }
    let mut client =
        LogsServiceClient::connect(format!("http://{}", dashboard.addresses.otlp_grpc)).await.unwrap();
    let refused = client.export(ExportLogsServiceRequest::decode(&large[..]).unwrap()).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::OutOfRange, "{refused}");
    assert_eq!(post(&dashboard, "/v1/logs", &[PROTOBUF], good).await.0, 200);
    assert_eq!(dashboard.search("").await["matched"], 1);
    dashboard.service.stop().await;
}

#[tokio::test]
async fn too_much_at_once_is_shed_and_counted() {
    let dashboard = start_with(|config| {
        config.otlp.max_request_bytes = 4096;
        config.otlp.max_inflight_bytes = 4096;
    })
    .await;
    // As large as what may be on its way at all: a second one at the same time is too much.
    let path = "x".repeat(3_400);
    let full = request(vec![Story { path: &path, ..Story::default() }.record()]);
    assert!(full.encoded_len() > 4000 && full.encoded_len() <= 4096, "{}", full.encoded_len());
    let (status, _) = post(&dashboard, "/v1/logs", &[PROTOBUF], full.encode_to_vec()).await;
    assert!(status == 200 || status == 429, "{status}");
    let many = (0..64).map(|_| post(&dashboard, "/v1/logs", &[PROTOBUF], full.encode_to_vec()));
    let answers = futures_util::future::join_all(many).await;
    let shed = answers.iter().filter(|(status, _)| *status == 429).count() as u64 + u64::from(status == 429);
    let taken = answers.iter().filter(|(status, _)| *status == 200).count() as u64 + u64::from(status == 200);
    assert_eq!(shed + taken, 65);
    assert_eq!(dashboard.search("").await["matched"], taken, "what is acknowledged is there");
    let dropped = dashboard.json("/status").await["records_dropped"]["overloaded"].as_u64().unwrap_or(0);
    assert_eq!(dropped, shed);
    dashboard.service.stop().await;
}

#[tokio::test]
async fn spans_and_metrics_are_kept_and_what_is_not_is_said() {
    let dashboard = start().await;
    let now = now_ns();
    let span = |id: u8, parent: Vec<u8>, name: &str| Span {
        trace_id: vec![0xab; 16],
        span_id: vec![id; 8],
        parent_span_id: parent,
        name: name.to_owned(),
        kind: 2,
        start_time_unix_nano: now - 50_000_000 + u64::from(id) * 1000,
        end_time_unix_nano: now - 10_000_000,
        attributes: vec![text("http.route", "/x")],
        ..Default::default()
    };
    let scope_spans = vec![ScopeSpans {
        spans: vec![span(2, vec![1; 8], "child"), span(1, vec![], "root")],
        ..Default::default()
    }];
    let spans = ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans { scope_spans, ..Default::default() }],
    };
    TraceServiceClient::connect(format!("http://{}", dashboard.addresses.otlp_grpc))
        .await
        .unwrap()
        .export(spans)
        .await
        .unwrap();
    let trace = dashboard.json(&format!("/traces/{}", "AB".repeat(16))).await;
    assert_eq!(trace["spans"][0]["name"], "root");
    assert_eq!(
        (&trace["spans"][1]["parent_span_id"], &trace["spans"][1]["kind"]),
        (&json!("01".repeat(8)), &json!("server"))
    );
    assert_eq!(trace["spans"][1]["duration_us"], 39_998);
    assert_eq!(dashboard.get(&format!("/traces/{}", "cd".repeat(16))).send().await.unwrap().status(), 404);
    assert_eq!(dashboard.get("/traces/xyz").send().await.unwrap().status(), 400);

    let metric = |name: &str, data| Metric {
        name: name.to_owned(),
        unit: "s".to_owned(),
        data: Some(data),
        ..Default::default()
    };
    let gauge = Gauge {
        data_points: vec![NumberDataPoint {
            time_unix_nano: now,
            value: Some(number_data_point::Value::AsInt(7)),
            attributes: vec![text("k", "v")],
            ..Default::default()
        }],
    };
    let histogram = Histogram {
        data_points: vec![HistogramDataPoint {
            time_unix_nano: now,
            count: 4,
            sum: Some(2.0),
            explicit_bounds: vec![0.5],
            bucket_counts: vec![1, 3],
            ..Default::default()
        }],
        ..Default::default()
    };
    let exponential = ExponentialHistogram {
        data_points: vec![ExponentialHistogramDataPoint::default(); 3],
        ..Default::default()
    };
    let metrics = vec![
        metric("g", Data::Gauge(gauge)),
        metric("h", Data::Histogram(histogram)),
        metric("e", Data::ExponentialHistogram(exponential)),
    ];
    let scope_metrics = vec![ScopeMetrics { metrics, ..Default::default() }];
    let request = ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics { scope_metrics, ..Default::default() }],
    };
    let mut client =
        MetricsServiceClient::connect(format!("http://{}", dashboard.addresses.otlp_grpc)).await.unwrap();
    let partial = client.export(request).await.unwrap().into_inner().partial_success.unwrap();
    assert_eq!(partial.rejected_data_points, 3);
    assert!(partial.error_message.contains("exponential histograms"), "{}", partial.error_message);
    let gauge = dashboard.json("/metrics/series?name=g").await;
    assert_eq!(
        (&gauge["series"][0]["points"][0]["value"], &gauge["series"][0]["attributes"]),
        (&json!(7.0), &json!({"k": "v"}))
    );
    let histogram = dashboard.json("/metrics/series?name=h").await;
    let point = &histogram["series"][0]["points"][0];
    assert_eq!(
        (&point["value"], &point["count"], &point["bounds"], &point["counts"]),
        (&json!(0.5), &json!(4), &json!([0.5]), &json!([1, 3]))
    );
    dashboard.service.stop().await;
}

#[tokio::test]
async fn plain_envoy_is_understood() {
    let dashboard = start().await;
    let attributes: Vec<Value> = [
        ("method", "GET"),
        ("path", "/basic?q=secret"),
        ("response_code", "429"),
        ("response_flags", "RL"),
        ("response_code_details", "request_rate_limited"),
        ("duration", "12"),
        ("upstream_cluster", "-"),
        ("authority", "shop.example"),
        ("request_id", "e-1"),
        ("downstream_remote_address", "192.0.2.7:4000"),
    ]
    .iter()
    .map(|(k, v)| json!({"key": k, "value": {"stringValue": v}}))
    .collect();
    let sent = json!({"resourceLogs": [{"resource": {"attributes": [{"key": "log_name", "value": {"stringValue": "mylog"}}]},
        "scopeLogs": [{"logRecords": [{"timeUnixNano": now_ns().to_string(), "body": {"stringValue": "GET /basic 429 RL"}, "attributes": attributes},
            {"timeUnixNano": now_ns().to_string(), "severityNumber": 17, "body": {"stringValue": "something else"}}]}]}]});
    assert_eq!(post(&dashboard, "/v1/logs", &[JSON], sent.to_string().into_bytes()).await.0, 200);
    let page = dashboard.search("").await;
    assert_eq!(page["matched"], 1, "a log line is no request");
    let row = &page["rows"][0];
    assert_eq!(
        (&row["outcome"], &row["status"], &row["path"]),
        (&json!("limited"), &json!(429), &json!("/basic"))
    );
    assert_eq!(
        (&row["dest"], &row["caller"], &row["duration_ms"]),
        (&json!("shop.example"), &json!("192.0.2.7:4000"), &json!(12.0))
    );
    let overview = dashboard.json("/overview").await;
    assert_eq!((&overview["totals"]["requests"], &overview["totals"]["limited"]), (&json!(1), &json!(1)));
    let logs: Value = ok(dashboard.get("/logs?q=severity:ERROR")).await;
    assert_eq!(logs["rows"][0]["body"], "something else");
    dashboard.service.stop().await;
}

#[tokio::test]
async fn a_small_request_that_unfolds_into_much_is_refused_for_good() {
    let dashboard = start().await;
    let empty = |records: usize| request(vec![LogRecord::default(); records]);
    let mut wide = empty(20_000);
    let about = wide.resource_logs[0].resource.as_mut().unwrap();
    about.attributes = (0..256).map(|n| text(&format!("a{n}"), "v")).collect();
    let mut long = empty(1_000);
    let about = long.resource_logs[0].resource.as_mut().unwrap();
    about.attributes = (0..300).map(|n| text(&format!("a{n}"), &"v".repeat(16_000))).collect();
    for (name, sent) in [("records", empty(65_537)), ("cells", wide), ("bytes", long)] {
        let (status, body) = post(&dashboard, "/v1/logs", &[PROTOBUF], sent.encode_to_vec()).await;
        assert_eq!(status, 413, "{name}: {}", String::from_utf8_lossy(&body));
    }
    let mut client =
        LogsServiceClient::connect(format!("http://{}", dashboard.addresses.otlp_grpc)).await.unwrap();
    let refused = client.export(empty(65_537)).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::InvalidArgument, "{refused}");
    let mut record = Story::default().record();
    record.attributes.push(text("long", &"\u{e4}".repeat(20_000)));
    record.attributes.extend((0..600).map(|n| text(&format!("b{n}"), "v")));
    dashboard.send(vec![record]).await;
    let detail = dashboard.json("/requests/r-1").await.to_string();
    assert!(detail.contains(&"\u{e4}".repeat(8_000)) && !detail.contains(&"\u{e4}".repeat(8_193)));
    assert!(detail.contains("\"b400\"") && !detail.contains("\"b599\""));
    dashboard.service.stop().await;
}
