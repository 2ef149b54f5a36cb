//! Usage of calls that are no chats, by quarter of an hour, model and operation.
//!
//! `usage_slots` counts all calls. The usage of chats is the difference, so chats cost no second row.

use shared::event::Operation;

use super::usage_slots::SlotKey;

/// The key of a row of `operation_slots`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct OperationSlotKey {
    /// The user, the quarter of an hour and the model.
    pub slot: SlotKey,
    /// The kind of the calls; never [`Operation::Chat`].
    pub operation: Operation,
}
