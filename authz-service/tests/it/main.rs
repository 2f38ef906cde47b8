//! The service from outside: real servers on free ports, real clients, real databases.

mod admin;
mod check;
mod keys;
mod running;
mod signer;
mod store;
mod tokens;
mod wycheproof;
