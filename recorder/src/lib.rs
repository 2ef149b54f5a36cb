//! The recorder: reads the gateways' events from NATS JetStream and projects the events into PostgreSQL.
//!
//! The modules stand in dependency order: a module uses only modules listed above its own line.

pub mod calendar;
pub mod cursor;
pub mod metrics;
pub mod name_key;

pub mod policy;
pub mod projection;

pub mod store;

pub mod source;

pub mod reads;

pub mod access;
pub mod accounts;
pub mod doctor;
pub mod pipeline;
pub mod rebuild;
pub mod replay;

pub mod config;
pub mod health;

pub mod api;

pub mod cli;
