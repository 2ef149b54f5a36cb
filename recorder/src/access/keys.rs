//! Issuing, changing and revoking API keys: each is an event first, and then the key's entry in the bucket.
//!
//! A crash between the two heals: a recorder that projects the event writes the entry as well.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Context as _;
use shared::access::{Entry, KeyState};
use shared::event::{Event, KeyChanged, KeyIssued, KeyRevoked, KeySettings, RecordingMode};
use shared::id::{ChangeId, KeyId, ProjectId, UserId};
use shared::model_pattern::ModelPattern;
use sqlx::postgres::PgPool;
use time::OffsetDateTime;
use uuid::Uuid;

use super::bucket::{AccessBucket, BucketError};
use super::publication::publish;
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
    pool: PgPool,
    bucket: Arc<AccessBucket>,
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
    /// The broker did not acknowledge the event. If the event was stored all the same, recorders bring the bucket up to date.
    #[error("the broker did not acknowledge the change of the key: {0:#}")]
    Broker(anyhow::Error),
    /// The bucket could not be written. The event is on the record, and recorders bring the bucket up to date.
    #[error("{0}")]
    Bucket(#[from] BucketError),
    /// The database failed.
    #[error("the database failed")]
    Database(#[from] sqlx::Error),
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
        Self { pool, bucket, unrecorded: Mutex::default() }
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
        }));
        self.record(&event, None).await
    }

    /// Counts a new key of the user, and fails if the user has the maximum number. A key whose issue fails counts until the table
    /// would have it, because the event may be stored all the same.
    async fn take_place(&self, owner: &UserId, key_id: KeyId) -> Result<(), KeyError> {
        let issued = self.unrecorded().get(owner).cloned().unwrap_or_default();
        let ids: Vec<Uuid> = issued.iter().map(|id| id.0).collect();
        let recorded = api_keys::by_ids(&mut *self.pool.acquire().await?, &ids).await?;
        let in_force = api_keys::count_in_force(&self.pool, owner.as_str(), MAX_KEYS_PER_USER).await?;
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
        }));
        self.record(&event, Some(key.clone())).await
    }

    /// Revokes a key for ever. A key that is revoked already stays as it is.
    pub async fn revoke(&self, key: &KeyState, by: &str) -> Result<KeyState, KeyError> {
        if key.revoked.is_some() {
            // The bucket may lack the revocation after a failure of an earlier call.
            self.bucket.put(&Entry::Key(Box::new(key.clone()))).await?;
            return Ok(key.clone());
        }
        let event = Event::KeyRevoked(Box::new(KeyRevoked {
            key_id: key.key_id,
            user_id: key.user_id.clone(),
            revoked_at: shared::event::now(),
            revoked_by: by.to_owned(),
        }));
        self.record(&event, Some(key.clone())).await
    }

    /// Finds a key, in the bucket and in the table: a key that was issued just now may not be in the table yet.
    pub async fn find(&self, id: Uuid) -> Result<Option<KeyState>, KeyError> {
        let mut connection = self.pool.acquire().await?;
        let row = api_keys::by_ids(&mut connection, &[id]).await?.remove(&KeyId(id));
        let entry = match self.bucket.get(&format!("key.{id}")).await {
            Ok(Some(Entry::Key(key))) => Some(*key),
            Ok(_) => None,
            // Without the broker, the table alone answers.
            Err(error) => {
                tracing::debug!(%error, "a key was read from the table alone");
                None
            }
        };
        Ok(match (row, entry) {
            (Some(mut row), Some(entry)) => {
                row.join(entry);
                Some(row)
            }
            (row, entry) => row.or(entry),
        })
    }

    /// Publishes the event, waits for the acknowledgement, and writes the key's entry.
    async fn record(&self, event: &Event, present: Option<KeyState>) -> Result<KeyState, KeyError> {
        publish(self.bucket.client(), event).await.map_err(KeyError::Broker)?;
        let new = KeyState::from_event(event).context("the event is about no key").map_err(KeyError::Broker)?;
        let state = match present {
            Some(mut present) => {
                present.join(new);
                present
            }
            None => new,
        };
        self.bucket.put(&Entry::Key(Box::new(state.clone()))).await?;
        tracing::info!(kind = event.kind().subject_token(), key = %state.key_id, user = %state.user_id, "an API key was issued, changed or revoked");
        Ok(state)
    }
}

/// Returns true for a key that was minted in the last day.
fn is_recent(id: &KeyId) -> bool {
    let minted = id.0.get_timestamp().map_or(0, |at| at.to_unix().0);
    u64::try_from(OffsetDateTime::now_utc().unix_timestamp()).unwrap_or(0) < minted + MAX_UNRECORDED_SECONDS
}
