//! API keys: the state of a key, as a row of `api_keys`. The state is a join over the events about the key, by the rule of the bucket
//! `ACCESS`.

use shared::access::{Act, KeyState, SettingsInForce};
use shared::event::{Event, KeySettings};

use super::pg_value::{pg_text, pg_timestamp};

/// The facts of an event about a key, in the range of a row's columns; none for other events.
pub(super) fn from_event(event: &Event) -> Option<KeyState> {
    let state = KeyState::from_event(event)?;
    let act = |act: Act| Act { at: pg_timestamp(act.at), by: pg_text(&act.by) };
    Some(KeyState {
        issued: state.issued.map(act),
        revoked: state.revoked.map(act),
        settings: state.settings.map(|now| SettingsInForce {
            change_id: now.change_id,
            changed: act(now.changed),
            settings: KeySettings {
                name: pg_text(&now.settings.name),
                models: now.settings.models.iter().map(|model| pg_text(model)).collect(),
                operations: now.settings.operations,
                expires_at: now.settings.expires_at.map(pg_timestamp),
                recording: now.settings.recording,
            },
        }),
        ..state
    })
}
