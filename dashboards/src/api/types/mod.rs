//! What goes over `/api/v1`: one type for each JSON document, and nothing but types.
//!
//! The OpenAPI document is generated from these, and the page's TypeScript types from that document, so a
//! change here is a change of the page's compiler errors. Numbers that may pass 2^53 (nanoseconds) travel as strings.

mod certificates;
mod overview;
mod requests;
mod services;
mod session;
mod telemetry;

pub use certificates::{Certificates, WorkloadCertificate};
pub use overview::{
    Change, ChangeKind, Finding, FindingKind, Level, Overview, Proxies, ReasonCount, Retention, Series,
    ServiceRow, Spark, Status, TimeRange, Totals, Verdict,
};
pub use requests::{
    AttributeGroup, Facet, FacetRequest, FacetValue, Facets, HistogramRequest, KeyValue, LiveStatus, Order,
    OutcomeName, RequestDetail, RequestRecord, RequestRow, SearchPage, SearchRequest, Stage, Suggestion,
    Suggestions, TermCount,
};
pub use services::{
    DurationSeries, Peer, RouteRow, Security, ServiceDetail, ServiceVerdict, Services, StateLine, VersionRow,
    VersionSeries,
};
pub use session::{LoginRequest, Session, User};
pub use telemetry::{LogLine, LogPage, MetricPoint, MetricSeries, MetricSeriesList, Span, Trace};
