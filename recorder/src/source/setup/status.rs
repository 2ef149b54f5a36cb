//! The status of the stream and the consumer, compared by the consumer watchdog with the saved mark.

use async_nats::jetstream::Context;
use async_nats::jetstream::stream::RawMessageErrorKind;
use shared::stream::CONSUMER;
use time::OffsetDateTime;

use super::consumer::{consumer_config, verify_consumer};
use super::error::{SetupError, unavailable};
use super::options::StreamOptions;
use super::stream::verified_stream;

/// The positions of the stream and the consumer at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamStatus {
    /// The creation time of the stream, in nanoseconds since 1970.
    pub created_ns: i64,
    /// The first sequence remaining in the stream.
    pub first_sequence: u64,
    /// The last sequence given out by the stream.
    pub last_sequence: u64,
    /// The last sequence delivered, according to the consumer's own state.
    pub delivered_sequence: u64,
    /// The sequence up to which every event is acknowledged.
    pub acknowledged_sequence: u64,
    /// The time at which the broker stored the event with the acknowledged sequence, in nanoseconds since 1970; `None`
    /// if there is no such event.
    pub acknowledged_stored_ns: Option<i64>,
    /// The time at which the broker stored the event with the marked sequence; `None` if there is no such event or no
    /// mark.
    pub mark_stored_ns: Option<i64>,
}

/// Reads the status. `mark` is the sequence of the saved mark, if any. The stream and the consumer must have the
/// expected configuration.
pub async fn stream_status(jetstream: &Context, mark: Option<u64>) -> Result<StreamStatus, SetupError> {
    let stream = verified_stream(jetstream, StreamOptions::default()).await?;
    verify_consumer(&stream).await?;
    // The consumer is read before the stream: events may arrive in between, so the stream can only be further ahead.
    let consumer = stream.consumer_info(CONSUMER).await.map_err(|error| unavailable(&error))?;
    let info = stream.get_info().await.map_err(|error| unavailable(&error))?;
    let stored_at = async |sequence: u64| {
        if sequence == 0 {
            return Ok(None);
        }
        match stream.get_raw_message(sequence).await {
            Ok(message) => Ok(Some(nanoseconds(message.time))),
            Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => Ok(None),
            Err(error) => Err(unavailable(&error)),
        }
    };
    Ok(StreamStatus {
        created_ns: nanoseconds(info.created),
        first_sequence: info.state.first_sequence,
        last_sequence: info.state.last_sequence,
        delivered_sequence: consumer.delivered.stream_sequence,
        acknowledged_sequence: consumer.ack_floor.stream_sequence,
        acknowledged_stored_ns: stored_at(consumer.ack_floor.stream_sequence).await?,
        mark_stored_ns: match mark {
            Some(sequence) => stored_at(sequence).await?,
            None => None,
        },
    })
}

/// Deletes the consumer if present and creates a new one, which delivers every event of the stream from the beginning.
pub async fn recreate_consumer(jetstream: &Context) -> Result<(), SetupError> {
    let stream = verified_stream(jetstream, StreamOptions::default()).await?;
    match verify_consumer(&stream).await {
        Ok(()) => {
            stream.delete_consumer(CONSUMER).await.map_err(|error| unavailable(&error))?;
        }
        Err(SetupError::Missing(_)) => {}
        Err(error) => return Err(error),
    }
    stream.create_consumer_strict(consumer_config()).await.map_err(|error| unavailable(&error))?;
    verify_consumer(&stream).await
}

fn nanoseconds(at: OffsetDateTime) -> i64 {
    i64::try_from(at.unix_timestamp_nanos()).unwrap_or(i64::MAX)
}
