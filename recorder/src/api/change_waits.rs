//! Requests that wait until a change of a conversation is visible, and the task that looks for the changes on behalf of all
//! such requests: one query at a time for all of them, and none while nobody waits.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use shared::fair_share::{FairShare, Place};
use sqlx::postgres::PgPool;
use tokio::sync::{Notify, oneshot};
use tokio::time::sleep;

use super::error::ApiError;
use crate::reads::conversations::{self, AwaitedChange};

/// The maximum number of waiting requests of this process.
const MAX_WAITS: usize = 2000;
/// The maximum number of waiting requests of a user in this process.
const MAX_WAITS_PER_USER: usize = 16;
/// The interval between two queries for changes.
const POLL_INTERVAL: Duration = Duration::from_millis(50);
/// The delay after a failed query for changes.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// The waiting requests of this process.
#[derive(Debug)]
pub struct ChangeWaits {
    waits: Mutex<Waits>,
    places: Arc<FairShare>,
    added: Notify,
}

#[derive(Debug, Default)]
struct Waits {
    next_key: u64,
    by_key: HashMap<u64, Wait>,
}

#[derive(Debug)]
struct Wait {
    change: AwaitedChange,
    seen: oneshot::Sender<()>,
}

/// A waiting request. Dropping the value ends the wait.
#[derive(Debug)]
pub(super) struct ChangeWait {
    waits: Arc<ChangeWaits>,
    key: u64,
    seen: oneshot::Receiver<()>,
    _place: Place,
}

impl Default for ChangeWaits {
    fn default() -> Self {
        Self { waits: Mutex::default(), places: FairShare::new(MAX_WAITS), added: Notify::new() }
    }
}

impl ChangeWaits {
    /// Queries the database for the awaited changes while requests wait, and sleeps otherwise. Runs until the process ends.
    pub async fn run(&self, pool: &PgPool) -> Infallible {
        loop {
            let (keys, changes): (Vec<u64>, Vec<AwaitedChange>) =
                self.waits().by_key.iter().map(|(key, wait)| (*key, wait.change.clone())).unzip();
            if keys.is_empty() {
                self.added.notified().await;
                continue;
            }
            match conversations::visible_changes(pool, &changes).await {
                Ok(visible) => {
                    self.end(visible.into_iter().filter_map(|index| keys.get(index)));
                    sleep(POLL_INTERVAL).await;
                }
                Err(error) => {
                    tracing::warn!(
                        error = crate::store::describe(&error),
                        "the database cannot be queried for changes of conversations: trying again"
                    );
                    sleep(RETRY_INTERVAL).await;
                }
            }
        }
    }

    fn end<'a>(&self, keys: impl Iterator<Item = &'a u64>) {
        let mut waits = self.waits();
        for wait in keys.filter_map(|key| waits.by_key.remove(key)) {
            // The request may have ended meanwhile.
            let _ = wait.seen.send(());
        }
    }

    /// Adds a waiting request. Fails with 429 if the user, or all users together, have the maximum number.
    pub(super) fn add(self: &Arc<Self>, change: AwaitedChange) -> Result<ChangeWait, ApiError> {
        let place = self.places.take(change.user.as_str(), MAX_WAITS_PER_USER);
        let place = place.map_err(|_| ApiError::too_many_requests())?;
        let (sender, seen) = oneshot::channel();
        let mut waits = self.waits();
        let key = waits.next_key;
        waits.next_key += 1;
        waits.by_key.insert(key, Wait { change, seen: sender });
        drop(waits);
        self.added.notify_one();
        Ok(ChangeWait { waits: Arc::clone(self), key, seen, _place: place })
    }

    fn waits(&self) -> MutexGuard<'_, Waits> {
        self.waits.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ChangeWait {
    /// Resolves when the change is visible.
    pub(super) async fn until_visible(mut self) {
        // The sender is dropped only after a message, because this value removes its own entry.
        let _ = (&mut self.seen).await;
    }
}

impl Drop for ChangeWait {
    fn drop(&mut self) {
        self.waits.waits().by_key.remove(&self.key);
    }
}
