//! Those who watch their record live, and the one task that looks for changes on behalf of all of them.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sqlx::postgres::PgPool;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::sleep;

use crate::reads::live::{self, LivePosition};

/// Streams at once: of all users, and of one.
const MAX_STREAMS: usize = 1000;
const MAX_STREAMS_PER_USER: usize = 8;
/// How often changes are looked for.
const POLL_INTERVAL: Duration = Duration::from_millis(200);
/// How long to wait when the database cannot say.
const RETRY_INTERVAL: Duration = Duration::from_secs(2);

/// Those who watch.
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
    /// Not looked for yet: what changed between the stream's place and the first look is still to be found.
    is_new: bool,
}

/// A stream's place among those who watch; gone with it.
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
    /// Looks for changes for as long as anyone watches; until the process ends.
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
                    // Whoever was new is known by now, and has not been told: let everyone look.
                    at = None;
                    tracing::warn!(error = crate::store::describe(&error), "changes cannot be looked for");
                    sleep(RETRY_INTERVAL).await;
                }
            }
        }
    }

    /// Who has changes, and up to where that is known. Whoever is new may have: its place can lie before the last look's.
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

    /// Who watches: since now, and since before.
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
        let position = Arc::clone(&self.stream_permits).try_acquire_owned().ok()?;
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
        Some(Subscription { live: Arc::clone(self), user: user.to_owned(), known_position, _permit: position })
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
        assert_eq!(live.take_users(), (vec!["ann".to_owned()], vec![]), "who comes back is new");
    }
}
