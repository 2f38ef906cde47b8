//! Istio's own cases, and properties that hold for any text.

mod istio;
mod properties;
