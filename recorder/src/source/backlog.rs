//! The events that no recorder has recorded yet, as the broker knows them at this moment.

use async_nats::jetstream::stream::LastRawMessageErrorKind;
use async_nats::{Client, jetstream};
use shared::stream::{CONSUMER, NAME, SUBJECTS};
use time::OffsetDateTime;

use super::setup::SetupError;

/// The events without an acknowledgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backlog {
    /// The number of events that were not delivered yet, or are in a recorder's hands.
    pub events: u64,
    /// The time at which the broker stored the oldest of them; `None` without such an event.
    pub oldest_at: Option<OffsetDateTime>,
}

/// Asks the broker. An error if the stream or the consumer is missing, or if the broker gives no answer.
pub async fn read(client: &Client) -> Result<Backlog, SetupError> {
    let unavailable = |error: &dyn std::fmt::Display| SetupError::Unavailable(error.to_string());
    let jetstream = jetstream::new(client.clone());
    let stream = jetstream.get_stream_no_info(NAME).await.map_err(|error| unavailable(&error))?;
    let info = stream.consumer_info(CONSUMER).await.map_err(|error| unavailable(&error))?;
    let events = info.num_pending + info.num_ack_pending as u64;
    if events == 0 {
        return Ok(Backlog { events, oldest_at: None });
    }
    // The acknowledgement floor is the end of the unbroken sequence of acknowledged events, so the next event that is still
    // in the stream has no acknowledgement.
    let oldest = stream.get_first_raw_message_by_subject(SUBJECTS, info.ack_floor.stream_sequence + 1).await;
    match oldest {
        Ok(message) => Ok(Backlog { events, oldest_at: Some(message.time) }),
        // The event was acknowledged meanwhile, or was removed from the stream.
        Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => {
            Ok(Backlog { events, oldest_at: None })
        }
        Err(error) => Err(unavailable(&error)),
    }
}
