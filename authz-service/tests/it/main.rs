//! The service from outside: real servers on free ports, real clients, real databases.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "tests end on surprises and say what they skip"
)]

mod admin;
mod admin_api;
mod admin_tls;
mod authzen;
mod ca;
mod check;
mod connections;
mod crash;
mod database_tls;
mod enforcers;
mod enrolment;
mod envoy;
mod files;
mod flood;
mod forward_auth;
mod fuzz_seeds;
mod history;
mod issuers;
mod key_source;
mod keys;
mod kubernetes;
mod load;
mod namespaces;
mod real_envoy;
mod reflection;
mod remembered;
mod replicas;
mod rights;
mod rollouts;
mod running;
mod store;
mod tokens;
mod wycheproof;
