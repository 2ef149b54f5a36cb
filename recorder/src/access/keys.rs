//! Issuing, changing and revoking API keys: each is an event first, and then the key's entry in the bucket.
//!
//! A crash between the two heals: a recorder that projects the event writes the entry as well.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use shared::access::KeyState;
use shared::event::{Event, KeyChanged, KeyIssued, KeyRevoked, KeySettings, RecordingMode};
use shared::id::{ChangeId, KeyId, ProjectId, UserId};
use shared::model_pattern::ModelPattern;
use sqlx::postgres::PgPool;
use time::OffsetDateTime;
use uuid::Uuid;

use super::bucket::AccessBucket;
use super::change::{ChangeError, States};
use crate::projection::row::Rows;
use crate::store::api_keys;

/// The maximum number of keys of a user that are not revoked.
pub const MAX_KEYS_PER_USER: i64 = 100;
/// The maximum number of patterns of models of a key, and of operations.
const MAX_RULES: usize = 32;
/// The maximum length of a key's name, in characters.
const MAX_NAME_CHARACTERS: usize = 100;

/// The number of users with unrecorded keys from which on old entries are removed.
const MAX_UNRECORDED_USERS: usize = 1000;
/// The age from which a key that is still not in the table counts no more, in seconds.
const MAX_UNRECORDED_SECONDS: u64 = 24 * 3600;

/// Issues, changes and revokes keys.
#[derive(Debug)]
pub struct AccessKeys {
    states: States,
    /// The keys that this process issued and that the table may not have yet. They count, so that no user gets more keys while no
    /// recorder is running.
    unrecorded: Mutex<HashMap<UserId, Vec<KeyId>>>,
}

/// The reason for which a key was not issued, changed or revoked.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// A setting is invalid.
    #[error("{field}: {expected}")]
    Invalid {
        /// The name of the setting, as in the API.
        field: &'static str,
        /// The expected value.
        expected: &'static str,
    },
    /// The user has as many keys as a user may have.
    #[error("the user has {MAX_KEYS_PER_USER} keys, and may have no more: revoke one")]
    TooMany,
    /// The key has been revoked, so its settings do not change any more.
    #[error("the key has been revoked")]
    Revoked,
    /// The key could not be read or changed.
    #[error(transparent)]
    Change(#[from] ChangeError),
}

/// Returns the settings if they are within their bounds.
pub fn checked(settings: KeySettings, now: OffsetDateTime) -> Result<KeySettings, KeyError> {
    let invalid = |field, expected| Err(KeyError::Invalid { field, expected });
    let length = settings.name.chars().count();
    if !(1..=MAX_NAME_CHARACTERS).contains(&length) || settings.name.chars().any(char::is_control) {
        return invalid("name", "expected 1 to 100 characters, none of them control characters");
    }
    if settings.models.len() > MAX_RULES
        || settings
            .models
            .iter()
            .any(|model| ModelPattern::parse(model).is_err() || model.chars().any(char::is_control))
    {
        return invalid("models", "expected at most 32 model names or patterns of 1 to 256 bytes with at most 8 '*'");
    }
    if settings.operations.len() > MAX_RULES {
        return invalid("operations", "expected at most 32 kinds of calls");
    }
    if matches!(settings.recording, RecordingMode::Other(_)) {
        return invalid("recording", "expected full, metadata or none");
    }
    if settings.expires_at.is_some_and(|at| at <= now || at.year() > 9998) {
        return invalid("expiresAt", "expected a time in the future");
    }
    Ok(settings)
}

impl AccessKeys {
    /// Creates the keys over the table `api_keys` and the bucket.
    pub fn new(pool: PgPool, bucket: Arc<AccessBucket>) -> Self {
        Self { states: States { pool, bucket }, unrecorded: Mutex::default() }
    }

    /// Issues a key of the user, of a project if one is given. The caller has checked that the user is a member of the project. Returns after
    /// the event and the bucket are durable.
    pub async fn issue(
        &self,
        (owner, project_id): (&UserId, Option<ProjectId>),
        by: &str,
        settings: KeySettings,
    ) -> Result<KeyState, KeyError> {
        let now = shared::event::now();
        let settings = checked(settings, now)?;
        let key_id = KeyId::mint();
        self.take_place(owner, key_id).await?;
        let event = Event::KeyIssued(Box::new(KeyIssued {
            key_id,
            user_id: owner.clone(),
            project_id,
            issued_at: now,
            issued_by: by.to_owned(),
            settings,
            restored: None,
        }));
        self.record(&event, None).await
    }

    /// Counts a new key of the user, and fails if the user has the maximum number. A key whose issue fails counts until the table
    /// would have it, because the event may be stored all the same.
    async fn take_place(&self, owner: &UserId, key_id: KeyId) -> Result<(), KeyError> {
        let issued = self.unrecorded().get(owner).cloned().unwrap_or_default();
        let ids: Vec<Uuid> = issued.iter().map(|id| id.0).collect();
        let (recorded, in_force) = self.recorded(owner, &ids).await.map_err(ChangeError::from)?;
        let mut unrecorded = self.unrecorded();
        if unrecorded.len() >= MAX_UNRECORDED_USERS {
            unrecorded.retain(|_, keys| keys.iter().any(is_recent));
        }
        let keys = unrecorded.entry(owner.clone()).or_default();
        keys.retain(|id| !recorded.contains_key(id) && is_recent(id));
        if in_force.saturating_add(i64::try_from(keys.len()).unwrap_or(i64::MAX)) >= MAX_KEYS_PER_USER {
            return Err(KeyError::TooMany);
        }
        keys.push(key_id);
        Ok(())
    }

    /// The keys of `ids` that the table has, and the number of the user's keys in force.
    async fn recorded(&self, owner: &UserId, ids: &[Uuid]) -> Result<(Rows<KeyState>, i64), sqlx::Error> {
        let pool = &self.states.pool;
        let recorded = api_keys::by_ids(&mut *pool.acquire().await?, ids).await?;
        Ok((recorded, api_keys::count_in_force(pool, owner.as_str(), MAX_KEYS_PER_USER).await?))
    }

    fn unrecorded(&self) -> MutexGuard<'_, HashMap<UserId, Vec<KeyId>>> {
        self.unrecorded.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Replaces the settings of a key.
    pub async fn change(&self, key: &KeyState, by: &str, settings: KeySettings) -> Result<KeyState, KeyError> {
        let now = shared::event::now();
        if key.revoked.is_some() {
            return Err(KeyError::Revoked);
        }
        // A key that has expired keeps its expiry when only the name changes.
        let is_new_expiry = key.settings.as_ref().is_none_or(|old| old.settings.expires_at != settings.expires_at);
        let settings = checked(settings, if is_new_expiry { now } else { OffsetDateTime::UNIX_EPOCH })?;
        let event = Event::KeyChanged(Box::new(KeyChanged {
            change_id: ChangeId::after(key.settings.as_ref().map_or(key.key_id.0, |old| old.change_id)),
            key_id: key.key_id,
            user_id: key.user_id.clone(),
            changed_at: now,
            changed_by: by.to_owned(),
            settings,
            restored: None,
        }));
        self.record(&event, Some(key.clone())).await
    }

    /// Revokes a key for ever. A key that is revoked already stays as it is.
    pub async fn revoke(&self, key: &KeyState, by: &str) -> Result<KeyState, KeyError> {
        if key.revoked.is_some() {
            self.states.put(key.clone()).await?;
            return Ok(key.clone());
        }
        let event = Event::KeyRevoked(Box::new(KeyRevoked {
            key_id: key.key_id,
            user_id: key.user_id.clone(),
            revoked_at: shared::event::now(),
            revoked_by: by.to_owned(),
            restored: None,
        }));
        self.record(&event, Some(key.clone())).await
    }

    /// Finds a key, in the bucket and in the table.
    pub async fn find(&self, id: Uuid) -> Result<Option<KeyState>, KeyError> {
        Ok(self.states.find(&KeyId(id)).await?)
    }

    async fn record(&self, event: &Event, present: Option<KeyState>) -> Result<KeyState, KeyError> {
        let state = self.states.record(event, present).await?;
        tracing::info!(kind = event.kind().subject_token(), key = %state.key_id, user = %state.user_id, "an API key was issued, changed or revoked");
        Ok(state)
    }
}

/// Returns true for a key that was minted in the last day.
fn is_recent(id: &KeyId) -> bool {
    let minted = id.0.get_timestamp().map_or(0, |at| at.to_unix().0);
    u64::try_from(OffsetDateTime::now_utc().unix_timestamp()).unwrap_or(0) < minted + MAX_UNRECORDED_SECONDS
}
