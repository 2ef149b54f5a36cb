//! Bringing the bucket `ACCESS` up to date from the table `api_keys`, after a crash between an event and the bucket, and after the loss
//! of the bucket.

use std::sync::Arc;
use std::time::Duration;

use shared::access::Entry;
use shared::event::Event;
use sqlx::postgres::PgPool;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::bucket::AccessBucket;
use crate::store::api_keys;

/// The number of keys compared at a time.
const PAGE_ROWS: i64 = 500;
/// The interval between two comparisons of all keys.
const INTERVAL: Duration = Duration::from_secs(3600);
/// The pause after a comparison that failed.
const RETRY_INTERVAL: Duration = Duration::from_secs(10);

/// Writes the keys of a batch's events to the bucket. Called after the commit, and before the acknowledgement. A failure is logged and
/// left to a comparison of all keys, which follows at once, so that the bucket never holds up the record.
pub async fn sync_events(bucket: &AccessBucket, pool: &PgPool, events: &[Event]) {
    let ids: Vec<Uuid> =
        events.iter().filter_map(shared::access::KeyState::from_event).map(|key| key.key_id.0).collect();
    if ids.is_empty() {
        return;
    }
    let synced = async {
        let keys = api_keys::by_ids(&mut *pool.acquire().await?, &ids).await?;
        for key in keys.into_values() {
            bucket.put(&Entry::Key(Box::new(key))).await?;
        }
        anyhow::Ok(())
    };
    if let Err(error) = synced.await {
        tracing::warn!(%error, "keys of a batch could not be written to the bucket ACCESS: trying again with all keys");
        bucket.note_incomplete();
    }
}

/// Compares all keys with the bucket, at the start, after a failed write of [`sync_events`], when the bucket
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
                    tracing::info!(changed, "entries of the bucket ACCESS were older than the table api_keys");
                }
                Err(error) => {
                    if !std::mem::replace(&mut has_reported, true) {
                        tracing::warn!(%error, "the bucket ACCESS could not be compared with the table api_keys: trying again");
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
    let (mut after, mut changed) = (Uuid::nil(), 0);
    loop {
        let page = api_keys::page(pool, after, PAGE_ROWS).await?;
        let Some(last) = page.last() else { return Ok(changed) };
        after = last.key_id.0;
        for key in page {
            changed += usize::from(bucket.put(&Entry::Key(Box::new(key))).await?);
        }
    }
}
