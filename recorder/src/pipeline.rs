//! The workers of `recorder consume`: the pipeline from the broker into the tables, and the two workers beside it, one that
//! checks the consumer and one that ends the chats of lost gateways.

pub mod batch_writer;
pub mod consumer_watchdog;

pub mod consume;
pub mod orphans;
