//! The check that the broker still has the events that it acknowledged.
//!
//! A broker acknowledges an event before syncing its disk. After a power cut, the broker may have lost acknowledged
//! events, and gives their sequence numbers to new events. Therefore the relay asks for the newest acknowledged events
//! by sequence number, and compares their ids. A recorder answers the question, because a gateway's permissions on
//! the broker need not include reading the stream; without a recorder, the relay asks the broker itself.

use std::time::Duration;

use async_nats::jetstream;
use async_nats::jetstream::stream::{RawMessageErrorKind, Stream};
use shared::stream_check::{SUBJECT, StreamCheckRequest, StreamCheckResponse};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::disk_read::DiskRead;
use crate::journal::{AcknowledgedEvent, Cursor};

/// The maximum time to wait for a recorder's answer.
const RECORDER_TIMEOUT: Duration = Duration::from_secs(2);

/// A check that is in progress, or its result.
#[derive(Debug)]
pub(super) struct StreamCheck {
    /// The number of the connection on which the check runs. A result says nothing about later connections.
    pub(super) connection: u64,
    /// The acknowledged events that the check looks for.
    pub(super) asked: Vec<AcknowledgedEvent>,
    /// The state of the stream; `None` if the broker gave no answer.
    pub(super) found: Option<StreamState>,
}

/// The state of the broker's stream, as found by a check.
#[derive(Debug)]
pub(super) struct StreamState {
    /// The time of the stream's creation, in nanoseconds since 1970.
    pub(super) created: i64,
    /// True if this is the stream that the gateway knows.
    pub(super) is_known: bool,
    /// The events that the stream holds.
    pub(super) held: Vec<AcknowledgedEvent>,
}

/// The republication of released events to a broker that has lost acknowledged events.
pub(super) struct Republication {
    pub(super) read: RepublicationRead,
    /// The time of the stream's creation, in nanoseconds since 1970.
    pub(super) stream_created: i64,
}

/// The progress of reading the released events from the log.
#[derive(Default)]
pub(super) enum RepublicationRead {
    /// The position of the next read.
    At(Cursor),
    Reading(DiskRead),
    /// All released events have been read.
    #[default]
    Done,
}

impl RepublicationRead {
    /// Takes the position of the next read, unless a read is in progress.
    pub(super) fn take_cursor(&mut self) -> Option<Cursor> {
        match std::mem::take(self) {
            Self::At(cursor) => Some(cursor),
            other => {
                *self = other;
                None
            }
        }
    }
}

/// Returns the read of a republication that is in progress.
pub(super) fn republication_read(republication: &mut Option<Republication>) -> Option<&mut DiskRead> {
    if let RepublicationRead::Reading(read) = &mut republication.as_mut()?.read { Some(read) } else { None }
}

/// Waits for the result of a check. `None` means that no check is in progress.
pub(super) async fn stream_check_result(check: &mut Option<JoinHandle<StreamCheck>>) -> Option<StreamCheck> {
    let result = check.as_mut()?.await;
    *check = None;
    result.ok()
}

/// Looks for acknowledged events in the stream. Returns `None` if the broker gives no answer.
pub(super) async fn check_stream(
    client: &async_nats::Client,
    asked: &[AcknowledgedEvent],
    expected_stream_created: Option<i64>,
) -> Option<StreamState> {
    let jetstream = jetstream::new(client.clone());
    let stream = jetstream.get_stream(shared::stream::NAME).await.ok()?;
    let info = stream.cached_info();
    let created = i64::try_from(info.created.unix_timestamp_nanos()).ok()?;
    let mut state = StreamState { created, is_known: true, held: Vec::with_capacity(asked.len()) };
    if expected_stream_created.is_some_and(|known| known != created) {
        state.is_known = false;
        return Some(state);
    }
    let mut is_recorder_silent = false;
    for event in asked {
        if info.state.last_sequence < event.sequence {
            continue;
        }
        if info.state.first_sequence > event.sequence {
            // The event has expired from the stream, together with all earlier events.
            state.held.push(*event);
            continue;
        }
        let question = StreamCheckRequest { sequence: event.sequence, event_id: event.event_id };
        let mut answer = StreamCheckResponse::Unknown;
        if !is_recorder_silent {
            answer = ask_recorder(client, question).await;
        }
        if answer == StreamCheckResponse::Unknown {
            is_recorder_silent = true;
            answer = ask_broker(&stream, question).await;
        }
        match answer {
            StreamCheckResponse::Held => state.held.push(*event),
            StreamCheckResponse::Lost => {}
            StreamCheckResponse::Unknown => return None,
        }
    }
    Some(state)
}

async fn ask_recorder(client: &async_nats::Client, question: StreamCheckRequest) -> StreamCheckResponse {
    let Ok(request) = serde_json::to_vec(&question) else { return StreamCheckResponse::Unknown };
    match timeout(RECORDER_TIMEOUT, client.request(SUBJECT, request.into())).await {
        Ok(Ok(response)) => serde_json::from_slice(&response.payload).unwrap_or(StreamCheckResponse::Unknown),
        // No recorder is running, or the recorder is too busy.
        _ => StreamCheckResponse::Unknown,
    }
}

async fn ask_broker(stream: &Stream, question: StreamCheckRequest) -> StreamCheckResponse {
    match stream.get_raw_message(question.sequence).await {
        Ok(message) => {
            let id = message.headers.get(shared::envelope::ID).and_then(|id| id.as_str().parse::<uuid::Uuid>().ok());
            StreamCheckResponse::compare(question, id)
        }
        Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => {
            StreamCheckResponse::compare(question, None)
        }
        Err(_) => StreamCheckResponse::Unknown,
    }
}
