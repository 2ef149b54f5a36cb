//! Usage of calls with an API key, by quarter of an hour, model, key and project.
//!
//! `usage_slots` counts all calls. The usage without a key is the difference, so calls with session tokens cost no second row.

use shared::id::{KeyId, ProjectId};

use super::usage_slots::SlotKey;

/// The key of a row of `key_slots`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeySlotKey {
    /// The user, the quarter of an hour and the model.
    pub slot: SlotKey,
    /// The API key of the calls.
    pub key_id: KeyId,
    /// The project of the key; none for a key without a project.
    pub project_id: Option<ProjectId>,
}
