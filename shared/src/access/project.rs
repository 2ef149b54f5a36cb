//! The state of a project, and the join of states.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::act::Act;
use crate::event::{Event, ProjectSettings};
use crate::id::ProjectId;

/// The state of a project. The state with the greater change id is in force, as a whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProjectState {
    /// The project.
    pub project_id: ProjectId,
    /// The change that the settings come from.
    pub change_id: Uuid,
    /// The change's time and author.
    pub changed: Act,
    /// The settings.
    pub settings: ProjectSettings,
}

impl ProjectState {
    /// The settings that an event gives a project; none for other events.
    pub fn from_event(event: &Event) -> Option<Self> {
        let Event::ProjectChanged(event) = event else { return None };
        Some(Self {
            project_id: event.project_id,
            change_id: event.change_id.0,
            changed: Act { at: event.changed_at, by: event.changed_by.to_string() },
            settings: event.settings.clone(),
        })
    }

    /// Joins another state of the same project. The result is the same in any order and for any repetition.
    pub fn join(&mut self, other: Self) {
        fn rank(state: &ProjectState) -> (Uuid, &Act, &ProjectSettings) {
            (state.change_id, &state.changed, &state.settings)
        }
        if rank(&other) > rank(self) {
            *self = other;
        }
    }
}

/// Returns the name of a project's entry.
pub fn project_name(project: ProjectId) -> String {
    format!("project.{project}")
}
