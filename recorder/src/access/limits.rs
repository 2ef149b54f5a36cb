//! Changing the limits of scopes: each change is an event first, and then the scope's entry in the bucket.
//!
//! A crash between the two heals: a recorder that projects the event writes the entry as well.

use std::sync::Arc;

use shared::access::{Act, Entry, LimitState, limit_name};
use shared::event::{Event, LimitScope, LimitsChanged, UsageLimits};
use shared::id::{ChangeId, UserId};
use sqlx::postgres::PgPool;
use uuid::Uuid;

use super::bucket::{AccessBucket, BucketError};
use super::publication::publish;
use crate::store::limits;

/// Reads and changes the limits of scopes.
#[derive(Debug)]
pub struct AccessLimits {
    pool: PgPool,
    bucket: Arc<AccessBucket>,
}

/// The reason for which limits were not read or changed.
#[derive(Debug, thiserror::Error)]
pub enum LimitError {
    /// The present limits could not be read from the bucket, so nothing was changed.
    #[error("{0}")]
    Present(BucketError),
    /// The broker did not acknowledge the event. If the event was stored all the same, recorders bring the bucket up to date.
    #[error("the broker did not acknowledge the change of the limits: {0:#}")]
    Broker(anyhow::Error),
    /// The bucket could not be written. The event is on the record, and recorders bring the bucket up to date.
    #[error("{0}")]
    Entry(BucketError),
    /// The database failed.
    #[error("the database failed: {}", crate::store::describe(.0))]
    Database(#[from] sqlx::Error),
}

impl AccessLimits {
    /// Creates the limits over the table `limits` and the bucket.
    pub fn new(pool: PgPool, bucket: Arc<AccessBucket>) -> Self {
        Self { pool, bucket }
    }

    /// Replaces all limits of a scope. Returns after the event and the scope's entry are durable.
    pub async fn set(
        &self,
        scope: &LimitScope,
        by: &UserId,
        new_limits: UsageLimits,
    ) -> Result<LimitState, LimitError> {
        let present = self.present(scope).await?;
        self.change(scope, by, new_limits, present).await
    }

    /// Removes all limits of a scope. A scope without limits stays as it is, and no event is published.
    pub async fn clear(&self, scope: &LimitScope, by: &UserId) -> Result<(), LimitError> {
        match self.present(scope).await? {
            None => Ok(()),
            Some(state) if state.limits.is_empty() => {
                // The bucket may lack the change after a failure of an earlier call.
                self.bucket.put(&Entry::Limit(state)).await.map(drop).map_err(LimitError::Entry)
            }
            present => self.change(scope, by, UsageLimits::default(), present).await.map(drop),
        }
    }

    /// Finds the limits of a scope, in the bucket and in the table: a change of just now may not be in the table yet. Without the
    /// broker, the table alone answers.
    pub async fn find(&self, scope: &LimitScope) -> Result<Option<LimitState>, LimitError> {
        let row = self.row(scope).await?;
        match self.bucket.get(&limit_name(scope)).await {
            Ok(entry) => Ok(joined(row, entry)),
            Err(error) => {
                tracing::debug!(%error, "limits were read from the table alone");
                Ok(row)
            }
        }
    }

    /// Finds the limits that a change replaces. Fails without the broker, because a change has to get a greater id.
    async fn present(&self, scope: &LimitScope) -> Result<Option<LimitState>, LimitError> {
        let row = self.row(scope).await?;
        let entry = self.bucket.get(&limit_name(scope)).await.map_err(LimitError::Present)?;
        Ok(joined(row, entry))
    }

    async fn row(&self, scope: &LimitScope) -> Result<Option<LimitState>, sqlx::Error> {
        let mut connection = self.pool.acquire().await?;
        Ok(limits::by_scopes(&mut connection, &[scope.to_string()]).await?.remove(scope))
    }

    async fn change(
        &self,
        scope: &LimitScope,
        by: &UserId,
        new_limits: UsageLimits,
        present: Option<LimitState>,
    ) -> Result<LimitState, LimitError> {
        let change_id = ChangeId::after(present.map_or(Uuid::nil(), |present| present.change_id));
        let changed_at = shared::event::now();
        let event = Event::LimitsChanged(Box::new(LimitsChanged {
            change_id,
            scope: scope.clone(),
            changed_at,
            changed_by: by.clone(),
            limits: new_limits.clone(),
        }));
        publish(self.bucket.client(), &event).await.map_err(LimitError::Broker)?;
        let changed = Act { at: changed_at, by: by.to_string() };
        let state = LimitState { scope: scope.clone(), change_id: change_id.0, changed, limits: new_limits.clone() };
        self.bucket.put(&Entry::Limit(state.clone())).await.map_err(LimitError::Entry)?;
        tracing::info!(%scope, %by, limits = ?new_limits, "the limits of a scope were changed");
        Ok(state)
    }
}

/// The state in force of a scope's row and entry.
fn joined(row: Option<LimitState>, entry: Option<Entry>) -> Option<LimitState> {
    match (row, entry) {
        (Some(mut row), Some(Entry::Limit(entry))) => {
            row.join(entry);
            Some(row)
        }
        (None, Some(Entry::Limit(entry))) => Some(entry),
        (row, _) => row,
    }
}
