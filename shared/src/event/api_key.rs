//! The events for issuing, changing and revoking an API key.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::event::operation::Operation;
use crate::event::recording_mode::RecordingMode;
use crate::event::restored::Restored;
use crate::id::{ChangeId, KeyId, ProjectId, UserId};

/// The settings of an API key: everything about a key that can change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct KeySettings {
    /// The name, for people.
    pub name: String,
    /// The models that the key may use: names, or patterns in which `*` stands for any text. Left out for all models.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub models: Vec<String>,
    /// The kinds of calls that the key may make. Left out for all kinds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub operations: Vec<Operation>,
    /// The time from which the key is refused. Left out for a key that never expires.
    #[serde(default, with = "time::serde::rfc3339::option", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<crate::schema::date_time::DateTime>"))]
    pub expires_at: Option<OffsetDateTime>,
    /// The most that events keep of calls with the key. Left out if everything may be kept.
    #[serde(default, skip_serializing_if = "RecordingMode::is_full")]
    pub recording: RecordingMode,
}

/// The issue of an API key. The key itself is in no event: a key proves itself by a signature.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct KeyIssued {
    /// The key.
    pub key_id: KeyId,
    /// The owner: calls with the key are calls of this user.
    pub user_id: UserId,
    /// The project to which the use of the key counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project_id: Option<ProjectId>,
    /// The time of issue.
    #[serde(with = "time::serde::rfc3339")]
    #[cfg_attr(feature = "schema", schemars(with = "crate::schema::date_time::DateTime"))]
    pub issued_at: OffsetDateTime,
    /// The user who had the key issued; `cli` for the command line.
    pub issued_by: String,
    /// The settings of the key.
    pub settings: KeySettings,
    /// The mark of an event that was made again from the tables. Left out for every other event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restored: Option<Restored>,
}

/// A change of an API key's settings. Of two changes, the change with the greater id applies, as a whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct KeyChanged {
    /// The id of the change.
    pub change_id: ChangeId,
    /// The key.
    pub key_id: KeyId,
    /// The owner of the key.
    pub user_id: UserId,
    /// The time of the change.
    #[serde(with = "time::serde::rfc3339")]
    #[cfg_attr(feature = "schema", schemars(with = "crate::schema::date_time::DateTime"))]
    pub changed_at: OffsetDateTime,
    /// The user who made the change; `cli` for the command line.
    pub changed_by: String,
    /// All settings of the key from now on.
    pub settings: KeySettings,
    /// The mark of an event that was made again from the tables. Left out for every other event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restored: Option<Restored>,
}

/// The end of an API key. A revoked key stays revoked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct KeyRevoked {
    /// The key.
    pub key_id: KeyId,
    /// The owner of the key.
    pub user_id: UserId,
    /// The time of the revocation.
    #[serde(with = "time::serde::rfc3339")]
    #[cfg_attr(feature = "schema", schemars(with = "crate::schema::date_time::DateTime"))]
    pub revoked_at: OffsetDateTime,
    /// The user who revoked the key; `cli` for the command line.
    pub revoked_by: String,
    /// The mark of an event that was made again from the tables. Left out for every other event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restored: Option<Restored>,
}
