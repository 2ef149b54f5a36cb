//! Where the stream and its consumer stand: what the watchdog compares with what it remembers.

use async_nats::jetstream::Context;
use async_nats::jetstream::stream::RawMessageErrorKind;
use shared::stream::CONSUMER;
use time::OffsetDateTime;

use super::choices::Choices;
use super::consumer::{consumer_config, verify_consumer};
use super::error::{SetupError, unavailable};
use super::stream::verified_stream;

/// Where they stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// When the stream was made, in nanoseconds since 1970.
    pub created: i64,
    /// The first sequence in the stream.
    pub first: u64,
    /// The last sequence that the stream gave out.
    pub last: u64,
    /// What the consumer believes to have delivered.
    pub delivered: u64,
    /// Up to where every event is acknowledged.
    pub acknowledged: u64,
    /// When the event at that place was taken in; none if there is none.
    pub at_acknowledged: Option<i64>,
    /// The same of the place that was asked for.
    pub at_mark: Option<i64>,
}

/// Looks. `mark` is a place of which to tell when its event was taken in.
pub async fn standing(jetstream: &Context, mark: Option<u64>) -> Result<Standing, SetupError> {
    let stream = verified_stream(jetstream, Choices::default()).await?;
    verify_consumer(&stream).await?;
    // The consumer first: the stream, which is asked later, can only be further on.
    let consumer = stream.consumer_info(CONSUMER).await.map_err(|error| unavailable(&error))?;
    let info = stream.get_info().await.map_err(|error| unavailable(&error))?;
    let taken_in = async |sequence: u64| {
        if sequence == 0 {
            return Ok(None);
        }
        match stream.get_raw_message(sequence).await {
            Ok(message) => Ok(Some(nanoseconds(message.time))),
            Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => Ok(None),
            Err(error) => Err(unavailable(&error)),
        }
    };
    Ok(Standing {
        created: nanoseconds(info.created),
        first: info.state.first_sequence,
        last: info.state.last_sequence,
        delivered: consumer.delivered.stream_sequence,
        acknowledged: consumer.ack_floor.stream_sequence,
        at_acknowledged: taken_in(consumer.ack_floor.stream_sequence).await?,
        at_mark: match mark {
            Some(sequence) => taken_in(sequence).await?,
            None => None,
        },
    })
}

/// Makes the consumer anew: from then on it delivers every event there is.
pub async fn renew_consumer(jetstream: &Context) -> Result<(), SetupError> {
    let stream = verified_stream(jetstream, Choices::default()).await?;
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
