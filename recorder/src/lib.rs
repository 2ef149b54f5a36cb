//! The recorder: reads the events from the broker and projects them into PostgreSQL.
//!
//! The modules stand in the order in which an event passes through them.

pub mod projection;
