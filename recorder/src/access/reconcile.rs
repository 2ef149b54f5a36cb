//! Bringing the bucket `ACCESS` up to date from the tables `api_keys`, `projects` and `limits`, after a crash between an event and the bucket,
//! and after the loss of the bucket.

use std::sync::Arc;
use std::time::Duration;

use shared::access::{Entry, KeyState, LimitState, ProjectState};
use shared::event::Event;
use sqlx::postgres::PgPool;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::bucket::AccessBucket;
use crate::store::{api_keys, limits, projects};

/// The number of rows compared at a time.
const PAGE_ROWS: i64 = 500;
/// The interval between two comparisons of all rows.
const INTERVAL: Duration = Duration::from_secs(3600);
/// The pause after a comparison that failed.
const RETRY_INTERVAL: Duration = Duration::from_secs(10);

/// Writes the keys, projects and limits of a batch's events to the bucket. Called after the commit, and before the acknowledgement. A failure is
/// logged and left to a comparison of all rows, which follows at once, so that the bucket never holds up the record.
pub async fn sync_events(bucket: &AccessBucket, pool: &PgPool, events: &[Event]) {
    let ids: Vec<Uuid> = events.iter().filter_map(KeyState::from_event).map(|key| key.key_id.0).collect();
    let scopes: Vec<String> =
        events.iter().filter_map(LimitState::from_event).map(|limit| limit.scope.to_string()).collect();
    let project_ids: Vec<Uuid> =
        events.iter().filter_map(ProjectState::from_event).map(|project| project.project_id.0).collect();
    if ids.is_empty() && scopes.is_empty() && project_ids.is_empty() {
        return;
    }
    let synced = async {
        let mut connection = pool.acquire().await?;
        let keys = api_keys::by_ids(&mut connection, &ids).await?;
        let limits = limits::by_scopes(&mut connection, &scopes).await?;
        let projects = projects::by_ids(&mut connection, &project_ids).await?;
        drop(connection);
        for project in projects.into_values() {
            bucket.put(&Entry::Project(Box::new(project))).await?;
        }
        for key in keys.into_values() {
            bucket.put(&Entry::Key(Box::new(key))).await?;
        }
        for limit in limits.into_values() {
            bucket.put(&Entry::Limit(limit)).await?;
        }
        anyhow::Ok(())
    };
    if let Err(error) = synced.await {
        tracing::warn!(%error, "keys, projects or limits of a batch could not be written to the bucket ACCESS: trying again with all of them");
        bucket.note_incomplete();
    }
}

/// Compares all keys, projects and limits with the bucket, at the start, after a failed write of [`sync_events`], when the bucket
/// was made anew, and every hour, until stopped.
pub async fn run(bucket: Arc<AccessBucket>, pool: PgPool, stop: CancellationToken) {
    let mut has_reported = false;
    let forever = async {
        loop {
            let created = bucket.created().await;
            match compare_all(&bucket, &pool).await {
                Ok(0) => has_reported = false,
                Ok(changed) => {
                    has_reported = false;
                    tracing::info!(
                        changed,
                        "entries of the bucket ACCESS were older than the tables api_keys, projects and limits"
                    );
                }
                Err(error) => {
                    if !std::mem::replace(&mut has_reported, true) {
                        tracing::warn!(%error, "the bucket ACCESS could not be compared with the tables api_keys, projects and limits: trying again");
                    }
                    sleep(RETRY_INTERVAL).await;
                    continue;
                }
            }
            bucket.comparison_due(INTERVAL, created).await;
        }
    };
    stop.run_until_cancelled(forever).await;
}

async fn compare_all(bucket: &AccessBucket, pool: &PgPool) -> anyhow::Result<usize> {
    // The projects come first, so that no gateway knows a key of a project without the project.
    let (mut after, mut changed) = (Uuid::nil(), 0);
    loop {
        let page = projects::page(pool, after, PAGE_ROWS).await?;
        let Some(last) = page.last() else { break };
        after = last.project_id.0;
        for project in page {
            changed += usize::from(bucket.put(&Entry::Project(Box::new(project))).await?);
        }
    }
    let mut after = Uuid::nil();
    loop {
        let page = api_keys::page(pool, after, PAGE_ROWS).await?;
        let Some(last) = page.last() else { break };
        after = last.key_id.0;
        for key in page {
            changed += usize::from(bucket.put(&Entry::Key(Box::new(key))).await?);
        }
    }
    let mut after = String::new();
    loop {
        let page = limits::page(pool, &after, PAGE_ROWS).await?;
        let Some(last) = page.last() else { return Ok(changed) };
        after = last.scope.to_string();
        for limit in page {
            changed += usize::from(bucket.put(&Entry::Limit(limit)).await?);
        }
    }
}
