//! What a service tells about its certificate: whose it is, who signed it, where it is from, when it ends, since when it is
//! in force.

use opentelemetry::KeyValue;
use opentelemetry::metrics::Meter;

use crate::identity::Identity;

/// Unix seconds at which a certificate ends.
pub const EXPIRY: &str = "tollgate.certificate.expiry";
/// Unix seconds since which it is in force.
pub const SINCE: &str = "tollgate.certificate.since";
/// Whose certificate.
pub const ID: &str = "tollgate.certificate.id";
/// The name of who signed it.
pub const ISSUER: &str = "tollgate.certificate.issuer";
/// Where the workload has it from.
pub const SOURCE: &str = "tollgate.certificate.source";

/// Observes `identity` for as long as the meter lives.
pub(crate) fn observe(identity: &Identity, meter: &Meter) {
    let about = |identity: &Identity| {
        let leaf = &identity.material().credential.leaf;
        let labels = [
            KeyValue::new(ID, leaf.id.to_string()),
            KeyValue::new(ISSUER, leaf.issuer.clone()),
            KeyValue::new(SOURCE, identity.source()),
        ];
        (leaf.not_after, labels)
    };
    let observed = identity.clone();
    meter
        .i64_observable_gauge(EXPIRY)
        .with_description("When the certificate of this workload ends, in Unix seconds")
        .with_unit("s")
        .with_callback(move |observer| {
            let (not_after, labels) = about(&observed);
            observer.observe(not_after, &labels);
        })
        .build();
    let observed = identity.clone();
    meter
        .i64_observable_gauge(SINCE)
        .with_description("Since when it is in force, in Unix seconds")
        .with_unit("s")
        .with_callback(move |observer| observer.observe(observed.since(), &about(&observed).1))
        .build();
}
