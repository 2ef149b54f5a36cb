//! The workers of `recorder consume`: the pipeline from the broker into the tables, the watchdog of the consumer,
//! the reaper of orphaned chats, and the answers to gateways' questions about the stream.

pub mod awaited_bodies;
mod batch_spans;
pub mod batch_writer;
pub mod consumer_watchdog;

pub mod budget_settlement;
pub mod consume;
pub mod orphans;
pub mod settings_watch;
pub mod stream_check;
