//! Bringing the bucket `ACCESS` up to date from the tables `api_keys`, `projects` and `limits`, after a crash between an event and the bucket,
//! and after the loss of the bucket.

use std::sync::Arc;
use std::time::Duration;

use shared::access::{KeyState, LimitState, ProjectState};
use shared::event::Event;
use sqlx::postgres::PgPool;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::bucket::AccessBucket;
use super::change::AccessState;

/// The number of rows compared at a time.
const PAGE_ROWS: i64 = 500;
/// The interval between two comparisons of all rows.
const INTERVAL: Duration = Duration::from_secs(3600);
/// The pause after a comparison that failed.
const RETRY_INTERVAL: Duration = Duration::from_secs(10);

/// Writes the keys, projects and limits of a batch's events to the bucket. Called after the commit, and before the acknowledgement. A failure is
/// logged and left to a comparison of all rows, which follows at once, so that the bucket never holds up the record.
pub async fn sync_events(bucket: &AccessBucket, pool: &PgPool, events: &[Event]) {
    let synced = async {
        // The projects come first, so that no gateway knows a key of a project without the project.
        sync::<ProjectState>(bucket, pool, events).await?;
        sync::<KeyState>(bucket, pool, events).await?;
        sync::<LimitState>(bucket, pool, events).await
    };
    if let Err(error) = synced.await {
        tracing::warn!(%error, "keys, projects or limits of a batch could not be written to the bucket ACCESS: trying again with all of them");
        bucket.note_incomplete();
    }
}

async fn sync<S: AccessState>(bucket: &AccessBucket, pool: &PgPool, events: &[Event]) -> anyhow::Result<()> {
    let keys: Vec<S::Key> = events.iter().filter_map(S::from_event).map(|state| state.key()).collect();
    if keys.is_empty() {
        return Ok(());
    }
    for state in S::rows(pool, &keys).await?.into_values() {
        bucket.put(&state.into_entry()).await?;
    }
    Ok(())
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
    // The projects come first, as in batches.
    Ok(compare::<ProjectState>(bucket, pool).await?
        + compare::<KeyState>(bucket, pool).await?
        + compare::<LimitState>(bucket, pool).await?)
}

async fn compare<S: AccessState>(bucket: &AccessBucket, pool: &PgPool) -> anyhow::Result<usize> {
    let (mut after, mut changed) = (None, 0);
    loop {
        let page = S::page(pool, after.as_ref(), PAGE_ROWS).await?;
        let Some(last) = page.last() else { return Ok(changed) };
        after = Some(last.key());
        for state in page {
            changed += usize::from(bucket.put(&state.into_entry()).await?);
        }
    }
}
