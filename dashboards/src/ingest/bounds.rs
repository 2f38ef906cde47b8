//! How far a request may unfold: attributes of a resource are copied into each of its rows, so few bytes on the wire
//! can become gigabytes in memory.
//!
//! Pure. Counted before anything is allocated for the request.

use std::collections::HashSet;

use prost::Message as _;
use tollgate_proto::opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
use tollgate_proto::opentelemetry_proto::tonic::metrics::v1::{Metric, metric::Data};
use tollgate_proto::opentelemetry_proto::tonic::resource::v1::Resource;

use super::OtlpRequest;

/// Records of one request.
pub(super) const MAX_RECORDS: usize = 65_536;
/// Cells of the block that a request becomes, the empty ones too.
pub(super) const MAX_CELLS: usize = 4 << 20;
/// Bytes of attributes once those of the resource stand in each of its rows.
pub(super) const MAX_UNFOLDED_BYTES: usize = 256 << 20;
/// Attributes of one record, resource, scope, event or link.
pub(super) const MAX_ATTRIBUTES: usize = 512;
/// Bytes of one attribute's value.
pub(super) const MAX_VALUE_BYTES: usize = 16 * 1024;
/// Attribute names that become columns; see `store::build`.
const MAX_NAMES: usize = crate::store::MAX_COLUMNS;

#[derive(Default)]
struct Size<'a> {
    records: usize,
    cells: usize,
    bytes: usize,
    names: HashSet<&'a str>,
}

impl<'a> Size<'a> {
    /// What a list adds to each row it stands in: its cells and bytes.
    fn list(&mut self, attributes: &'a [KeyValue]) -> (usize, usize) {
        let kept = &attributes[..attributes.len().min(MAX_ATTRIBUTES)];
        for pair in kept {
            if self.names.len() < MAX_NAMES {
                self.names.insert(&pair.key);
            }
        }
        let value = |v: &AnyValue| v.encoded_len().min(MAX_VALUE_BYTES);
        let bytes = kept.iter().map(|p| p.key.len() + p.value.as_ref().map_or(0, value)).sum();
        (kept.len(), bytes)
    }

    fn resource(&mut self, resource: Option<&'a Resource>) -> (usize, usize) {
        resource.map_or((0, 0), |resource| self.list(&resource.attributes))
    }

    fn record(&mut self, about: (usize, usize), attributes: &'a [KeyValue]) {
        let (cells, bytes) = self.list(attributes);
        self.records += 1;
        self.cells += about.0 + cells;
        self.bytes = self.bytes.saturating_add(about.1 + bytes);
    }

    fn metric(&mut self, about: (usize, usize), metric: &'a Metric) {
        match &metric.data {
            Some(Data::Gauge(data)) => {
                data.data_points.iter().for_each(|p| self.record(about, &p.attributes))
            }
            Some(Data::Sum(data)) => data.data_points.iter().for_each(|p| self.record(about, &p.attributes)),
            Some(Data::Histogram(data)) => {
                data.data_points.iter().for_each(|p| self.record(about, &p.attributes));
            }
            Some(Data::Summary(data)) => {
                data.data_points.iter().for_each(|p| self.record(about, &p.attributes));
            }
            // Never stored.
            Some(Data::ExponentialHistogram(_)) | None => {}
        }
    }
}

/// Whether the request may be unfolded, else the cap it breaks.
pub(super) fn check(request: &OtlpRequest) -> Result<(), &'static str> {
    if super::admit::count(request) > MAX_RECORDS as u64 {
        return Err("more than 65536 records");
    }
    let mut size = Size::default();
    match request {
        OtlpRequest::Logs(request) => {
            for resource in &request.resource_logs {
                let about = size.resource(resource.resource.as_ref());
                for record in resource.scope_logs.iter().flat_map(|scope| &scope.log_records) {
                    size.record(about, &record.attributes);
                }
            }
        }
        OtlpRequest::Traces(request) => {
            for resource in &request.resource_spans {
                let about = size.resource(resource.resource.as_ref());
                for span in resource.scope_spans.iter().flat_map(|scope| &scope.spans) {
                    size.record(about, &span.attributes);
                }
            }
        }
        OtlpRequest::Metrics(request) => {
            for resource in &request.resource_metrics {
                let about = size.resource(resource.resource.as_ref());
                for metric in resource.scope_metrics.iter().flat_map(|scope| &scope.metrics) {
                    size.metric(about, metric);
                }
            }
        }
    }
    // A column has a cell in every row once any row has a value in it.
    if size.cells.max(size.records * size.names.len()) > MAX_CELLS {
        return Err("more than 4194304 records times attributes");
    }
    if size.bytes > MAX_UNFOLDED_BYTES {
        return Err("more than 256 MiB of attributes once the resource's stand in each record");
    }
    Ok(())
}

/// Cuts a list and its values to what is kept; how many attributes were dropped.
pub(super) fn cut(attributes: &mut Vec<KeyValue>) -> u64 {
    let dropped = attributes.len().saturating_sub(MAX_ATTRIBUTES);
    attributes.truncate(MAX_ATTRIBUTES);
    for value in attributes.iter_mut().filter_map(|pair| pair.value.as_mut()) {
        if value.encoded_len() > MAX_VALUE_BYTES {
            let mut left = MAX_VALUE_BYTES;
            cut_value(value, &mut left);
        }
    }
    dropped as u64
}

fn cut_value(value: &mut AnyValue, left: &mut usize) {
    match &mut value.value {
        Some(Value::StringValue(text)) => {
            text.truncate(text.floor_char_boundary(*left));
            *left -= text.len();
        }
        Some(Value::BytesValue(bytes)) => {
            bytes.truncate(*left);
            *left -= bytes.len();
        }
        Some(Value::ArrayValue(list)) => list.values.retain_mut(|inner| {
            let keep = *left > 0;
            *left = left.saturating_sub(8);
            cut_value(inner, left);
            keep
        }),
        Some(Value::KvlistValue(map)) => map.values.retain_mut(|pair| {
            let keep = *left > pair.key.len();
            *left = left.saturating_sub(pair.key.len() + 8);
            pair.value.iter_mut().for_each(|inner| cut_value(inner, left));
            keep
        }),
        _ => {}
    }
}
