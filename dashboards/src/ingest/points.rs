//! Metric points as rows.

use tollgate_proto::opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use tollgate_proto::opentelemetry_proto::tonic::common::v1::KeyValue;
use tollgate_proto::opentelemetry_proto::tonic::metrics::v1::{
    Metric, NumberDataPoint, metric::Data, number_data_point,
};

use super::rows::{PartBuilder, add, nanos};
use crate::record::{Row, Value};
use crate::store::names;

pub(super) fn push_all(request: &ExportMetricsServiceRequest, out: &mut PartBuilder, seq: &mut i64) {
    for resource in &request.resource_metrics {
        let about = resource.resource.as_ref().map_or(&[][..], |r| &r.attributes);
        for metric in resource.scope_metrics.iter().flat_map(|scope| &scope.metrics) {
            push_metric(about, metric, out, seq);
        }
    }
}

fn push_metric(about: &[KeyValue], metric: &Metric, out: &mut PartBuilder, seq: &mut i64) {
    match &metric.data {
        Some(Data::Gauge(gauge)) => {
            for point in &gauge.data_points {
                out.push(
                    number(row(about, metric, "gauge", point.time_unix_nano, &point.attributes), point),
                    seq,
                );
            }
        }
        Some(Data::Sum(sum)) => {
            for point in &sum.data_points {
                out.push(
                    number(row(about, metric, "sum", point.time_unix_nano, &point.attributes), point),
                    seq,
                );
            }
        }
        Some(Data::Histogram(histogram)) => {
            for point in &histogram.data_points {
                let mut row = row(about, metric, "histogram", point.time_unix_nano, &point.attributes);
                row.set(names::COUNT, Value::Int(nanos(point.count)));
                if let Some(sum) = point.sum {
                    row.set(names::SUM, Value::Float(sum));
                }
                let buckets =
                    serde_json::json!({"bounds": point.explicit_bounds, "counts": point.bucket_counts});
                row.set(names::BUCKETS, Value::Json(buckets.to_string()));
                out.push(row, seq);
            }
        }
        Some(Data::Summary(summary)) => {
            for point in &summary.data_points {
                let mut row = row(about, metric, "summary", point.time_unix_nano, &point.attributes);
                row.set(names::COUNT, Value::Int(nanos(point.count)));
                row.set(names::SUM, Value::Float(point.sum));
                let quantiles: Vec<_> = point.quantile_values.iter().map(|q| [q.quantile, q.value]).collect();
                row.set(names::BUCKETS, Value::Json(serde_json::json!({"quantiles": quantiles}).to_string()));
                out.push(row, seq);
            }
        }
        // Refused at the door.
        Some(Data::ExponentialHistogram(_)) | None => {}
    }
}

fn row<'a>(
    about: &'a [KeyValue],
    metric: &'a Metric,
    kind: &'static str,
    time: u64,
    attributes: &'a [KeyValue],
) -> Row<'a> {
    let mut row = Row::at(nanos(time));
    add(&mut row, about);
    add(&mut row, attributes);
    row.set(names::NAME, Value::Text(metric.name.as_str().into()));
    row.set(names::UNIT, Value::Text(metric.unit.as_str().into()));
    row.set(names::KIND, Value::Text(kind.into()));
    row
}

fn number<'a>(mut row: Row<'a>, point: &NumberDataPoint) -> Row<'a> {
    match point.value {
        #[expect(clippy::cast_precision_loss, reason = "a metric's value is a measurement")]
        Some(number_data_point::Value::AsInt(value)) => row.set(names::VALUE, Value::Float(value as f64)),
        Some(number_data_point::Value::AsDouble(value)) => row.set(names::VALUE, Value::Float(value)),
        None => {}
    }
    row
}
