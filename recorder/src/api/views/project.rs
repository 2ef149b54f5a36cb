//! The JSON shape of projects.

use serde::Serialize;
use shared::access::ProjectState;
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

/// A project: a group of users whose keys are counted together.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Project {
    /// The id.
    id: Uuid,
    /// The name, for people.
    name: String,
    /// The ids of the members: users whose keys of the project are accepted.
    members: Vec<String>,
    /// True if all keys of the project are refused.
    disabled: bool,
    /// The time of the last change.
    #[serde(with = "time::serde::rfc3339")]
    changed_at: OffsetDateTime,
    /// The administrator who made the last change; `cli` for the command line.
    changed_by: String,
}

impl From<ProjectState> for Project {
    fn from(state: ProjectState) -> Self {
        Self {
            id: state.project_id.0,
            name: state.settings.name,
            members: state.settings.members.iter().map(ToString::to_string).collect(),
            disabled: state.settings.is_disabled,
            changed_at: state.changed.at,
            changed_by: state.changed.by,
        }
    }
}
