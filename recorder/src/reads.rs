//! Reading the tables for people: one file for each thing that is read. Every query is served by an index, reads a bounded
//! number of rows, and says whose rows it wants.
//!
//! Where a filter may pass many rows over, a page looks through a window of so many and says where it stopped: a list then
//! has a next page although this one is not full.

pub mod chats;
pub mod conversations;
pub mod live;
pub mod messages;
mod page;
pub mod usage;

pub use page::Page;
