//! Types and functions that the gateway and the recorder share.
//!
//! Three kinds of code belong here: formats on which both services must agree byte for byte (ids, events, the envelope on
//! the broker, session tokens), the prices with which both must compute the same costs, and process behaviour that must be
//! identical in both (configuration, refreshing an identity provider's keys, logging, shutdown). Code that only one service
//! needs belongs in that service's crate.

pub mod id;
pub mod nanodollars;
pub mod trace_context;
pub mod word;

pub mod event;
pub mod usage;

pub mod access;
pub mod api_key;
pub mod budget_ledger;
pub mod budget_window;
pub mod envelope;
pub mod large_body;
pub mod lease;
pub mod model_pattern;
pub mod stream;
pub mod stream_check;
pub mod subject;

#[cfg(feature = "schema")]
pub mod schema;

pub mod prices;

pub mod client_address;
pub mod credentials;
pub mod http_client;
pub mod http_server;
pub mod issuer;
pub mod nats;
pub mod token;

pub mod config;
pub mod core_dumps;
pub mod descriptors;
pub mod fair_share;
pub mod metrics;
pub mod shutdown;
pub mod telemetry;
pub mod traces;
