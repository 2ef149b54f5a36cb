//! Subscriptions of live streams, and the task that looks for changes on behalf of all streams.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sqlx::postgres::PgPool;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::reads::live::{self, LivePosition};
use crate::store::{sessions, users};

/// The maximum number of open streams in this process.
const MAX_STREAMS: usize = 1000;
/// The maximum number of open streams of a user in this process.
const MAX_STREAMS_PER_USER: usize = 8;
/// The interval between two queries for changes.
const POLL_INTERVAL: Duration = Duration::from_millis(200);
/// The interval between two queries for ended sessions and disabled users.
const ACCESS_INTERVAL: Duration = Duration::from_millis(400);
/// The delay after a failed query for changes.
const RETRY_INTERVAL: Duration = Duration::from_secs(2);

/// The open live streams of this process, by user.
#[derive(Debug)]
pub struct LiveSubscriptions {
    subscriptions: Mutex<HashMap<String, UserSubscriptions>>,
    next_number: AtomicU64,
    stream_permits: Arc<Semaphore>,
    subscriber_added: Notify,
}

#[derive(Debug)]
struct UserSubscriptions {
    known_position: watch::Sender<LivePosition>,
    streams: HashMap<u64, OpenStream>,
    /// True until the next query for changes. The query covers only the changes after the previous query's horizon, and
    /// the stream of a new user may have an earlier position. A new user is therefore notified in any case.
    is_new: bool,
}

#[derive(Debug)]
struct OpenStream {
    session: Option<Uuid>,
    is_over: CancellationToken,
}

/// The registration of a live stream. Dropping the subscription frees the stream's permit.
#[derive(Debug)]
pub(super) struct Subscription {
    live: Arc<LiveSubscriptions>,
    pub(super) user: String,
    pub(super) known_position: watch::Receiver<LivePosition>,
    /// Cancelled when the session has ended or the user is disabled.
    pub(super) is_over: CancellationToken,
    number: u64,
    _permit: OwnedSemaphorePermit,
}

impl Default for LiveSubscriptions {
    fn default() -> Self {
        Self {
            subscriptions: Mutex::default(),
            next_number: AtomicU64::new(0),
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

    /// Queries the database for changes, ended sessions and disabled users while streams are open, and sleeps otherwise. Runs until the
    /// process ends.
    pub async fn run(&self, pool: &PgPool) -> Infallible {
        let (mut at, mut next_access_check) = (None, Instant::now());
        loop {
            let (new, known) = self.take_users();
            if new.is_empty() && known.is_empty() {
                at = None;
                self.subscriber_added.notified().await;
                continue;
            }
            let polled = async {
                if Instant::now() >= next_access_check {
                    self.end_refused(pool).await?;
                    next_access_check = Instant::now() + ACCESS_INTERVAL;
                }
                Self::poll_changes(pool, new, known, at).await
            };
            match polled.await {
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

    /// Ends the streams whose session has ended or whose user is disabled.
    async fn end_refused(&self, pool: &PgPool) -> Result<(), sqlx::Error> {
        let (ids, open): (Vec<String>, Vec<Uuid>) = {
            let subscriptions = self.subscriptions.lock().unwrap_or_else(PoisonError::into_inner);
            let open = subscriptions.values().flat_map(|watched| watched.streams.values());
            (subscriptions.keys().cloned().collect(), open.filter_map(|stream| stream.session).collect())
        };
        let disabled = users::disabled_among(pool, &ids).await?;
        let ended = sessions::ended_among(pool, &open).await?;
        let subscriptions = self.subscriptions.lock().unwrap_or_else(PoisonError::into_inner);
        for (user, watched) in subscriptions.iter().filter(|_| !disabled.is_empty() || !ended.is_empty()) {
            let is_disabled = disabled.contains(user);
            let is_refused =
                |stream: &&OpenStream| is_disabled || stream.session.is_some_and(|session| ended.contains(&session));
            watched.streams.values().filter(is_refused).for_each(|stream| stream.is_over.cancel());
        }
        Ok(())
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

    pub(super) fn subscribe(
        self: &Arc<Self>,
        user: &str,
        session: Option<Uuid>,
        from: LivePosition,
    ) -> Option<Subscription> {
        let permit = Arc::clone(&self.stream_permits).try_acquire_owned().ok()?;
        let mut subscriptions = self.subscriptions.lock().unwrap_or_else(PoisonError::into_inner);
        let new =
            || UserSubscriptions { known_position: watch::Sender::new(from), streams: HashMap::new(), is_new: true };
        let watched = subscriptions.entry(user.to_owned()).or_insert_with(new);
        if watched.streams.len() == MAX_STREAMS_PER_USER {
            return None;
        }
        let number = self.next_number.fetch_add(1, Ordering::Relaxed);
        let is_over = CancellationToken::new();
        watched.streams.insert(number, OpenStream { session, is_over: is_over.clone() });
        let known_position = watched.known_position.subscribe();
        drop(subscriptions);
        self.subscriber_added.notify_one();
        let (live, user) = (Arc::clone(self), user.to_owned());
        Some(Subscription { live, user, known_position, is_over, number, _permit: permit })
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut subscriptions = self.live.subscriptions.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(watched) = subscriptions.get_mut(&self.user) {
            watched.streams.remove(&self.number);
            if watched.streams.is_empty() {
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
        let streams: Vec<_> = (0..MAX_STREAMS_PER_USER).map(|_| live.subscribe("ann", None, at).unwrap()).collect();
        assert!(live.subscribe("ann", None, at).is_none());
        assert!(live.subscribe("bob", None, at).is_some());
        assert_eq!(live.take_users(), (vec!["ann".to_owned()], vec![]));
        assert_eq!(live.take_users(), (vec![], vec!["ann".to_owned()]));
        drop(streams);
        assert_eq!(live.take_users(), (vec![], vec![]));
        let _stream = live.subscribe("ann", None, at).unwrap();
        assert_eq!(live.take_users(), (vec!["ann".to_owned()], vec![]), "a returning user counts as new");
    }
}
