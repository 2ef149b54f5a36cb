//! Projects: the state of a project, as a row of `projects`. Of the states of a project, the state with the greatest change id is in force,
//! by the rule of the bucket `ACCESS`.

use shared::access::{Act, ProjectState};
use shared::event::{Event, ProjectSettings};

use super::pg_value::{pg_text, pg_timestamp};

/// The settings that an event gives a project, in the range of a row's columns; none for other events.
pub(super) fn from_event(event: &Event) -> Option<ProjectState> {
    let state = ProjectState::from_event(event)?;
    Some(ProjectState {
        changed: Act { at: pg_timestamp(state.changed.at), by: pg_text(&state.changed.by) },
        settings: ProjectSettings { name: pg_text(&state.settings.name), ..state.settings },
        ..state
    })
}
