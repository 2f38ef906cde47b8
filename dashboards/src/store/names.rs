//! Names of the columns that we add to a record ourselves. They begin with `@`, which no attribute of ours does; an
//! attribute from outside that begins so gets a second `@`.

use std::borrow::Cow;

/// When it began, unix nanoseconds.
pub(crate) const TIME: &str = "@time";
/// Its number for good, in the order of arrival.
pub(crate) const SEQ: &str = "@seq";
/// The line or body.
pub(crate) const BODY: &str = "@body";
/// Severity as text.
pub(crate) const SEVERITY: &str = "@severity";
/// The event name of a log record.
pub(crate) const EVENT: &str = "@event";
/// The trace it belongs to.
pub(crate) const TRACE: &str = "@trace";
/// The span it belongs to, or is.
pub(crate) const SPAN: &str = "@span";
/// The span above.
pub(crate) const PARENT: &str = "@parent";
/// Name of a span or metric.
pub(crate) const NAME: &str = "@name";
/// Kind of a span or metric.
pub(crate) const KIND: &str = "@kind";
/// Nanoseconds from start to end of a span.
pub(crate) const LENGTH: &str = "@length";
/// Status of a span.
pub(crate) const STATUS: &str = "@status";
/// Events and links of a span, as JSON.
pub(crate) const EVENTS: &str = "@events";
/// Unit of a metric.
pub(crate) const UNIT: &str = "@unit";
/// Value of a metric point.
pub(crate) const VALUE: &str = "@value";
/// Measurements of a histogram point.
pub(crate) const COUNT: &str = "@count";
/// Sum of a histogram point.
pub(crate) const SUM: &str = "@sum";
/// Bounds and counts of a histogram point, as JSON.
pub(crate) const BUCKETS: &str = "@buckets";
/// What became of a request.
pub(crate) const OUTCOME: &str = "@outcome";
/// Who called.
pub(crate) const CALLER: &str = "@caller";
/// The service called.
pub(crate) const DEST: &str = "@dest";
/// Attributes that did not become columns, as a JSON object.
pub(crate) const ATTRS: &str = "@attrs";

/// Whether the name is one of ours.
pub(crate) fn is_ours(name: &str) -> bool {
    name.starts_with('@') && !name.starts_with("@@")
}

/// The column of an attribute from outside.
pub(crate) fn of_attribute(key: &str) -> Cow<'_, str> {
    if key.starts_with('@') { Cow::Owned(format!("@{key}")) } else { Cow::Borrowed(key) }
}

/// The attribute's name of a column, if it is one.
pub(crate) fn attribute_of(name: &str) -> Option<&str> {
    match name.strip_prefix('@') {
        None => Some(name),
        Some(rest) if rest.starts_with('@') => Some(rest),
        Some(_) => None,
    }
}
