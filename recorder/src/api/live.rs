//! Subscriptions of live streams, and the task that looks for changes on behalf of all streams.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sqlx::postgres::PgPool;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::sleep;

use crate::reads::live::{self, LivePosition};

/// The maximum number of open streams in this process.
const MAX_STREAMS: usize = 1000;
/// The maximum number of open streams of a user in this process.
const MAX_STREAMS_PER_USER: usize = 8;
/// The interval between two queries for changes.
const POLL_INTERVAL: Duration = Duration::from_millis(200);
/// The delay after a failed query for changes.
const RETRY_INTERVAL: Duration = Duration::from_secs(2);

/// The open live streams of this process, by user.
#[derive(Debug)]
pub struct LiveSubscriptions {
    subscriptions: Mutex<HashMap<String, UserSubscriptions>>,
    stream_permits: Arc<Semaphore>,
    subscriber_added: Notify,
}

#[derive(Debug)]
struct UserSubscriptions {
    known_position: watch::Sender<LivePosition>,
    streams: usize,
    /// True until the next query for changes. The query covers only the changes after the previous query's horizon, and
    /// the stream of a new user may have an earlier position. A new user is therefore notified in any case.
    is_new: bool,
}

/// The registration of a live stream. Dropping the subscription frees the stream's permit.
#[derive(Debug)]
pub(super) struct Subscription {
    live: Arc<LiveSubscriptions>,
    pub(super) user: String,
    pub(super) known_position: watch::Receiver<LivePosition>,
    _permit: OwnedSemaphorePermit,
}

impl Default for LiveSubscriptions {
    fn default() -> Self {
        Self {
            subscriptions: Mutex::default(),
            stream_permits: Arc::new(Semaphore::new(MAX_STREAMS)),
            subscriber_added: Notify::new(),
        }
    }
}

impl LiveSubscriptions {
    /// Returns the number of open streams.
    pub fn open_streams(&self) -> usize {
        MAX_STREAMS - self.stream_permits.available_permits()
    }

    /// Queries the database for changes while streams are open, and sleeps otherwise. Runs until the process ends.
    pub async fn run(&self, pool: &PgPool) -> Infallible {
        let mut at = None;
        loop {
            let (new, known) = self.take_users();
            if new.is_empty() && known.is_empty() {
                at = None;
                self.subscriber_added.notified().await;
                continue;
            }
            match Self::poll_changes(pool, new, known, at).await {
                Ok((changed, horizon)) => {
                    at = Some(horizon);
                    self.notify(&changed, horizon);
                    sleep(POLL_INTERVAL).await;
                }
                Err(error) => {
                    // `take_users` has cleared the marks of new users, and no user has been notified. Without a
                    // position, the next query notifies every user.
                    at = None;
                    tracing::warn!(
                        error = crate::store::describe(&error),
                        "the database cannot be queried for live changes: trying again"
                    );
                    sleep(RETRY_INTERVAL).await;
                }
            }
        }
    }

    /// Returns the users to notify, and the new horizon. New users are always notified, because a new stream may have a
    /// position before the previous query's horizon.
    async fn poll_changes(
        pool: &PgPool,
        new: Vec<String>,
        known: Vec<String>,
        at: Option<LivePosition>,
    ) -> Result<(Vec<String>, LivePosition), sqlx::Error> {
        let horizon = live::horizon(pool).await?;
        let mut changed = match at {
            Some(at) => live::users_with_changes(pool, &known, (at, horizon)).await?,
            None => known,
        };
        changed.extend(new);
        Ok((changed, horizon))
    }

    fn notify(&self, users: &[String], horizon: LivePosition) {
        let subscriptions = self.subscriptions.lock().unwrap_or_else(PoisonError::into_inner);
        for user in users {
            if let Some(watched) = subscriptions.get(user) {
                watched.known_position.send_replace(horizon);
            }
        }
    }

    /// Returns the users with open streams, in two lists: users added since the last call, and the remaining users.
    fn take_users(&self) -> (Vec<String>, Vec<String>) {
        let mut subscriptions = self.subscriptions.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut new, mut known) = (Vec::new(), Vec::new());
        for (user, watched) in subscriptions.iter_mut() {
            let list = if std::mem::take(&mut watched.is_new) { &mut new } else { &mut known };
            list.push(user.clone());
        }
        (new, known)
    }

    pub(super) fn subscribe(self: &Arc<Self>, user: &str, from: LivePosition) -> Option<Subscription> {
        let permit = Arc::clone(&self.stream_permits).try_acquire_owned().ok()?;
        let mut subscriptions = self.subscriptions.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || UserSubscriptions { known_position: watch::Sender::new(from), streams: 0, is_new: true };
        let watched = subscriptions.entry(user.to_owned()).or_insert_with(new);
        if watched.streams == MAX_STREAMS_PER_USER {
            return None;
        }
        watched.streams += 1;
        let known_position = watched.known_position.subscribe();
        drop(subscriptions);
        self.subscriber_added.notify_one();
        Some(Subscription { live: Arc::clone(self), user: user.to_owned(), known_position, _permit: permit })
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut subscriptions = self.live.subscriptions.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(watched) = subscriptions.get_mut(&self.user) {
            watched.streams -= 1;
            if watched.streams == 0 {
                subscriptions.remove(&self.user);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_user_has_a_limited_number_of_streams_and_a_closed_stream_frees_its_permit() {
        let live = Arc::new(LiveSubscriptions::default());
        let at = LivePosition { xid: 1, number: 0 };
        let streams: Vec<_> = (0..MAX_STREAMS_PER_USER).map(|_| live.subscribe("ann", at).unwrap()).collect();
        assert!(live.subscribe("ann", at).is_none());
        assert!(live.subscribe("bob", at).is_some());
        assert_eq!(live.take_users(), (vec!["ann".to_owned()], vec![]));
        assert_eq!(live.take_users(), (vec![], vec!["ann".to_owned()]));
        drop(streams);
        assert_eq!(live.take_users(), (vec![], vec![]));
        let _stream = live.subscribe("ann", at).unwrap();
        assert_eq!(live.take_users(), (vec!["ann".to_owned()], vec![]), "a returning user counts as new");
    }
}
