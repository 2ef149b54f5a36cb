//! The recorder: reads the events from the broker and projects them into PostgreSQL.
//!
//! The modules stand in the order in which an event passes through them; then those that read what came of it.

pub mod projection;

pub mod batch;
pub mod disposition;
pub mod vigil;

pub mod store;

pub mod source;

pub mod replay;

pub mod metrics;

pub mod watchdog;

pub mod record;

pub mod consume;
pub mod orphans;

pub mod reproject;

pub mod rebuild;
pub mod verify;

pub mod calendar;
pub mod cursor;

pub mod accounts;
pub mod reads;

pub mod config;
pub mod http;

pub mod api;

pub mod cli;
