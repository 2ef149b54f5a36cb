//! The state of an API key, and the join of states.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::act::Act;
use crate::event::{Event, KeySettings};
use crate::id::{KeyId, ProjectId, UserId};

/// The state of an API key: the join of all events about the key. An event that is not known yet leaves its part empty.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyState {
    /// The key.
    pub key_id: KeyId,
    /// The owner.
    pub user_id: UserId,
    /// The project of the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project_id: Option<ProjectId>,
    /// The issue; none until the event `KeyIssued` is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issued: Option<Act>,
    /// The settings in force; none until the event `KeyIssued` or a `KeyChanged` is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settings: Option<SettingsInForce>,
    /// The revocation; none for a key that was not revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked: Option<Act>,
}

/// The settings of a key, and the change that they come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettingsInForce {
    /// The change, or the key itself for the settings at issue. The settings of the greater id are in force.
    pub change_id: Uuid,
    /// The change's time and author.
    pub changed: Act,
    /// The settings.
    pub settings: KeySettings,
}

impl KeyState {
    /// Returns the state that follows from one event; `None` for an event that is not about a key.
    pub fn from_event(event: &Event) -> Option<Self> {
        let bare = |key_id, user_id: &UserId| Self {
            key_id,
            user_id: user_id.clone(),
            project_id: None,
            issued: None,
            settings: None,
            revoked: None,
        };
        Some(match event {
            Event::KeyIssued(event) => {
                let issued = Act { at: event.issued_at, by: event.issued_by.clone() };
                let settings = SettingsInForce {
                    change_id: event.key_id.0,
                    changed: issued.clone(),
                    settings: event.settings.clone(),
                };
                Self {
                    project_id: event.project_id,
                    issued: Some(issued),
                    settings: Some(settings),
                    ..bare(event.key_id, &event.user_id)
                }
            }
            Event::KeyChanged(event) => {
                let settings = SettingsInForce {
                    change_id: event.change_id.0,
                    changed: Act { at: event.changed_at, by: event.changed_by.clone() },
                    settings: event.settings.clone(),
                };
                Self { settings: Some(settings), ..bare(event.key_id, &event.user_id) }
            }
            Event::KeyRevoked(event) => {
                let revoked = Act { at: event.revoked_at, by: event.revoked_by.clone() };
                Self { revoked: Some(revoked), ..bare(event.key_id, &event.user_id) }
            }
            _ => return None,
        })
    }

    /// Joins the facts of `other`, a state of the same key. The result is the same in any order and for any repetition.
    pub fn join(&mut self, other: Self) {
        self.user_id = self.user_id.clone().min(other.user_id);
        self.project_id = least(self.project_id, other.project_id);
        self.issued = least(self.issued.take(), other.issued);
        self.revoked = least(self.revoked.take(), other.revoked);
        let rank = |settings: &Option<SettingsInForce>| {
            settings.as_ref().map(|now| (now.change_id, now.changed.clone(), serde_json::to_string(&now.settings).ok()))
        };
        if self.settings.is_none() || (other.settings.is_some() && rank(&other.settings) > rank(&self.settings)) {
            self.settings = other.settings;
        }
    }
}

fn least<T: Ord>(mine: Option<T>, theirs: Option<T>) -> Option<T> {
    match (mine, theirs) {
        (Some(mine), Some(theirs)) => Some(mine.min(theirs)),
        (mine, theirs) => mine.or(theirs),
    }
}
