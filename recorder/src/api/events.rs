//! `/api/events`: what changes in the caller's record, as it is projected.
//!
//! One task asks the database a few times a second which of the users who watch have changes, and only while anyone
//! watches. A stream that is woken reads its own user's changes from where it was. So a slow client holds nothing up, any
//! number of recorders may write and any number of these processes read, and a stream can be resumed at another process.

use std::collections::{BTreeSet, HashMap};
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::State;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::Stream;
use futures_util::stream::{StreamExt as _, iter, unfold};
use http::HeaderMap;
use serde::Serialize;
use sqlx::postgres::PgPool;
use time::OffsetDateTime;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{sleep, timeout_at};
use uuid::Uuid;

use super::Api;
use super::caller::Caller;
use super::error::ApiError;
use super::shapes::{Conversation, DayOfUsage, UsageCounts};
use crate::reads::live::{self, Change, KEPT, Place};
use crate::reads::{conversations, usage};

/// Streams at once: of all users, and of one.
const MOST_STREAMS: usize = 1000;
const MOST_OF_ONE: usize = 8;
/// How often changes are looked for.
const BETWEEN: Duration = Duration::from_millis(200);
/// How long to wait when the database cannot say.
const PAUSE: Duration = Duration::from_secs(2);
/// A client, or a proxy before it, that hears nothing for long takes the connection for dead.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// How many changes are read at once.
const AT_ONCE: i64 = 500;

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
struct Watcher {
    live: Arc<Live>,
    user: String,
    seen: watch::Receiver<Place>,
    _place: OwnedSemaphorePermit,
}

/// A stream.
struct Watching {
    watcher: Watcher,
    pool: PgPool,
    at: Place,
    until: tokio::time::Instant,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ChatChanged {
    id: Uuid,
    conversation_id: Uuid,
    status: String,
}

#[derive(Serialize)]
struct Deleted {
    id: Uuid,
    deleted: bool,
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

    fn watch(self: &Arc<Self>, user: &str, from: Place) -> Option<Watcher> {
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

/// The caller's record as it changes.
#[utoipa::path(get, path = "/api/events", tag = "live",
    params(("Last-Event-ID" = Option<String>, Header, description = "The id of the last event that was seen")),
    responses((status = 200, description = "Events: chat, conversation, usage and reset", content_type = "text/event-stream", body = String)))]
pub(super) async fn stream(
    State(api): State<Arc<Api>>,
    caller: Caller,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, ApiError> {
    let horizon = live::horizon(&api.pool).await?;
    let last = headers.get("last-event-id").and_then(|id| id.to_str().ok());
    let resumed = last.and_then(|id| resume(id, OffsetDateTime::now_utc())).filter(|place| *place <= horizon);
    let at = resumed.unwrap_or(horizon);
    let watcher = api.live.watch(caller.id.as_str(), at).ok_or_else(ApiError::too_many_streams)?;
    let left = u64::try_from(caller.expires - OffsetDateTime::now_utc().unix_timestamp()).unwrap_or(0);
    let until = tokio::time::Instant::now() + Duration::from_secs(left);
    let watching = Watching { watcher, pool: api.pool.clone(), at, until };
    // Whoever comes without a place, or with one that is too old, does not know what it missed.
    let first = if resumed.is_some() {
        Event::default().comment("resumed")
    } else {
        Event::default().event("reset").id(id_of(at)).data("{}")
    };
    let changes = unfold(watching, |mut watching| async move {
        let events = watching.next().await?;
        Some((iter(events), watching))
    });
    let events = iter([first]).chain(changes.flatten()).map(Ok);
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE).text("keep-alive")))
}

impl Watching {
    /// The next events, when there are any. None: the token has expired, or the database is away, and the client has to come
    /// again.
    async fn next(&mut self) -> Option<Vec<Event>> {
        loop {
            let seen = *self.watcher.seen.borrow_and_update();
            if seen > self.at {
                match self.read(seen).await {
                    Ok(events) if events.is_empty() => {}
                    Ok(events) => return Some(events),
                    Err(error) => {
                        tracing::warn!(error = crate::store::describe(&error), "a live stream ends");
                        return None;
                    }
                }
                continue;
            }
            timeout_at(self.until, self.watcher.seen.changed()).await.ok()?.ok()?;
        }
    }

    async fn read(&mut self, seen: Place) -> Result<Vec<Event>, sqlx::Error> {
        let user = self.watcher.user.as_str();
        let changes = live::between(&self.pool, user, (self.at, seen), AT_ONCE).await?;
        let is_all = changes.len() < usize::try_from(AT_ONCE).unwrap_or(0);
        let Some(last) = changes.last() else {
            self.at = seen;
            return Ok(Vec::new());
        };
        let at = if is_all { seen } else { last.place };
        let events = events(&self.pool, user, &changes, &id_of(at)).await?;
        self.at = at;
        Ok(events)
    }
}

/// What a client is told of these changes: each thing once, as it is now.
async fn events(pool: &PgPool, user: &str, changes: &[Change], id: &str) -> Result<Vec<Event>, sqlx::Error> {
    let mut events = Vec::new();
    for change in changes {
        if let Some((chat, status)) = &change.chat {
            let data = ChatChanged { id: *chat, conversation_id: change.conversation_id, status: status.clone() };
            events.push(event("chat", &data));
        }
    }
    let ids: BTreeSet<Uuid> = changes.iter().map(|change| change.conversation_id).collect();
    let ids: Vec<Uuid> = ids.into_iter().collect();
    let mut rows = conversations::by_ids(pool, &ids).await?;
    rows.retain(|row| row.user_id == user);
    for id in ids {
        match rows.iter().position(|row| row.conversation_id == id) {
            Some(at) => events.push(event("conversation", &Conversation::from(rows.swap_remove(at)))),
            None => events.push(event("conversation", &Deleted { id, deleted: true })),
        }
    }
    let days: BTreeSet<time::Date> = changes.iter().map(|change| change.day).collect();
    if let Some(first) = days.first() {
        for (date, counts) in usage::days(pool, user, *first).await?.into_iter().filter(|(day, _)| days.contains(day)) {
            let data = DayOfUsage { date: date.to_string(), counts: UsageCounts::from(counts) };
            events.push(event("usage", &data));
        }
    }
    // The last one alone carries the place: a client that is cut off before it gets all of them again.
    if let Some(last) = events.pop() {
        events.push(last.id(id));
    }
    Ok(events)
}

fn event(name: &str, data: &impl Serialize) -> Event {
    Event::default().event(name).json_data(data).unwrap_or_default()
}

/// A place as clients see it, and since when it has been one.
fn id_of(place: Place) -> String {
    format!("{}-{}-{}", place.xid, place.number, OffsetDateTime::now_utc().unix_timestamp())
}

/// The place in an id, if what came after it is still there.
fn resume(id: &str, now: OffsetDateTime) -> Option<Place> {
    let mut parts = id.splitn(3, '-').map(str::parse::<i64>);
    let (xid, number, at) = (parts.next()?.ok()?, parts.next()?.ok()?, parts.next()?.ok()?);
    let age = now.unix_timestamp().checked_sub(at)?;
    let is_kept = (-60..KEPT.whole_seconds()).contains(&age) && xid >= 0;
    is_kept.then_some(Place { xid, number: i32::try_from(number).ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_resumed_while_what_came_after_is_kept() {
        let now = OffsetDateTime::now_utc();
        let place = Place { xid: 7, number: 3 };
        assert_eq!(resume(&id_of(place), now), Some(place));
        assert_eq!(resume(&id_of(place), now + KEPT + time::Duration::seconds(1)), None);
        for id in ["", "7", "7-3", "-7-3-1", "x-y-z", "9999999999999999999-1-1"] {
            assert_eq!(resume(id, now), None, "{id}");
        }
    }

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
