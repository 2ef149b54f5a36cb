//! Whether the broker still has what it acknowledged.
//!
//! A broker acknowledges before its disk has synced. After a power cut it may be back with less than it had, and its sequence
//! numbers begin where they did before. So it is asked for the newest event that it acknowledged to us, by sequence, and
//! whether that is the one.

use async_nats::jetstream;
use async_nats::jetstream::stream::RawMessageErrorKind;
use tokio::task::JoinHandle;

use crate::journal::{AcknowledgedEvent, Cursor};

/// What the broker is found to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StreamCheck {
    /// It has what it had. When its stream was made, in nanoseconds since 1970.
    Intact { stream_created: i64 },
    /// It has not.
    EventsLost { stream_created: i64 },
}

/// A broker that went back, and what it is told again.
pub(super) struct Republication {
    /// Where released events are read; none when all have been.
    pub(super) cursor: Option<Cursor>,
    /// When its stream was made.
    pub(super) stream_created: i64,
    /// The last event that it has acknowledged since.
    pub(super) last_acknowledged: Option<AcknowledgedEvent>,
}

/// What the broker was found to be, when it is known.
pub(super) async fn stream_check_result(
    check: &mut Option<JoinHandle<Option<StreamCheck>>>,
) -> Option<Option<StreamCheck>> {
    let result = check.as_mut()?.await;
    *check = None;
    Some(result.ok().flatten())
}

/// Looks. `None` if the broker does not say.
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
        // It has grown too old, and so has everything before it.
        return intact;
    }
    match stream.get_raw_message(last_acknowledged.sequence).await {
        Ok(message) => {
            let id = message.headers.get(shared::envelope::ID).and_then(|id| id.as_str().parse::<uuid::Uuid>().ok());
            if id == Some(last_acknowledged.event_id) { intact } else { events_lost }
        }
        Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => events_lost,
        Err(_) => None,
    }
}
