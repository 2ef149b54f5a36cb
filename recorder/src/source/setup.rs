//! Setup of the stream, its consumer and the buckets: expected configuration, creation, and comparison with the
//! existing configuration.
//!
//! `recorder stream create` creates the objects once; no code changes an existing object silently. A recorder refuses
//! to start on a different configuration: a stream that drops its oldest events, or a consumer that gives up on events,
//! would lose records without any error.

mod buckets;
mod consumer;
mod error;
mod options;
pub mod status;
mod stream;

use async_nats::jetstream::Context;
use async_nats::jetstream::consumer::PullConsumer;
use shared::stream::CONSUMER;

use consumer::{consumer_config, verify_consumer};
use error::unavailable;
use stream::{stream_config, verified_stream};

pub use error::SetupError;
pub use options::{SetupOutcome, StreamOptions};
pub use stream::RetentionLimits;

/// Creates the stream, the buckets and the consumer if missing, and compares existing ones with the expected
/// configuration.
pub async fn create(jetstream: &Context, options: StreamOptions) -> Result<SetupOutcome, SetupError> {
    let stream = match verified_stream(jetstream, options).await {
        Ok(stream) => stream,
        Err(SetupError::Missing(_)) => {
            jetstream.create_stream(stream_config(options)).await.map_err(|error| unavailable(&error))?;
            verified_stream(jetstream, options).await?
        }
        Err(error) => return Err(error),
    };
    let bucket_outcome = buckets::create(jetstream, options, stream.cached_info().config.max_age).await?;
    match verify_consumer(&stream).await {
        Ok(()) => Ok(bucket_outcome),
        Err(SetupError::Missing(_)) => {
            stream.create_consumer_strict(consumer_config()).await.map_err(|error| unavailable(&error))?;
            verify_consumer(&stream).await?;
            Ok(SetupOutcome::Created)
        }
        Err(error) => Err(error),
    }
}

/// Compares the stream, its consumer and all buckets with the expected configuration, and changes nothing.
pub async fn verify_all(jetstream: &Context) -> Result<(), SetupError> {
    let stream = verified_stream(jetstream, StreamOptions::default()).await?;
    verify_consumer(&stream).await?;
    buckets::verify_all(jetstream, stream.cached_info().config.max_age).await
}

/// Returns the limits by which the stream drops events, after comparing the consumer, the stream and the required buckets with the
/// expected configuration.
pub async fn verified_limits(jetstream: &Context) -> Result<RetentionLimits, SetupError> {
    let stream = verified_stream(jetstream, StreamOptions::default()).await?;
    verify_consumer(&stream).await?;
    buckets::verify_required(jetstream, stream.cached_info().config.max_age).await?;
    Ok(RetentionLimits::of(&stream.cached_info().config))
}

/// Returns the consumer, after comparing the consumer, the stream and the required buckets with the expected
/// configuration.
pub async fn verified_consumer(jetstream: &Context) -> Result<PullConsumer, SetupError> {
    let stream = verified_stream(jetstream, StreamOptions::default()).await?;
    verify_consumer(&stream).await?;
    buckets::verify_required(jetstream, stream.cached_info().config.max_age).await?;
    stream.get_consumer(CONSUMER).await.map_err(|error| unavailable(&*error))
}
