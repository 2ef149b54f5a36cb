//! The check that the broker still has the events that it acknowledged.
//!
//! A broker acknowledges an event before syncing its disk. After a power cut, the broker may have lost acknowledged
//! events, and gives their sequence numbers to new events. Therefore the relay asks for the newest acknowledged event
//! by sequence number, and compares the event's id. A recorder answers the question, because a gateway's permissions on
//! the broker need not include reading the stream; without a recorder, the relay asks the broker itself.

use std::time::Duration;

use async_nats::jetstream;
use async_nats::jetstream::stream::{RawMessageErrorKind, Stream};
use shared::stream_check::{SUBJECT, StreamCheckRequest, StreamCheckResponse};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::journal::{AcknowledgedEvent, Cursor};

/// The maximum time to wait for a recorder's answer.
const RECORDER_TIMEOUT: Duration = Duration::from_secs(2);

/// The state of the broker's stream, as found by a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StreamCheck {
    /// The stream holds the acknowledged events. `stream_created` is the time of the stream's creation, in nanoseconds
    /// since 1970.
    Intact { stream_created: i64 },
    /// The stream was created anew, or lacks the newest acknowledged event.
    EventsLost { stream_created: i64 },
}

/// The republication of released events to a broker that has lost acknowledged events.
pub(super) struct Republication {
    /// The read position in the log; `None` when all released events have been read.
    pub(super) cursor: Option<Cursor>,
    /// The time of the stream's creation, in nanoseconds since 1970.
    pub(super) stream_created: i64,
    /// The newest event acknowledged since the republication began.
    pub(super) last_acknowledged: Option<AcknowledgedEvent>,
}

/// Waits for the result of a check. The outer `None` means that no check is in progress, the inner `None` that the
/// broker gave no answer.
pub(super) async fn stream_check_result(
    check: &mut Option<JoinHandle<Option<StreamCheck>>>,
) -> Option<Option<StreamCheck>> {
    let result = check.as_mut()?.await;
    *check = None;
    Some(result.ok().flatten())
}

/// Compares the stream with the newest acknowledged event. Returns `None` if the broker gives no answer.
pub(super) async fn check_stream(
    client: &async_nats::Client,
    last_acknowledged: Option<AcknowledgedEvent>,
    expected_stream_created: Option<i64>,
) -> Option<StreamCheck> {
    let jetstream = jetstream::new(client.clone());
    let stream = jetstream.get_stream(shared::stream::NAME).await.ok()?;
    let info = stream.cached_info();
    let stream_created = i64::try_from(info.created.unix_timestamp_nanos()).ok()?;
    let events_lost = Some(StreamCheck::EventsLost { stream_created });
    let intact = Some(StreamCheck::Intact { stream_created });
    if expected_stream_created.is_some_and(|known| known != stream_created) {
        return events_lost;
    }
    let Some(last_acknowledged) = last_acknowledged else { return intact };
    if info.state.last_sequence < last_acknowledged.sequence {
        return events_lost;
    }
    if info.state.first_sequence > last_acknowledged.sequence {
        // The event has expired from the stream, together with all earlier events.
        return intact;
    }
    let question = StreamCheckRequest { sequence: last_acknowledged.sequence, event_id: last_acknowledged.event_id };
    let answer = match ask_recorder(client, question).await {
        StreamCheckResponse::Unknown => ask_broker(&stream, question).await,
        answer => answer,
    };
    match answer {
        StreamCheckResponse::Held => intact,
        StreamCheckResponse::Lost => events_lost,
        StreamCheckResponse::Unknown => None,
    }
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
