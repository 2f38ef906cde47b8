//! Who a workload is, and proof of it on every connection.
//!
//! In reading order: a [`SpiffeId`] names a workload, [`certificate`] reads one out of an X.509 certificate,
//! [`bundle`] says whose signature counts for which trust domain, [`source`] brings our own certificate and the
//! bundles and keeps them current, and [`tls`] makes of them what a listener or a client needs. [`signing`] is what a
//! certificate authority does with its key.
//!
//! Nothing in here decides what an identity may do; that is policy. No private key leaves this process, and none
//! is ever printed.

pub mod bundle;
pub mod certificate;
pub mod config;
pub mod credential;
mod fresh_key;
mod identity;
pub mod metrics;
pub mod pem;
pub mod renewal;
mod revoked;
mod shown;
pub mod signing;
pub mod source;
pub mod spiffe_id;
pub mod tls;

pub use bundle::TrustBundles;
pub use certificate::{CertificateFault, Leaf};
pub use credential::Credential;
pub use fresh_key::{FreshKey, KeyFault};
pub use identity::{Identity, Material, provider, report_outside};
pub use revoked::Revocations;
pub use rustls::pki_types;
pub use shown::Shown;
pub use spiffe_id::{IdPattern, SpiffeId, TrustDomain};
