//! Whether the broker still has what it acknowledged.
//!
//! A broker acknowledges before its disk has synced. After a power cut it may be back with less than it had, and its sequence
//! numbers begin where they did before. So it is asked for the newest event that it acknowledged to us, by sequence, and
//! whether that is the one.

use async_nats::jetstream;
use async_nats::jetstream::stream::RawMessageErrorKind;
use tokio::task::JoinHandle;

use crate::journal::{Acknowledged, Cursor};

/// What the broker is found to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Finding {
    /// It has what it had. When its stream was made, in nanoseconds since 1970.
    Whole { stream_created: i64 },
    /// It has not.
    WentBack { stream_created: i64 },
}

/// A broker that went back, and what it is told again.
pub(super) struct Again {
    /// Where released events are read; none when all have been.
    pub(super) cursor: Option<Cursor>,
    /// When its stream was made.
    pub(super) stream_created: i64,
    /// The last event that it has acknowledged since.
    pub(super) newest: Option<Acknowledged>,
}

/// What the broker was found to be, when it is known.
pub(super) async fn found(looking: &mut Option<JoinHandle<Option<Finding>>>) -> Option<Option<Finding>> {
    let found = looking.as_mut()?.await;
    *looking = None;
    Some(found.ok().flatten())
}

/// Looks. `None` if the broker does not say.
pub(super) async fn look(
    client: &async_nats::Client,
    newest: Option<Acknowledged>,
    known_created: Option<i64>,
) -> Option<Finding> {
    let jetstream = jetstream::new(client.clone());
    let stream = jetstream.get_stream(shared::stream::NAME).await.ok()?;
    let info = stream.cached_info();
    let stream_created = i64::try_from(info.created.unix_timestamp_nanos()).ok()?;
    let went_back = Some(Finding::WentBack { stream_created });
    let whole = Some(Finding::Whole { stream_created });
    if known_created.is_some_and(|known| known != stream_created) {
        return went_back;
    }
    let Some(newest) = newest else { return whole };
    if info.state.last_sequence < newest.sequence {
        return went_back;
    }
    if info.state.first_sequence > newest.sequence {
        // It has grown too old, and so has everything before it.
        return whole;
    }
    match stream.get_raw_message(newest.sequence).await {
        Ok(message) => {
            let id = message.headers.get(shared::envelope::ID).and_then(|id| id.as_str().parse::<uuid::Uuid>().ok());
            if id == Some(newest.event) { whole } else { went_back }
        }
        Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => went_back,
        Err(_) => None,
    }
}
