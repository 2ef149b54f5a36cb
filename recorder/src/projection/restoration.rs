//! Events made again from rows, for events that the log has lost: the projection, backwards.
//!
//! An event that is made again gives the rows from which it was made. Each function checks that, and returns no event for rows that no event
//! gives, such as rows that were changed by hand. Facts that a later event replaced are in no row, and so in no event.

mod chat;
mod conversation;
mod settings;

pub use chat::{ChatRows, chat_events};
pub use conversation::conversation_events;
pub use settings::{audit_event, key_events, limits_event, price_list_event, project_event, repricing_event};
