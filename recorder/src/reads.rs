//! Queries for the API, with a file for each kind of object. Every query is served by an index, reads a bounded number
//! of rows, and names the owner of the rows. The exceptions are queries for admins, and lookups by id: there the API
//! checks the owner.
//!
//! A filter may pass over many rows. A page with a filter therefore examines a window of limited size, and reports
//! where the window ended: such a list has a next page although the current page is not full.

pub mod answers;
pub mod audit;
pub mod chats;
pub mod conversations;
mod deleted;
pub mod limits;
pub mod live;
pub mod messages;
mod page;
pub mod responses;
pub mod usage;

pub use deleted::Deleted;
pub use page::Page;
