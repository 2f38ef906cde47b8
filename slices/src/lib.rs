//! The pods behind a Service of Kubernetes, followed by its EndpointSlices.
//!
//! A crate of its own, since a proxy outside Kubernetes has no use for a client of its API: `tollgate-proxy` depends on it with
//! its feature `kubernetes` alone. In reading order:
//!
//! * [`pods`]: slices in, pods out. Pure.
//! * [`api`]: where the API is, who we are to it; what is read of its answers, and how much.
//! * `follow`: list, watch, and again.
//!
//! `kube` brings the client, its certificates and tokens (read anew every minute), and the words of the protocol. Its own watcher is
//! not used: that reads lists and lines of any length.

pub mod api;
mod follow;
pub mod pods;

pub use api::Api;
pub use follow::{News, Service, follow};
pub use pods::{Family, Found, Pod, Port};
