//! What the gateway and the recorder must agree on byte for byte: ids, events, their envelope on the broker,
//! session tokens. And what both do identically as processes: reading their configuration, following an identity provider's
//! keys, logging, stopping.
//!
//! Anything that only one of the two needs lives with that one.

pub mod id;

pub mod event;
pub mod usage;

pub mod envelope;
pub mod large_body;
pub mod lease;
pub mod stream;
pub mod subject;

#[cfg(feature = "schema")]
pub mod schema;

pub mod client_address;
pub mod credentials;
pub mod http_client;
pub mod issuer;
pub mod token;

pub mod config;
pub mod shutdown;
pub mod telemetry;
