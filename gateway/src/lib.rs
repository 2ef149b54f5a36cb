//! The gateway: proxies LLM chat streams, and puts every one of them on the record. It has no database.
//!
//! Modules in the order of the layers, the lowest first. Pure ones (no runtime, no network, no clock), then the edge, then the
//! surface. ARCHITECTURE.md has the table.

pub mod headers;
pub mod json;
pub mod limits;
pub mod metrics;

pub mod request;
pub mod routing;

pub mod response;

pub mod auth;
pub mod broker;
pub mod idempotency;

pub mod journal;

pub mod relay;
pub mod upstream;

pub mod error;

pub mod chat;
pub mod recorder_api;

pub mod config;
pub mod server;

mod app;

pub use app::{check, run};
