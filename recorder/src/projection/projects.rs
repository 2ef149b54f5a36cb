//! Projects: the state of a project, as a row of `projects`. Of the states of a project, the state with the greatest change id is in force,
//! by the rule of the bucket `ACCESS`.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use shared::access::{Act, ProjectState};
use shared::event::{Event, ProjectSettings};
use shared::id::ProjectId;

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

/// Joins the states of projects into the rows.
pub(super) fn join(rows: &mut BTreeMap<ProjectId, ProjectState>, states: impl IntoIterator<Item = ProjectState>) {
    for state in states {
        match rows.entry(state.project_id) {
            Entry::Vacant(entry) => drop(entry.insert(state)),
            Entry::Occupied(mut entry) => entry.get_mut().join(state),
        }
    }
}
