//! The messages of `envoy.service.ratelimit.v3`, as far as they mean something to this service.
//!
//! Package, names and numbers are Envoy's; fields that are not declared are skipped when read. They
//! are declared here and not taken from `envoy-types` because that lacks `unit_multiplier`, and
//! because the dynamic metadata is written as bytes (see [`super::metadata`]).

/// `envoy.service.ratelimit.v3.RateLimitRequest`
#[derive(Clone, PartialEq, prost::Message)]
pub struct RateLimitRequest {
    #[prost(string, tag = "1")]
    pub domain: String,
    #[prost(message, repeated, tag = "2")]
    pub descriptors: Vec<Descriptor>,
    #[prost(uint32, tag = "3")]
    pub hits_addend: u32,
}

/// `envoy.extensions.common.ratelimit.v3.RateLimitDescriptor`
#[derive(Clone, PartialEq, prost::Message)]
pub struct Descriptor {
    #[prost(message, repeated, tag = "1")]
    pub entries: Vec<Entry>,
    #[prost(message, optional, tag = "2")]
    pub limit: Option<Override>,
    /// A `google.protobuf.UInt64Value`.
    #[prost(message, optional, tag = "3")]
    pub hits_addend: Option<u64>,
    #[prost(bool, tag = "4")]
    pub is_negative_hits: bool,
}

impl Descriptor {
    /// The entries as pairs.
    pub fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.entries.iter().map(|entry| (entry.key.as_str(), entry.value.as_str()))
    }
}

/// `RateLimitDescriptor.Entry`
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Entry {
    #[prost(string, tag = "1")]
    pub key: String,
    #[prost(string, tag = "2")]
    pub value: String,
}

/// `RateLimitDescriptor.RateLimitOverride`
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Override {
    #[prost(uint32, tag = "1")]
    pub requests_per_unit: u32,
    /// A `type.v3.RateLimitUnit`, whose numbers end at YEAR = 6: there is no week.
    #[prost(int32, tag = "2")]
    pub unit: i32,
    /// A `google.protobuf.UInt32Value`.
    #[prost(message, optional, tag = "3")]
    pub unit_multiplier: Option<u32>,
}

/// `envoy.service.ratelimit.v3.RateLimitResponse`
#[derive(Clone, PartialEq, prost::Message)]
pub struct RateLimitResponse {
    #[prost(enumeration = "Code", tag = "1")]
    pub overall_code: i32,
    #[prost(message, repeated, tag = "2")]
    pub statuses: Vec<DescriptorStatus>,
    #[prost(message, repeated, tag = "3")]
    pub response_headers_to_add: Vec<Header>,
    /// An encoded `google.protobuf.Struct`; nothing is sent while it is empty.
    #[prost(bytes = "vec", tag = "6")]
    pub dynamic_metadata: Vec<u8>,
}

/// `envoy.config.core.v3.HeaderValue`
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Header {
    #[prost(string, tag = "1")]
    pub key: String,
    #[prost(string, tag = "2")]
    pub value: String,
}

/// `RateLimitResponse.Code`. UNKNOWN lets requests pass unnoticed and is never sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum Code {
    Unknown = 0,
    Ok = 1,
    OverLimit = 2,
}

/// `RateLimitResponse.DescriptorStatus`
#[derive(Clone, PartialEq, prost::Message)]
pub struct DescriptorStatus {
    #[prost(enumeration = "Code", tag = "1")]
    pub code: i32,
    #[prost(message, optional, tag = "2")]
    pub current_limit: Option<CurrentLimit>,
    #[prost(uint32, tag = "3")]
    pub limit_remaining: u32,
    #[prost(message, optional, tag = "4")]
    pub duration_until_reset: Option<Seconds>,
}

/// `RateLimitResponse.RateLimit`
#[derive(Clone, PartialEq, prost::Message)]
pub struct CurrentLimit {
    #[prost(uint32, tag = "1")]
    pub requests_per_unit: u32,
    #[prost(enumeration = "Unit", tag = "2")]
    pub unit: i32,
    #[prost(string, tag = "3")]
    pub name: String,
    /// A `google.protobuf.UInt32Value`.
    #[prost(message, optional, tag = "4")]
    pub unit_multiplier: Option<u32>,
}

/// `RateLimitResponse.RateLimit.Unit`; mind where the week is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum Unit {
    Unknown = 0,
    Second = 1,
    Minute = 2,
    Hour = 3,
    Day = 4,
    Month = 5,
    Year = 6,
    Week = 7,
}

impl From<crate::window::Unit> for Unit {
    fn from(unit: crate::window::Unit) -> Self {
        use crate::window::Unit as Ours;
        match unit {
            Ours::Second => Self::Second,
            Ours::Minute => Self::Minute,
            Ours::Hour => Self::Hour,
            Ours::Day => Self::Day,
            Ours::Week => Self::Week,
            Ours::Month => Self::Month,
            Ours::Year => Self::Year,
        }
    }
}

/// A `google.protobuf.Duration` of whole seconds.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Seconds {
    #[prost(int64, tag = "1")]
    pub seconds: i64,
}
