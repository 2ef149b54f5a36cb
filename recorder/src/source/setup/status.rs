//! Where the stream and its consumer stand: what the watchdog compares with what it remembers.

use async_nats::jetstream::Context;
use async_nats::jetstream::stream::RawMessageErrorKind;
use shared::stream::CONSUMER;
use time::OffsetDateTime;

use super::consumer::{consumer_config, verify_consumer};
use super::error::{SetupError, unavailable};
use super::options::StreamOptions;
use super::stream::verified_stream;

/// Where they stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamStatus {
    /// When the stream was made, in nanoseconds since 1970.
    pub created_ns: i64,
    /// The first sequence in the stream.
    pub first_sequence: u64,
    /// The last sequence that the stream gave out.
    pub last_sequence: u64,
    /// What the consumer believes to have delivered.
    pub delivered_sequence: u64,
    /// Up to where every event is acknowledged.
    pub acknowledged_sequence: u64,
    /// When the event at that place was taken in; none if there is none.
    pub acknowledged_stored_ns: Option<i64>,
    /// The same of the place that was asked for.
    pub mark_stored_ns: Option<i64>,
}

/// Looks. `mark` is a place of which to tell when its event was taken in.
pub async fn stream_status(jetstream: &Context, mark: Option<u64>) -> Result<StreamStatus, SetupError> {
    let stream = verified_stream(jetstream, StreamOptions::default()).await?;
    verify_consumer(&stream).await?;
    // The consumer first: the stream, which is asked later, can only be further on.
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

/// Makes the consumer anew: from then on it delivers every event there is.
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
