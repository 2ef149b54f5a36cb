//! Those who watch their record live, and the one task that looks for changes on behalf of all of them.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sqlx::postgres::PgPool;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::sleep;

use crate::reads::live::{self, Place};

/// Streams at once: of all users, and of one.
const MOST_STREAMS: usize = 1000;
const MOST_OF_ONE: usize = 8;
/// How often changes are looked for.
const BETWEEN: Duration = Duration::from_millis(200);
/// How long to wait when the database cannot say.
const PAUSE: Duration = Duration::from_secs(2);

/// Those who watch.
#[derive(Debug)]
pub struct Live {
    watching: Mutex<HashMap<String, Watched>>,
    places: Arc<Semaphore>,
    someone: Notify,
}

#[derive(Debug)]
struct Watched {
    seen: watch::Sender<Place>,
    streams: usize,
    /// Not looked for yet: what changed between the stream's place and the first look is still to be found.
    is_new: bool,
}

/// A stream's place among those who watch; gone with it.
#[derive(Debug)]
pub(super) struct Watcher {
    live: Arc<Live>,
    pub(super) user: String,
    pub(super) seen: watch::Receiver<Place>,
    _place: OwnedSemaphorePermit,
}

impl Default for Live {
    fn default() -> Self {
        Self { watching: Mutex::default(), places: Arc::new(Semaphore::new(MOST_STREAMS)), someone: Notify::new() }
    }
}

impl Live {
    /// Looks for changes for as long as anyone watches; until the process ends.
    pub async fn run(&self, pool: &PgPool) -> Infallible {
        let mut at = None;
        loop {
            let (new, known) = self.users();
            if new.is_empty() && known.is_empty() {
                at = None;
                self.someone.notified().await;
                continue;
            }
            match Self::look(pool, new, known, at).await {
                Ok((changed, horizon)) => {
                    at = Some(horizon);
                    self.wake(&changed, horizon);
                    sleep(BETWEEN).await;
                }
                Err(error) => {
                    // Whoever was new is known by now, and has not been told: let everyone look.
                    at = None;
                    tracing::warn!(error = crate::store::describe(&error), "changes cannot be looked for");
                    sleep(PAUSE).await;
                }
            }
        }
    }

    /// Who has changes, and up to where that is known. Whoever is new may have: its place can lie before the last look's.
    async fn look(
        pool: &PgPool,
        new: Vec<String>,
        known: Vec<String>,
        at: Option<Place>,
    ) -> Result<(Vec<String>, Place), sqlx::Error> {
        let horizon = live::horizon(pool).await?;
        let mut changed = match at {
            Some(at) => live::changed(pool, &known, (at, horizon)).await?,
            None => known,
        };
        changed.extend(new);
        Ok((changed, horizon))
    }

    fn wake(&self, users: &[String], horizon: Place) {
        let watching = self.watching.lock().unwrap_or_else(PoisonError::into_inner);
        for user in users {
            if let Some(watched) = watching.get(user) {
                watched.seen.send_replace(horizon);
            }
        }
    }

    /// Who watches: since now, and since before.
    fn users(&self) -> (Vec<String>, Vec<String>) {
        let mut watching = self.watching.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut new, mut known) = (Vec::new(), Vec::new());
        for (user, watched) in watching.iter_mut() {
            let list = if std::mem::take(&mut watched.is_new) { &mut new } else { &mut known };
            list.push(user.clone());
        }
        (new, known)
    }

    pub(super) fn watch(self: &Arc<Self>, user: &str, from: Place) -> Option<Watcher> {
        let place = Arc::clone(&self.places).try_acquire_owned().ok()?;
        let mut watching = self.watching.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || Watched { seen: watch::Sender::new(from), streams: 0, is_new: true };
        let watched = watching.entry(user.to_owned()).or_insert_with(new);
        if watched.streams == MOST_OF_ONE {
            return None;
        }
        watched.streams += 1;
        let seen = watched.seen.subscribe();
        drop(watching);
        self.someone.notify_one();
        Some(Watcher { live: Arc::clone(self), user: user.to_owned(), seen, _place: place })
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let mut watching = self.live.watching.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(watched) = watching.get_mut(&self.user) {
            watched.streams -= 1;
            if watched.streams == 0 {
                watching.remove(&self.user);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_user_has_so_many_streams_and_places_come_back() {
        let live = Arc::new(Live::default());
        let at = Place { xid: 1, number: 0 };
        let streams: Vec<_> = (0..MOST_OF_ONE).map(|_| live.watch("ann", at).unwrap()).collect();
        assert!(live.watch("ann", at).is_none());
        assert!(live.watch("bob", at).is_some());
        assert_eq!(live.users(), (vec!["ann".to_owned()], vec![]));
        assert_eq!(live.users(), (vec![], vec!["ann".to_owned()]));
        drop(streams);
        assert_eq!(live.users(), (vec![], vec![]));
        let _stream = live.watch("ann", at).unwrap();
        assert_eq!(live.users(), (vec!["ann".to_owned()], vec![]), "who comes back is new");
    }
}
