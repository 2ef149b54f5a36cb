//! `/api/events`: the changes in the caller's record, as server-sent events, after projection.
//!
//! A single task asks the database a few times a second for users with changes, and only while streams are open: see
//! `LiveSubscriptions`. The task wakes the streams of such users, and each stream reads the changes of the user after
//! the stream's own position. Therefore a slow client delays no other client, any number of recorders may write, any
//! number of API processes may read, and a client may resume a stream at another process.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::Stream;
use futures_util::stream::{StreamExt as _, iter, unfold};
use http::HeaderMap;
use serde::Serialize;
use sqlx::postgres::PgPool;
use time::OffsetDateTime;
use tokio::time::timeout_at;
use uuid::Uuid;

use super::caller::Caller;
use super::error::ApiError;
use super::live::Subscription;
use super::state::ApiState;
use super::views::conversation::Conversation;
use super::views::usage::{DayOfUsage, UsageCounts};
use crate::reads::live::{self, LiveChange, LivePosition, RETENTION};
use crate::reads::{Deleted, conversations, usage};

/// The interval of comments on an idle stream. A client or a proxy takes a connection without any data for broken.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// The maximum number of changes to read in one query.
const MAX_CHANGES_PER_READ: i64 = 500;

/// A live stream of a client.
struct EventStream {
    subscription: Subscription,
    pool: PgPool,
    /// The position up to which changes have been sent.
    at: LivePosition,
    /// The expiry of the caller's access token.
    until: tokio::time::Instant,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ChatChanged {
    id: Uuid,
    conversation_id: Option<Uuid>,
    status: String,
}

#[derive(Serialize)]
struct DeletedConversation {
    id: Uuid,
    deleted: bool,
}

/// The caller's record as it changes.
#[utoipa::path(get, path = "/api/events", tag = "live",
    params(("Last-Event-ID" = Option<String>, Header, description = "The id of the last event that was seen")),
    responses((status = 200, description = "Events: chat, conversation, usage and reset", content_type = "text/event-stream", body = String)))]
pub(super) async fn stream(
    State(api): State<Arc<ApiState>>,
    caller: Caller,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, ApiError> {
    let horizon = live::horizon(&api.pool).await?;
    let last = headers.get("last-event-id").and_then(|id| id.to_str().ok());
    let resumed =
        last.and_then(|id| parse_resumable_id(id, OffsetDateTime::now_utc())).filter(|position| *position <= horizon);
    let at = resumed.unwrap_or(horizon);
    let subscription =
        api.live.subscribe(caller.id.as_str(), caller.session, at).ok_or_else(ApiError::too_many_streams)?;
    let left = u64::try_from(caller.expires - OffsetDateTime::now_utc().unix_timestamp()).unwrap_or(0);
    let until = tokio::time::Instant::now() + Duration::from_secs(left);
    let stream = EventStream { subscription, pool: api.pool.clone(), at, until };
    // A client without a position, or with an expired position, cannot know the missed changes and has to read
    // everything again.
    let first = if resumed.is_some() {
        Event::default().comment("resumed")
    } else {
        Event::default().event("reset").id(event_id(at)).data("{}")
    };
    let changes = unfold(stream, |mut stream| async move {
        let events = stream.next().await?;
        Some((iter(events), stream))
    });
    let events = iter([first]).chain(changes.flatten()).map(Ok);
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE).text("keep-alive")))
}

impl EventStream {
    /// Waits for the next events. Returns `None` if the token has expired, the session has ended, the user is disabled or the
    /// database cannot be read: the stream ends, and the client has to connect again.
    async fn next(&mut self) -> Option<Vec<Event>> {
        loop {
            if self.subscription.is_over.is_cancelled() {
                return None;
            }
            let known_position = *self.subscription.known_position.borrow_and_update();
            if known_position > self.at {
                match self.read(known_position).await {
                    Ok(events) if events.is_empty() => {}
                    Ok(events) => return Some(events),
                    Err(error) => {
                        tracing::warn!(
                            error = crate::store::describe(&error),
                            "the changes for a live stream could not be read: the stream ends, and the client has to connect again"
                        );
                        return None;
                    }
                }
                continue;
            }
            tokio::select! {
                () = self.subscription.is_over.cancelled() => return None,
                changed = timeout_at(self.until, self.subscription.known_position.changed()) => changed.ok()?.ok()?,
            }
        }
    }

    async fn read(&mut self, known_position: LivePosition) -> Result<Vec<Event>, sqlx::Error> {
        let user = self.subscription.user.as_str();
        let changes = live::changes_between(&self.pool, user, (self.at, known_position), MAX_CHANGES_PER_READ).await?;
        let is_all = changes.len() < usize::try_from(MAX_CHANGES_PER_READ).unwrap_or(0);
        let Some(last) = changes.last() else {
            self.at = known_position;
            return Ok(Vec::new());
        };
        let at = if is_all { known_position } else { last.position };
        let events = events(&self.pool, user, &changes, &event_id(at)).await?;
        self.at = at;
        Ok(events)
    }
}

/// Returns the events for a list of changes: each change of a chat's status, and the current state of each changed
/// conversation and day.
async fn events(pool: &PgPool, user: &str, changes: &[LiveChange], id: &str) -> Result<Vec<Event>, sqlx::Error> {
    let mut events = Vec::new();
    let ids: BTreeSet<Uuid> = changes.iter().filter_map(|change| change.conversation_id).collect();
    let ids: Vec<Uuid> = ids.into_iter().collect();
    let mut rows = conversations::by_ids(pool, &ids, Deleted::Hidden).await?;
    rows.retain(|row| row.user_id == user);
    for change in changes {
        let is_deleted = change.conversation_id.is_some_and(|id| rows.iter().all(|row| row.conversation_id != id));
        if let Some((chat, status)) = change.chat.as_ref().filter(|_| !is_deleted) {
            let data = ChatChanged { id: *chat, conversation_id: change.conversation_id, status: status.clone() };
            events.push(event("chat", &data));
        }
    }
    for id in ids {
        match rows.iter().position(|row| row.conversation_id == id) {
            Some(at) => events.push(event("conversation", &Conversation::from(rows.swap_remove(at)))),
            None => events.push(event("conversation", &DeletedConversation { id, deleted: true })),
        }
    }
    let days: BTreeSet<time::Date> = changes.iter().map(|change| change.day).collect();
    if let Some(first) = days.first() {
        for (date, counts) in usage::days(pool, user, *first).await?.into_iter().filter(|(day, _)| days.contains(day)) {
            let data = DayOfUsage { date: date.to_string(), counts: UsageCounts::from(counts) };
            events.push(event("usage", &data));
        }
    }
    // Only the last event carries the position. A client that disconnects before the last event gets all events again.
    if let Some(last) = events.pop() {
        events.push(last.id(id));
    }
    Ok(events)
}

fn event(name: &str, data: &impl Serialize) -> Event {
    Event::default().event(name).json_data(data).unwrap_or_default()
}

/// Returns the id of an event: a position, and the current time, from which [`parse_resumable_id`] computes the age.
fn event_id(position: LivePosition) -> String {
    format!("{}-{}-{}", position.xid, position.number, OffsetDateTime::now_utc().unix_timestamp())
}

/// Returns the position in an id. Returns `None` for a malformed id, and for an id older than the retention of changes,
/// because changes after the position may be deleted.
fn parse_resumable_id(id: &str, now: OffsetDateTime) -> Option<LivePosition> {
    let mut parts = id.splitn(3, '-').map(str::parse::<i64>);
    let (xid, number, at) = (parts.next()?.ok()?, parts.next()?.ok()?, parts.next()?.ok()?);
    let age = now.unix_timestamp().checked_sub(at)?;
    let is_kept = (-60..RETENTION.whole_seconds()).contains(&age) && xid >= 0;
    is_kept.then_some(LivePosition { xid, number: i32::try_from(number).ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_resumes_only_within_the_retention_of_changes() {
        let now = OffsetDateTime::now_utc();
        let position = LivePosition { xid: 7, number: 3 };
        assert_eq!(parse_resumable_id(&event_id(position), now), Some(position));
        assert_eq!(parse_resumable_id(&event_id(position), now + RETENTION + time::Duration::seconds(1)), None);
        for id in ["", "7", "7-3", "-7-3-1", "x-y-z", "9999999999999999999-1-1"] {
            assert_eq!(parse_resumable_id(id, now), None, "{id}");
        }
    }
}
