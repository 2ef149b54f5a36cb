//! The gateway proxies LLM chat streams and records every chat as events in NATS JetStream. The gateway has no database.
//!
//! The modules are listed by layer, lowest first: pure modules (no runtime, no network, no clock), then the edge, then the
//! surface. A module imports only from its own layer and from lower layers. ARCHITECTURE.md has the table.

pub mod headers;
pub mod json;
pub mod limits;
pub mod metrics;
pub mod stall;

pub mod request;

pub mod recording_mode;
pub mod routing;

pub mod response;

pub mod spans;

pub mod access;
pub mod auth;
pub mod broker;
pub mod grants;
pub mod idempotency;

pub mod journal;

pub mod relay;
pub mod running;
pub mod upstream;

pub mod limit_headers;

pub mod error;
pub mod error_shapes;

pub mod chat;
pub mod recorder_api;

pub mod call;

pub mod config;
pub mod server;

mod app;

pub use app::{check, check_health, run};
