//! The door: takes credentials out of a request, refuses what cannot be kept, says what and why, and notes who brought it.
//!
//! It changes the request itself, so that what is logged is what is stored, and reading the log again gives the same.

use tollgate_proto::attributes::TOLLGATE_EXPORTER_IDENTITY;
use tollgate_proto::opentelemetry_proto::tonic::metrics::v1::{Metric, metric::Data};
use tollgate_proto::opentelemetry_proto::tonic::resource::v1::Resource;

use super::OtlpRequest;
use super::bounds::cut;
use crate::record::{redact, redact_text};
use tollgate_proto::opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};

/// A record may be this far ahead of our clock.
const AHEAD_NS: u64 = 3_600_000_000_000;
const DAY_NS: u64 = 86_400_000_000_000;

/// Times that are kept, unix nanoseconds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Window {
    now: u64,
    oldest: u64,
    newest: u64,
}

impl Window {
    pub(super) fn around(now: u64, keep_days: u32) -> Self {
        let oldest = now.saturating_sub(u64::from(keep_days) * DAY_NS);
        Self { now, oldest, newest: now.saturating_add(AHEAD_NS) }
    }

    /// A record without a time gets that of its observation, else that of its arrival.
    fn fix(&self, time: &mut u64, observed: u64) -> bool {
        if *time == 0 {
            *time = if observed == 0 { self.now } else { observed };
        }
        (self.oldest..=self.newest).contains(time)
    }
}

/// Records refused, by reason.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Refusals {
    pub(super) by_time: u64,
    pub(super) unsupported: u64,
    /// Attributes beyond what a record may have; the record itself is kept.
    pub(super) attributes: u64,
}

impl Refusals {
    pub(super) fn message(&self) -> String {
        let mut reasons = Vec::new();
        if self.by_time > 0 {
            reasons.push(format!(
                "{} records are older than what is kept or more than an hour ahead of this clock",
                self.by_time
            ));
        }
        if self.unsupported > 0 {
            reasons.push(format!(
                "{} points are of exponential histograms or empty metrics, which are not stored; use explicit buckets",
                self.unsupported
            ));
        }
        reasons.join("; ")
    }
}

/// Records in a request.
pub(super) fn count(request: &OtlpRequest) -> u64 {
    let records: usize = match request {
        OtlpRequest::Logs(r) => {
            r.resource_logs.iter().flat_map(|r| &r.scope_logs).map(|s| s.log_records.len()).sum()
        }
        OtlpRequest::Traces(r) => {
            r.resource_spans.iter().flat_map(|r| &r.scope_spans).map(|s| s.spans.len()).sum()
        }
        OtlpRequest::Metrics(r) => r
            .resource_metrics
            .iter()
            .flat_map(|r| &r.scope_metrics)
            .flat_map(|s| &s.metrics)
            .map(points)
            .sum(),
    };
    records as u64
}

fn points(metric: &Metric) -> usize {
    match &metric.data {
        Some(Data::Gauge(data)) => data.data_points.len(),
        Some(Data::Sum(data)) => data.data_points.len(),
        Some(Data::Histogram(data)) => data.data_points.len(),
        Some(Data::ExponentialHistogram(data)) => data.data_points.len(),
        Some(Data::Summary(data)) => data.data_points.len(),
        None => 1,
    }
}

/// `exporter` is the workload whose certificate the request came by, where it came by one.
pub(super) fn admit(request: &mut OtlpRequest, window: &Window, exporter: Option<&str>) -> Refusals {
    let mut refused = Refusals::default();
    let mut attributes = 0;
    let mut clean = |list: &mut Vec<KeyValue>| {
        attributes += cut(list);
        redact(list);
        // Who exports is what the certificate says, never what the request does.
        list.retain(|pair| pair.key != TOLLGATE_EXPORTER_IDENTITY);
    };
    let stamp = |resource: &mut Option<Resource>| {
        if let Some(id) = exporter {
            let value = Some(AnyValue { value: Some(Value::StringValue(id.to_owned())) });
            let key = TOLLGATE_EXPORTER_IDENTITY.to_owned();
            let stamped = KeyValue { key, value, ..KeyValue::default() };
            resource.get_or_insert_default().attributes.push(stamped);
        }
    };
    let mut keep = |kept: bool| {
        refused.by_time += u64::from(!kept);
        kept
    };
    match request {
        OtlpRequest::Logs(request) => {
            for resource in &mut request.resource_logs {
                resource.resource.iter_mut().for_each(|r| clean(&mut r.attributes));
                stamp(&mut resource.resource);
                for scope in &mut resource.scope_logs {
                    scope.scope.iter_mut().for_each(|s| clean(&mut s.attributes));
                    scope.log_records.retain_mut(|record| {
                        clean(&mut record.attributes);
                        record.body.iter_mut().for_each(crate::record::redact_body);
                        keep(window.fix(&mut record.time_unix_nano, record.observed_time_unix_nano))
                    });
                }
            }
        }
        OtlpRequest::Traces(request) => {
            for resource in &mut request.resource_spans {
                resource.resource.iter_mut().for_each(|r| clean(&mut r.attributes));
                stamp(&mut resource.resource);
                for scope in &mut resource.scope_spans {
                    scope.scope.iter_mut().for_each(|s| clean(&mut s.attributes));
                    scope.spans.retain_mut(|span| {
                        clean(&mut span.attributes);
                        redact_text(&mut span.name);
                        span.status.iter_mut().for_each(|status| redact_text(&mut status.message));
                        span.events.iter_mut().for_each(|event| {
                            redact_text(&mut event.name);
                            clean(&mut event.attributes);
                        });
                        span.links.iter_mut().for_each(|link| clean(&mut link.attributes));
                        keep(window.fix(&mut span.start_time_unix_nano, span.end_time_unix_nano))
                    });
                }
            }
        }
        OtlpRequest::Metrics(request) => {
            for resource in &mut request.resource_metrics {
                resource.resource.iter_mut().for_each(|r| clean(&mut r.attributes));
                stamp(&mut resource.resource);
                for scope in &mut resource.scope_metrics {
                    scope.scope.iter_mut().for_each(|s| clean(&mut s.attributes));
                    scope.metrics.retain_mut(|metric| admit_metric(metric, window, &mut refused, &mut clean));
                }
            }
        }
    }
    refused.attributes = attributes;
    refused
}

/// Keeps the points that can be kept; whether any are left.
fn admit_metric(
    metric: &mut Metric,
    window: &Window,
    refused: &mut Refusals,
    clean: &mut impl FnMut(&mut Vec<KeyValue>),
) -> bool {
    let before = points(metric);
    let left = match &mut metric.data {
        Some(Data::Gauge(data)) => {
            data.data_points
                .retain_mut(|p| keep_point(&mut p.attributes, &mut p.time_unix_nano, window, clean));
            data.data_points.len()
        }
        Some(Data::Sum(data)) => {
            data.data_points
                .retain_mut(|p| keep_point(&mut p.attributes, &mut p.time_unix_nano, window, clean));
            data.data_points.len()
        }
        Some(Data::Histogram(data)) => {
            data.data_points
                .retain_mut(|p| keep_point(&mut p.attributes, &mut p.time_unix_nano, window, clean));
            data.data_points.len()
        }
        Some(Data::Summary(data)) => {
            data.data_points
                .retain_mut(|p| keep_point(&mut p.attributes, &mut p.time_unix_nano, window, clean));
            data.data_points.len()
        }
        Some(Data::ExponentialHistogram(_)) | None => {
            refused.unsupported += before as u64;
            return false;
        }
    };
    refused.by_time += (before - left) as u64;
    left > 0
}

fn keep_point(
    attributes: &mut Vec<KeyValue>,
    time: &mut u64,
    window: &Window,
    clean: &mut impl FnMut(&mut Vec<KeyValue>),
) -> bool {
    clean(attributes);
    window.fix(time, 0)
}
