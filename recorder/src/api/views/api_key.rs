//! The JSON shape of API keys.

use serde::Serialize;
use shared::event::RecordingMode;
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::store::api_keys::UsedKey;

/// An API key, without its text.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Key {
    /// The id.
    id: Uuid,
    /// The owner: calls with the key are calls of this user.
    user_id: String,
    /// The project to which the use of the key counts.
    project_id: Option<Uuid>,
    /// The name.
    name: String,
    /// The models that the key may use; empty for all models.
    models: Vec<String>,
    /// The kinds of calls that the key may make; empty for all kinds.
    operations: Vec<String>,
    /// The most that the record keeps of calls with the key: full, metadata or none.
    recording: String,
    /// The time of issue.
    #[serde(with = "time::serde::rfc3339::option")]
    created_at: Option<OffsetDateTime>,
    /// The time from which the key is refused; null for never.
    #[serde(with = "time::serde::rfc3339::option")]
    expires_at: Option<OffsetDateTime>,
    /// The time since which the key is refused for ever.
    #[serde(with = "time::serde::rfc3339::option")]
    revoked_at: Option<OffsetDateTime>,
    /// The hour of the last recorded call; null for a key that was never used.
    #[serde(with = "time::serde::rfc3339::option")]
    last_used_at: Option<OffsetDateTime>,
}

impl From<UsedKey> for Key {
    fn from(key: UsedKey) -> Self {
        let UsedKey { state, last_used_at } = key;
        let hour = |at: OffsetDateTime| at.replace_minute(0).unwrap_or(at);
        let settings = state.settings.map(|now| now.settings);
        Self {
            id: state.key_id.0,
            user_id: state.user_id.as_str().to_owned(),
            project_id: state.project_id.map(|id| id.0),
            expires_at: settings.as_ref().and_then(|settings| settings.expires_at),
            operations: settings.iter().flat_map(|s| &s.operations).map(|word| word.as_str().to_owned()).collect(),
            recording: settings.as_ref().map_or(RecordingMode::Full, |s| s.recording).as_str().to_owned(),
            models: settings.iter().flat_map(|s| s.models.iter().cloned()).collect(),
            name: settings.map(|settings| settings.name).unwrap_or_default(),
            created_at: state.issued.map(|act| act.at),
            revoked_at: state.revoked.map(|act| act.at),
            last_used_at: last_used_at.map(hour),
        }
    }
}
