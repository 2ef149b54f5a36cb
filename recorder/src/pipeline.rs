//! The workers of `recorder consume`: the pipeline from the broker into the tables, the watchdog of the consumer, and
//! the reaper of orphaned chats.

pub mod awaited_bodies;
pub mod batch_writer;
pub mod consumer_watchdog;

pub mod consume;
pub mod orphans;
