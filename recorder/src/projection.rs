//! The projection from events to rows: pure functions without a clock, randomness or outside state.
//!
//! [`project`] reads a batch of events into [`Changes`]. [`merge`] joins the changes with the existing rows and returns
//! the rows to write. Both steps are joins in a semilattice: any order, any batching and any repetition of the same
//! events produce the same rows. Therefore the broker may redeliver and reorder, and any number of recorders can share
//! the work.
//!
//! No value sent by a provider or a client can prevent a batch from being written: [`pg_value`] converts every outside
//! value to the range of values that PostgreSQL can hold.

pub mod admin_rows;
mod api_keys;
pub mod audit_log;
mod changes;
pub mod chat;
mod chat_change;
pub mod chat_cost;
pub mod conversation;
pub mod key_slots;
mod limits;
pub mod message;
pub mod operation_slots;
pub mod price_lists;
pub mod pricing;
mod projects;
pub mod repricings;
pub mod restoration;
pub mod usage_slots;
pub mod usage_stats;

pub mod merge;
pub mod tables;

mod digest;
pub mod pg_value;
pub mod row;
pub mod sql_enum;

pub use changes::{Changes, RecordedRows, is_recorded_in, project};
pub use chat_change::ChatChange;
