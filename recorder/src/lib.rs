//! The recorder: reads the events from the broker and projects them into PostgreSQL.
//!
//! The modules stand in the order in which they build on each other; a module names none below it.

pub mod calendar;
pub mod cursor;
pub mod metrics;

pub mod policy;
pub mod projection;

pub mod store;

pub mod source;

pub mod reads;

pub mod accounts;
pub mod pipeline;
pub mod rebuild;
pub mod replay;

pub mod config;
pub mod health;

pub mod api;

pub mod cli;
