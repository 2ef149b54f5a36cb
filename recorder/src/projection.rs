//! From events to rows: pure, without a clock, randomness or any state from outside.
//!
//! `project` reads a batch of events into [`Changes`]; [`merge`] joins them with the rows that are there and says what to
//! write. Both are joins in a semilattice: any order, any batching and any repetition of the same events end in the same
//! rows, which is what lets the broker deliver as it likes, and any number of recorders share the work.
//!
//! Nothing that a provider or a client sends may keep a batch from being written: [`pg_value`] brings every value into
//! the range of what PostgreSQL can hold.

mod changes;
pub mod chat;
mod chat_change;
pub mod conversation;
pub mod message;
pub mod usage_slots;
pub mod usage_stats;

pub mod merge;
pub mod tables;

mod digest;
pub mod pg_value;
pub mod sql_enum;

pub use changes::{Changes, is_recorded_in, project};
pub use chat_change::ChatChange;
