//! Following a Service, against a server that answers as a cluster's API does, over TLS.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop there, helpers included")]

mod following;
mod reaching;
mod watcher;
