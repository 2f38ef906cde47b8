//! What people write after `when:`.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

/// Something that must hold beside method, path and caller. Exactly one of `claim`, `header`, `source_cidr`, `time`,
/// `all`, `any` and `not` is given; a claim or a header comes with exactly one of `equals`, `in`, `prefix` and
/// `contains`.
///
/// What is absent (a claim, a header) makes a comparison false. A claim of the wrong type (a list where a text is
/// compared) and a source address that nobody knows make it an error, and an error stays one under `not`: a grant
/// whose condition errors grants nothing, a denial whose condition errors denies. `all` is false when one part is surely false, and `any`
/// true when one part is surely true, whatever the others are.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ConditionSpec {
    /// A claim of the token, by its name. A name that is no claim may be a path into nested objects:
    /// `realm_access.roles`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub claim: Option<String>,
    /// A request header.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub header: Option<String>,
    /// It is this text, number or truth value; for a header a text.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub equals: Option<Value>,
    /// It is one of these.
    #[serde(rename = "in", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<Object>>)]
    pub one_of: Option<Vec<Value>>,
    /// It is a text that starts so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// It is a list that has this; a lone value counts as a list of one, a header as a list with commas.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub contains: Option<Value>,
    /// The client's address lies in one of these networks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_cidr: Option<Vec<String>>,
    /// The time lies in this part of the week.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time: Option<TimeSpec>,
    /// Every one of these holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(no_recursion)]
    pub all: Option<Vec<Self>>,
    /// At least one of these holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(no_recursion)]
    pub any: Option<Vec<Self>>,
    /// This does not hold.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(no_recursion)]
    pub not: Option<Box<Self>>,
}

/// A part of the week. A window that ends before it begins goes on past midnight and belongs to the day on which it
/// began.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TimeSpec {
    /// `mon`, `tue`, `wed`, `thu`, `fri`, `sat`, `sun`; every day when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub days: Vec<String>,
    /// From this time of day on, as `HH:MM`.
    #[serde(default = "midnight")]
    pub from: String,
    /// Until just before this time of day, as `HH:MM`; `24:00` is the end of the day.
    #[serde(default = "end_of_day")]
    pub to: String,
    /// The IANA name of the time zone.
    #[serde(default = "utc")]
    pub zone: String,
}

fn midnight() -> String {
    "00:00".to_owned()
}

fn end_of_day() -> String {
    "24:00".to_owned()
}

fn utc() -> String {
    "UTC".to_owned()
}
