//! States that a table and the bucket `ACCESS` have: each change is an event first, and then the state's entry in the bucket.
//!
//! A crash between the two heals: a recorder that projects the event writes the entry as well.

use std::sync::Arc;

use shared::access::{Entry, KeyState, LimitState, ProjectState, limit_name, project_name};
use shared::event::{Event, LimitScope};
use shared::id::{KeyId, ProjectId};
use sqlx::postgres::PgPool;
use uuid::Uuid;

use super::bucket::{AccessBucket, BucketError};
use super::publication::publish;
use crate::projection::row::{Row, Rows};
use crate::store::{api_keys, limits, projects};

/// The table and the bucket of a kind of states.
#[derive(Debug)]
pub(super) struct States {
    pub(super) pool: PgPool,
    pub(super) bucket: Arc<AccessBucket>,
}

/// The reason for which a state was not read or changed.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// The present state could not be read from the bucket, so nothing was changed.
    #[error("{0}")]
    Present(BucketError),
    /// The broker did not acknowledge the event. If the event was stored all the same, recorders bring the bucket up to date.
    #[error("the broker did not acknowledge the change: {0:#}")]
    Broker(anyhow::Error),
    /// The bucket could not be written. The event is on the record, and recorders bring the bucket up to date.
    #[error("{0}")]
    Entry(BucketError),
    /// The database failed.
    #[error("the database failed: {}", crate::store::describe(.0))]
    Database(#[from] sqlx::Error),
}

/// A state that is a row of a table and an entry of the bucket.
pub(super) trait AccessState: Row<Key: Send + Sync> + Send + Sync {
    /// The name of the entry.
    fn entry_name(key: &Self::Key) -> String;
    /// The state of an entry; none for an entry of another kind.
    fn from_entry(entry: Entry) -> Option<Self>;
    /// The state that an event sets, or the facts that it adds; none for an event of another kind.
    fn from_event(event: &Event) -> Option<Self>;
    /// The entry of the state.
    fn into_entry(self) -> Entry;
    /// Reads rows by key. Missing rows are left out.
    fn rows(pool: &PgPool, keys: &[Self::Key]) -> impl Future<Output = Result<Rows<Self>, sqlx::Error>> + Send;
    /// Reads up to `limit` rows after the key `after`, in the order of keys.
    fn page(
        pool: &PgPool,
        after: Option<&Self::Key>,
        limit: i64,
    ) -> impl Future<Output = Result<Vec<Self>, sqlx::Error>> + Send;
}

// === impl States ===

impl States {
    /// Finds the state in force, in the bucket and in the table: a change of just now may not be in the table yet. Without the broker,
    /// the table alone answers.
    pub(super) async fn find<S: AccessState>(&self, key: &S::Key) -> Result<Option<S>, ChangeError> {
        let row = S::rows(&self.pool, std::slice::from_ref(key)).await?.remove(key);
        match self.bucket.get(&S::entry_name(key)).await {
            Ok(entry) => Ok(joined(row, entry)),
            Err(error) => {
                tracing::debug!(%error, "a state was read from the table alone");
                Ok(row)
            }
        }
    }

    /// Finds the state that a change replaces. Fails without the broker, because a change has to get a greater id.
    pub(super) async fn present<S: AccessState>(&self, key: &S::Key) -> Result<Option<S>, ChangeError> {
        let row = S::rows(&self.pool, std::slice::from_ref(key)).await?.remove(key);
        let entry = self.bucket.get(&S::entry_name(key)).await.map_err(ChangeError::Present)?;
        Ok(joined(row, entry))
    }

    /// Publishes the event of a change, waits for the acknowledgement, and writes the entry. Returns the new state.
    pub(super) async fn record<S: AccessState>(&self, event: &Event, present: Option<S>) -> Result<S, ChangeError> {
        publish(self.bucket.client(), event).await.map_err(ChangeError::Broker)?;
        let new = S::from_event(event).ok_or_else(|| ChangeError::Broker(anyhow::anyhow!("the event has no state")))?;
        let state = join(present, new);
        self.put(state.clone()).await?;
        Ok(state)
    }

    /// Writes the entry of a state that is on the record: the bucket may lack it after a failure of an earlier call.
    pub(super) async fn put<S: AccessState>(&self, state: S) -> Result<(), ChangeError> {
        self.bucket.put(&state.into_entry()).await.map(drop).map_err(ChangeError::Entry)
    }
}

fn joined<S: AccessState>(row: Option<S>, entry: Option<Entry>) -> Option<S> {
    match entry.and_then(S::from_entry) {
        Some(entry) => Some(join(row, entry)),
        None => row,
    }
}

fn join<S: AccessState>(present: Option<S>, new: S) -> S {
    let Some(mut state) = present else { return new };
    state.join(new);
    state
}

// === impl AccessState ===

impl AccessState for KeyState {
    fn entry_name(key: &KeyId) -> String {
        format!("key.{key}")
    }

    fn from_entry(entry: Entry) -> Option<Self> {
        if let Entry::Key(state) = entry { Some(*state) } else { None }
    }

    fn from_event(event: &Event) -> Option<Self> {
        Self::from_event(event)
    }

    fn into_entry(self) -> Entry {
        Entry::Key(Box::new(self))
    }

    async fn rows(pool: &PgPool, keys: &[KeyId]) -> Result<Rows<Self>, sqlx::Error> {
        let ids: Vec<Uuid> = keys.iter().map(|key| key.0).collect();
        api_keys::by_ids(&mut *pool.acquire().await?, &ids).await
    }

    async fn page(pool: &PgPool, after: Option<&KeyId>, limit: i64) -> Result<Vec<Self>, sqlx::Error> {
        api_keys::page(pool, after.map_or(Uuid::nil(), |key| key.0), limit).await
    }
}

impl AccessState for LimitState {
    fn entry_name(scope: &LimitScope) -> String {
        limit_name(scope)
    }

    fn from_entry(entry: Entry) -> Option<Self> {
        if let Entry::Limit(state) = entry { Some(state) } else { None }
    }

    fn from_event(event: &Event) -> Option<Self> {
        Self::from_event(event)
    }

    fn into_entry(self) -> Entry {
        Entry::Limit(self)
    }

    async fn rows(pool: &PgPool, keys: &[LimitScope]) -> Result<Rows<Self>, sqlx::Error> {
        let scopes: Vec<String> = keys.iter().map(ToString::to_string).collect();
        limits::by_scopes(&mut *pool.acquire().await?, &scopes).await
    }

    async fn page(pool: &PgPool, after: Option<&LimitScope>, limit: i64) -> Result<Vec<Self>, sqlx::Error> {
        limits::page(pool, &after.map(ToString::to_string).unwrap_or_default(), limit).await
    }
}

impl AccessState for ProjectState {
    fn entry_name(project: &ProjectId) -> String {
        project_name(*project)
    }

    fn from_entry(entry: Entry) -> Option<Self> {
        if let Entry::Project(state) = entry { Some(*state) } else { None }
    }

    fn from_event(event: &Event) -> Option<Self> {
        Self::from_event(event)
    }

    fn into_entry(self) -> Entry {
        Entry::Project(Box::new(self))
    }

    async fn rows(pool: &PgPool, keys: &[ProjectId]) -> Result<Rows<Self>, sqlx::Error> {
        let ids: Vec<Uuid> = keys.iter().map(|project| project.0).collect();
        projects::by_ids(&mut *pool.acquire().await?, &ids).await
    }

    async fn page(pool: &PgPool, after: Option<&ProjectId>, limit: i64) -> Result<Vec<Self>, sqlx::Error> {
        projects::page(pool, after.map_or(Uuid::nil(), |project| project.0), limit).await
    }
}
