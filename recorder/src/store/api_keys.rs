//! Statements for the `api_keys` table. Keys change seldom, so each row has its own statements.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use shared::access::{Act, KeyState, SettingsInForce};
use shared::event::{KeySettings, RecordingMode};
use shared::id::{KeyId, ProjectId};
use sqlx::{PgConnection, PgPool};
use time::OffsetDateTime;
use uuid::Uuid;

use super::read::{UnreadableColumn, sql_enum, user_id, utc};
use super::stored_row::StoredRow;

/// A query for whole rows; `$tail` follows the table's name.
macro_rules! rows_where {
    ($tail:tt $(, $argument:expr)*) => {
        sqlx::query_as!(
            KeyRow,
            "SELECT key_id, user_id, project_id, issued_at, issued_by, change_id, changed_at, changed_by, name,
                    models, operations, expires_at, recording, revoked_at, revoked_by
             FROM api_keys " + $tail
            $(, $argument)*
        )
    };
}

/// A key, and the quarter of an hour of its last recorded call.
#[derive(Clone, Debug)]
pub struct UsedKey {
    /// The state of the key.
    pub state: KeyState,
    /// The beginning of the quarter of an hour; none for a key that was never used.
    pub last_used_at: Option<OffsetDateTime>,
}

impl StoredRow for KeyState {
    async fn insert(&self, tx: &mut PgConnection) -> Result<bool, sqlx::Error> {
        let columns = Columns::of(self);
        let inserted = sqlx::query!(
            "INSERT INTO api_keys (key_id, user_id, project_id, issued_at, issued_by, change_id, changed_at, changed_by,
                 name, models, operations, expires_at, revoked_at, revoked_by, recording)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15) ON CONFLICT (key_id) DO NOTHING",
            self.key_id.0,
            self.user_id.as_str(),
            self.project_id.map(|id| id.0),
            columns.issued_at,
            columns.issued_by,
            columns.change_id,
            columns.changed_at,
            columns.changed_by,
            columns.name,
            columns.models,
            columns.operations,
            columns.expires_at,
            columns.revoked_at,
            columns.revoked_by,
            columns.recording
        );
        Ok(inserted.execute(tx).await?.rows_affected() == 1)
    }

    async fn lock(tx: &mut PgConnection, key: &KeyId) -> Result<Self, sqlx::Error> {
        Ok(rows_where!("WHERE key_id = $1 FOR UPDATE", key.0).fetch_one(tx).await?.read()?)
    }

    async fn update(&self, tx: &mut PgConnection) -> Result<(), sqlx::Error> {
        let columns = Columns::of(self);
        sqlx::query!(
            "UPDATE api_keys SET user_id = $2, project_id = $3, issued_at = $4, issued_by = $5, change_id = $6,
                 changed_at = $7, changed_by = $8, name = $9, models = $10, operations = $11, expires_at = $12,
                 revoked_at = $13, revoked_by = $14, recording = $15
             WHERE key_id = $1",
            self.key_id.0,
            self.user_id.as_str(),
            self.project_id.map(|id| id.0),
            columns.issued_at,
            columns.issued_by,
            columns.change_id,
            columns.changed_at,
            columns.changed_by,
            columns.name,
            columns.models,
            columns.operations,
            columns.expires_at,
            columns.revoked_at,
            columns.revoked_by,
            columns.recording
        )
        .execute(tx)
        .await?;
        Ok(())
    }
}

/// Reads rows by key. Missing rows are left out.
pub async fn by_ids(connection: &mut PgConnection, ids: &[Uuid]) -> Result<BTreeMap<KeyId, KeyState>, sqlx::Error> {
    let rows = rows_where!("WHERE key_id = ANY($1)", ids).fetch_all(connection).await?;
    rows.into_iter().map(|row| Ok((KeyId(row.key_id), row.read()?))).collect()
}

/// Reads up to `limit` keys after the key `after`, in the order of keys.
pub async fn page(pool: &PgPool, after: Uuid, limit: i64) -> Result<Vec<KeyState>, sqlx::Error> {
    let rows = rows_where!("WHERE key_id > $1 ORDER BY key_id LIMIT $2", after, limit).fetch_all(pool).await?;
    rows.into_iter().map(|row| Ok(row.read()?)).collect()
}

/// Reads up to `limit` keys of a user, the newest first, older than the key `before`.
pub async fn of_user(pool: &PgPool, user: &str, before: Uuid, limit: i64) -> Result<Vec<UsedKey>, sqlx::Error> {
    let rows = rows_where!("WHERE user_id = $1 AND key_id < $2 ORDER BY key_id DESC LIMIT $3", user, before, limit);
    with_last_use(pool, rows.fetch_all(pool).await?).await
}

/// Reads up to `limit` keys of all users, the newest first, older than the key `before`.
pub async fn of_all(pool: &PgPool, before: Uuid, limit: i64) -> Result<Vec<UsedKey>, sqlx::Error> {
    let rows = rows_where!("WHERE key_id < $1 ORDER BY key_id DESC LIMIT $2", before, limit);
    with_last_use(pool, rows.fetch_all(pool).await?).await
}

/// Reads up to `limit` keys of a project, the newest first, older than the key `before`.
pub async fn of_project(pool: &PgPool, project: Uuid, before: Uuid, limit: i64) -> Result<Vec<UsedKey>, sqlx::Error> {
    let rows =
        rows_where!("WHERE project_id = $1 AND key_id < $2 ORDER BY key_id DESC LIMIT $3", project, before, limit);
    with_last_use(pool, rows.fetch_all(pool).await?).await
}

async fn with_last_use(pool: &PgPool, rows: Vec<KeyRow>) -> Result<Vec<UsedKey>, sqlx::Error> {
    let mut keys = Vec::with_capacity(rows.len());
    for row in rows {
        let last_used_at = last_used_at(pool, row.key_id).await?;
        keys.push(UsedKey { state: row.read()?, last_used_at });
    }
    Ok(keys)
}

/// The beginning of the quarter of an hour of a key's last recorded call.
pub async fn last_used_at(pool: &PgPool, key_id: Uuid) -> Result<Option<OffsetDateTime>, sqlx::Error> {
    let last = sqlx::query_scalar!("SELECT max(slot_at) FROM key_slots WHERE key_id = $1", key_id);
    Ok(last.fetch_one(pool).await?.map(utc))
}

/// The number of a user's keys that are not revoked, counted up to `most`.
pub async fn count_in_force(pool: &PgPool, user: &str, most: i64) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar!(
        r#"SELECT count(*) AS "count!" FROM (
               SELECT FROM api_keys WHERE user_id = $1 AND revoked_at IS NULL LIMIT $2) keys"#,
        user,
        most
    )
    .fetch_one(pool)
    .await
}

/// Reads all rows of the table.
pub(super) async fn read_all(connection: &mut PgConnection) -> Result<BTreeMap<KeyId, KeyState>, sqlx::Error> {
    let rows = rows_where!("").fetch_all(connection).await?;
    rows.into_iter().map(|row| Ok((KeyId(row.key_id), row.read()?))).collect()
}

/// The values of the columns that can be null.
struct Columns<'a> {
    issued_at: Option<OffsetDateTime>,
    issued_by: Option<&'a str>,
    change_id: Option<Uuid>,
    changed_at: Option<OffsetDateTime>,
    changed_by: Option<&'a str>,
    name: Option<&'a str>,
    models: Option<serde_json::Value>,
    operations: Option<serde_json::Value>,
    expires_at: Option<OffsetDateTime>,
    revoked_at: Option<OffsetDateTime>,
    revoked_by: Option<&'a str>,
    recording: Option<&'a str>,
}

impl<'a> Columns<'a> {
    fn of(state: &'a KeyState) -> Self {
        let (issued, revoked, now) = (state.issued.as_ref(), state.revoked.as_ref(), state.settings.as_ref());
        let json = |list: Result<serde_json::Value, serde_json::Error>| list.unwrap_or_default();
        Self {
            issued_at: issued.map(|act| act.at),
            issued_by: issued.map(|act| act.by.as_str()),
            change_id: now.map(|now| now.change_id),
            changed_at: now.map(|now| now.changed.at),
            changed_by: now.map(|now| now.changed.by.as_str()),
            name: now.map(|now| now.settings.name.as_str()),
            models: now.map(|now| json(serde_json::to_value(&now.settings.models))),
            operations: now.map(|now| json(serde_json::to_value(&now.settings.operations))),
            expires_at: now.and_then(|now| now.settings.expires_at),
            revoked_at: revoked.map(|act| act.at),
            revoked_by: revoked.map(|act| act.by.as_str()),
            // Null for everything, as in rows of recorders that knew no modes.
            recording: now.map(|now| &now.settings.recording).filter(|mode| !mode.is_full()).map(RecordingMode::as_str),
        }
    }
}

struct KeyRow {
    key_id: Uuid,
    user_id: String,
    project_id: Option<Uuid>,
    issued_at: Option<OffsetDateTime>,
    issued_by: Option<String>,
    change_id: Option<Uuid>,
    changed_at: Option<OffsetDateTime>,
    changed_by: Option<String>,
    name: Option<String>,
    models: Option<serde_json::Value>,
    operations: Option<serde_json::Value>,
    expires_at: Option<OffsetDateTime>,
    revoked_at: Option<OffsetDateTime>,
    revoked_by: Option<String>,
    recording: Option<String>,
}

impl KeyRow {
    fn read(self) -> Result<KeyState, UnreadableColumn> {
        let act = |at: Option<OffsetDateTime>, by: Option<String>| Some(Act { at: utc(at?), by: by? });
        let settings = match (self.change_id, act(self.changed_at, self.changed_by), self.name) {
            (Some(change_id), Some(changed), Some(name)) => Some(SettingsInForce {
                change_id,
                changed,
                settings: KeySettings {
                    name,
                    models: list(self.models),
                    operations: list(self.operations),
                    expires_at: self.expires_at.map(utc),
                    recording: match self.recording.as_deref() {
                        None => RecordingMode::Full,
                        word => sql_enum("recording", word)?,
                    },
                },
            }),
            _ => None,
        };
        Ok(KeyState {
            key_id: KeyId(self.key_id),
            user_id: user_id(self.user_id)?,
            project_id: self.project_id.map(ProjectId),
            issued: act(self.issued_at, self.issued_by),
            settings,
            revoked: act(self.revoked_at, self.revoked_by),
        })
    }
}

fn list<T: DeserializeOwned>(column: Option<serde_json::Value>) -> Vec<T> {
    column.and_then(|list| serde_json::from_value(list).ok()).unwrap_or_default()
}
