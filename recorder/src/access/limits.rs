//! Changing the limits of scopes.

use std::sync::Arc;

use shared::access::LimitState;
use shared::event::{Event, LimitScope, LimitsChanged, UsageLimits};
use shared::id::{ChangeId, UserId};
use sqlx::postgres::PgPool;
use uuid::Uuid;

use super::bucket::AccessBucket;
use super::change::{ChangeError, States};

/// Reads and changes the limits of scopes.
#[derive(Debug)]
pub struct AccessLimits(States);

impl AccessLimits {
    /// Creates the limits over the table `limits` and the bucket.
    pub fn new(pool: PgPool, bucket: Arc<AccessBucket>) -> Self {
        Self(States { pool, bucket })
    }

    /// Replaces all limits of a scope. Returns after the event and the scope's entry are durable.
    pub async fn set(
        &self,
        scope: &LimitScope,
        by: &UserId,
        new_limits: UsageLimits,
    ) -> Result<LimitState, ChangeError> {
        let present = self.0.present(scope).await?;
        self.change(scope, by, new_limits, present).await
    }

    /// Removes all limits of a scope. A scope without limits stays as it is, and no event is published.
    pub async fn clear(&self, scope: &LimitScope, by: &UserId) -> Result<(), ChangeError> {
        match self.0.present::<LimitState>(scope).await? {
            None => Ok(()),
            Some(state) if state.limits.is_empty() => self.0.put(state).await,
            present => self.change(scope, by, UsageLimits::default(), present).await.map(drop),
        }
    }

    /// Finds the limits of a scope, in the bucket and in the table.
    pub async fn find(&self, scope: &LimitScope) -> Result<Option<LimitState>, ChangeError> {
        self.0.find(scope).await
    }

    async fn change(
        &self,
        scope: &LimitScope,
        by: &UserId,
        new_limits: UsageLimits,
        present: Option<LimitState>,
    ) -> Result<LimitState, ChangeError> {
        let event = Event::LimitsChanged(Box::new(LimitsChanged {
            change_id: ChangeId::after(present.as_ref().map_or(Uuid::nil(), |present| present.change_id)),
            scope: scope.clone(),
            changed_at: shared::event::now(),
            changed_by: by.clone(),
            limits: new_limits,
            restored: None,
        }));
        let state = self.0.record(&event, present).await?;
        tracing::info!(%scope, %by, limits = ?state.limits, "the limits of a scope were changed");
        Ok(state)
    }
}
