//! What is counted. Labels are closed sets or names from the configuration; never a path, a host or a user.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, Gauge, Histogram, Meter, UpDownCounter};
use tollgate_proto::{Reason, attributes};
use tollgate_rollout::{Plan, Share};
use tollgate_runtime::http_server::DURATION_BUCKETS;

/// The instruments of one proxy.
#[derive(Debug)]
pub(crate) struct Metrics {
    request_duration: Histogram<f64>,
    upstream_duration: Histogram<f64>,
    authz_decisions: Counter<u64>,
    rate_limit_decisions: Counter<u64>,
    quota_decisions: Counter<u64>,
    quota_buckets: Gauge<u64>,
    quota_bound: Gauge<u64>,
    connection_decisions: Counter<u64>,
    connections: UpDownCounter<i64>,
    upgraded: UpDownCounter<i64>,
    reloads: Counter<u64>,
    mirrored: Counter<u64>,
    compared: Histogram<f64>,
    breakers: Counter<u64>,
    ejections: Counter<u64>,
    unregistered: Counter<u64>,
    carried_connections: Counter<u64>,
    carried_bytes: Counter<u64>,
    rollout_weight: Gauge<f64>,
    rollout_cut_off: Gauge<u64>,
    overload_delay: Gauge<f64>,
    overload_ratio: Gauge<f64>,
}

/// What a request is labelled with.
#[derive(Debug)]
pub(crate) struct RequestLabels {
    pub(crate) method: &'static str,
    pub(crate) route: Option<Arc<str>>,
    pub(crate) status: StatusCode,
    pub(crate) reason: Reason,
    pub(crate) reporter: &'static str,
    pub(crate) direction: &'static str,
}

/// A client's connection that is counted as open.
#[derive(Debug)]
pub(crate) struct OpenConnection<'m>(&'m UpDownCounter<i64>);

impl Drop for OpenConnection<'_> {
    fn drop(&mut self) {
        self.0.add(-1, &[]);
    }
}

impl Metrics {
    pub(crate) fn new(meter: &Meter) -> Self {
        Self {
            request_duration: meter
                .f64_histogram("http.server.request.duration")
                .with_description("Duration of HTTP server requests")
                .with_unit("s")
                .with_boundaries(DURATION_BUCKETS.to_vec())
                .build(),
            upstream_duration: meter
                .f64_histogram("http.client.request.duration")
                .with_description("Duration of requests to upstreams, until the head of the answer")
                .with_unit("s")
                .with_boundaries(DURATION_BUCKETS.to_vec())
                .build(),
            authz_decisions: meter
                .u64_counter("tollgate.authz.decisions")
                .with_description("Authorization decisions that this proxy enforced")
                .with_unit("{decision}")
                .build(),
            rate_limit_decisions: meter
                .u64_counter("tollgate.ratelimit.decisions")
                .with_description("Rate-limit decisions that this proxy enforced")
                .with_unit("{decision}")
                .build(),
            quota_decisions: meter
                .u64_counter("tollgate.ratelimit.quota.decisions")
                .with_description(
                    "Decisions of this proxy about divided limits; what is allowed by `unassigned` is beyond the limit",
                )
                .with_unit("{decision}")
                .build(),
            quota_buckets: meter
                .u64_gauge("tollgate.ratelimit.quota.buckets")
                .with_description("Buckets of divided limits that this proxy holds")
                .with_unit("{bucket}")
                .build(),
            quota_bound: meter
                .u64_gauge("tollgate.ratelimit.quota.over_admission_bound")
                .with_description(
                    "Requests a second that this proxy may let pass beyond a divided limit, for each bucket without a share",
                )
                .with_unit("{request}/s")
                .build(),
            connection_decisions: meter
                .u64_counter("tollgate.ratelimit.connection.decisions")
                .with_description("Rate-limit decisions about new connections")
                .with_unit("{decision}")
                .build(),
            connections: meter
                .i64_up_down_counter("tollgate.proxy.connections")
                .with_description("Client connections that are open")
                .with_unit("{connection}")
                .build(),
            upgraded: meter
                .i64_up_down_counter("tollgate.proxy.upgraded_connections")
                .with_description("Client connections that have gone over to another protocol and are open")
                .with_unit("{connection}")
                .build(),
            reloads: meter
                .u64_counter("tollgate.proxy.reloads")
                .with_description("Reloads of the configuration")
                .with_unit("{reload}")
                .build(),
            breakers: meter
                .u64_counter("tollgate.proxy.breaker.refused")
                .with_description("Requests and tries that a circuit breaker refused, by what was full")
                .with_unit("{request}")
                .build(),
            ejections: meter
                .u64_counter("tollgate.proxy.ejections")
                .with_description("Endpoints left out because of their answers, and spared in spite of them")
                .with_unit("{endpoint}")
                .build(),
            unregistered: meter
                .u64_counter("tollgate.proxy.unregistered")
                .with_description(
                    "Requests refused because no route names their destination; a bounded number of names",
                )
                .with_unit("{request}")
                .build(),
            carried_connections: meter
                .u64_counter("tollgate.proxy.tcp.connections")
                .with_description("Connections to TCP listeners that have ended, by why")
                .with_unit("{connection}")
                .build(),
            carried_bytes: meter
                .u64_counter("tollgate.proxy.tcp.bytes")
                .with_description("Bytes of TCP connections that have ended, received from clients and sent to them")
                .with_unit("By")
                .build(),
            rollout_weight: meter
                .f64_gauge("tollgate.proxy.rollout.weight")
                .with_description("The canary's share of the requests at this proxy, from 0 to 1")
                .with_unit("1")
                .build(),
            rollout_cut_off: meter
                .u64_gauge("tollgate.proxy.rollout.cut_off")
                .with_description("1 while this proxy does not hear of a rollout's record, and may only lower its canary")
                .with_unit("1")
                .build(),
            overload_delay: meter
                .f64_gauge("tollgate.proxy.overload.delay")
                .with_description("How long work waits for a processor")
                .with_unit("s")
                .build(),
            overload_ratio: meter
                .f64_gauge("tollgate.proxy.overload.ratio")
                .with_description("The share of requests that is refused because there is too much to do, from 0 to 1")
                .with_unit("1")
                .build(),
            mirrored: meter
                .u64_counter("tollgate.proxy.mirrored")
                .with_description("Copies of requests, by what became of them")
                .with_unit("{request}")
                .build(),
            compared: meter
                .f64_histogram("tollgate.proxy.mirror.difference")
                .with_description(
                    "How much longer a copy took than the real request, by whether their statuses agree",
                )
                .with_unit("s")
                .with_boundaries(vec![-1.0, -0.1, -0.01, -0.001, 0.0, 0.001, 0.01, 0.1, 1.0])
                .build(),
        }
    }

    pub(crate) fn request(&self, took: Duration, labels: RequestLabels) {
        let route = labels.route.unwrap_or_else(|| Arc::from("unmatched"));
        let labels = [
            KeyValue::new(attributes::HTTP_REQUEST_METHOD, labels.method),
            KeyValue::new(attributes::HTTP_ROUTE, route),
            KeyValue::new(attributes::HTTP_RESPONSE_STATUS_CODE, i64::from(labels.status.as_u16())),
            KeyValue::new(attributes::TOLLGATE_REASON, labels.reason.as_str()),
            KeyValue::new(attributes::TOLLGATE_REPORTER, labels.reporter),
            KeyValue::new(attributes::TOLLGATE_DIRECTION, labels.direction),
        ];
        self.request_duration.record(took.as_secs_f64(), &labels);
    }

    pub(crate) fn upstream(&self, took: Duration, cluster: &Arc<str>, status: Option<StatusCode>) {
        let status = status.map_or(0, |status| status.as_u16());
        let labels = [
            KeyValue::new(attributes::TOLLGATE_UPSTREAM_CLUSTER, Arc::clone(cluster)),
            KeyValue::new(attributes::HTTP_RESPONSE_STATUS_CODE, i64::from(status)),
        ];
        self.upstream_duration.record(took.as_secs_f64(), &labels);
    }

    pub(crate) fn authz(&self, decision: &'static str, reason: Reason, failure_mode: &'static str) {
        let labels = [
            KeyValue::new("decision", decision),
            KeyValue::new("reason", reason.as_str()),
            KeyValue::new("failure_mode", failure_mode),
        ];
        self.authz_decisions.add(1, &labels);
    }

    pub(crate) fn rate_limit(&self, domain: &str, decision: &'static str, failure_mode: &'static str) {
        let labels = [
            KeyValue::new("domain", domain.to_owned()),
            KeyValue::new("decision", decision),
            KeyValue::new("failure_mode", failure_mode),
        ];
        self.rate_limit_decisions.add(1, &labels);
    }

    /// The limit is labelled by its keys, which the configuration names.
    pub(crate) fn quota(
        &self,
        domain: &str,
        entries: &[(String, String)],
        decision: &'static str,
        by: &'static str,
    ) {
        let labels = [
            KeyValue::new("domain", domain.to_owned()),
            KeyValue::new("limit", keys(entries)),
            KeyValue::new("decision", decision),
            KeyValue::new("by", by),
        ];
        self.quota_decisions.add(1, &labels);
    }

    pub(crate) fn quota_buckets(&self, buckets: usize) {
        self.quota_buckets.record(buckets as u64, &[]);
    }

    /// What may pass beyond the limit of these keys.
    pub(crate) fn quota_bound(&self, domain: &str, limit: String, per_second: u32) {
        let labels = [KeyValue::new("domain", domain.to_owned()), KeyValue::new("limit", limit)];
        self.quota_bound.record(per_second.into(), &labels);
    }

    pub(crate) fn connection_limit(&self, domain: &str, decision: &'static str, failure_mode: &'static str) {
        let labels = [
            KeyValue::new("domain", domain.to_owned()),
            KeyValue::new("decision", decision),
            KeyValue::new("failure_mode", failure_mode),
        ];
        self.connection_decisions.add(1, &labels);
    }

    /// One more connection is open, until this is dropped.
    pub(crate) fn open_connection(&self) -> OpenConnection<'_> {
        self.connections.add(1, &[]);
        OpenConnection(&self.connections)
    }

    pub(crate) fn upgraded(&self, listener: &str, change: i64) {
        self.upgraded.add(change, &[KeyValue::new("listener", listener.to_owned())]);
    }

    pub(crate) fn breaker_open(&self, cluster: &Arc<str>, full: &'static str) {
        let cluster = KeyValue::new(attributes::TOLLGATE_UPSTREAM_CLUSTER, Arc::clone(cluster));
        self.breakers.add(1, &[cluster, KeyValue::new("full", full)]);
    }

    pub(crate) fn ejection(&self, cluster: &Arc<str>, outcome: &'static str, cause: &'static str) {
        let cluster = KeyValue::new(attributes::TOLLGATE_UPSTREAM_CLUSTER, Arc::clone(cluster));
        self.ejections.add(1, &[cluster, KeyValue::new("outcome", outcome), KeyValue::new("cause", cause)]);
    }

    pub(crate) fn unregistered(&self, destination: Arc<str>) {
        self.unregistered.add(1, &[KeyValue::new("destination", destination)]);
    }

    pub(crate) fn mirrored(&self, cluster: &Arc<str>, outcome: &'static str) {
        let cluster = KeyValue::new(attributes::TOLLGATE_UPSTREAM_CLUSTER, Arc::clone(cluster));
        self.mirrored.add(1, &[cluster, KeyValue::new("outcome", outcome)]);
    }

    pub(crate) fn compared(&self, cluster: &Arc<str>, same: bool, longer_seconds: f64) {
        let cluster = KeyValue::new(attributes::TOLLGATE_UPSTREAM_CLUSTER, Arc::clone(cluster));
        let status = KeyValue::new("status", if same { "same" } else { "different" });
        self.compared.record(longer_seconds, &[cluster, status]);
    }

    /// The canary of a rollout has this share here.
    pub(crate) fn rollout_weight(&self, plan: &Plan, weight: Share) {
        self.rollout_weight.record(f64::from(weight.as_millionths()) / 1e6, &of_rollout(plan));
    }

    /// Whether the record of a rollout is heard of.
    pub(crate) fn rollout_cut_off(&self, plan: &Plan, cut_off: bool) {
        self.rollout_cut_off.record(u64::from(cut_off), &of_rollout(plan));
    }

    /// How long work waits for a processor, and the share of requests that is refused for it.
    pub(crate) fn overload(&self, delay: Duration, ratio: f64) {
        self.overload_delay.record(delay.as_secs_f64(), &[]);
        self.overload_ratio.record(ratio, &[]);
    }

    /// A connection of bytes has ended.
    pub(crate) fn carried(&self, listener: &str, reason: Reason, received: u64, sent: u64) {
        let listener = KeyValue::new("listener", listener.to_owned());
        let reason = KeyValue::new(attributes::TOLLGATE_REASON, reason.as_str());
        self.carried_connections.add(1, &[listener.clone(), reason]);
        for (way, bytes) in [("received", received), ("sent", sent)] {
            self.carried_bytes.add(bytes, &[listener.clone(), KeyValue::new("way", way)]);
        }
    }

    pub(crate) fn reload(&self, outcome: &'static str) {
        self.reloads.add(1, &[KeyValue::new("outcome", outcome)]);
    }
}

/// The keys of entries that are in order.
fn keys(entries: &[(String, String)]) -> String {
    entries.iter().map(|(key, _)| key.as_str()).collect::<Vec<_>>().join(",")
}

/// Rollouts are named by the configuration.
fn of_rollout(plan: &Plan) -> [KeyValue; 2] {
    [KeyValue::new("service", plan.service.clone()), KeyValue::new("rollout", plan.name.clone())]
}
