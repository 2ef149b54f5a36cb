//! The stream and its consumer: what they have to be, making them, and telling how what is there differs.
//!
//! Made once, by an operator's command; never changed silently. A recorder that finds something else refuses to start: a
//! stream that drops its oldest events, or a consumer that gives up on some, would lose the record without a word.

mod buckets;
mod choices;
mod consumer;
mod error;
pub mod status;
mod stream;

use async_nats::jetstream::Context;
use async_nats::jetstream::consumer::PullConsumer;
use shared::stream::CONSUMER;

use consumer::{consumer_config, verify_consumer};
use error::unavailable;
use stream::{stream_config, verified_stream};

pub use choices::{Choices, Created};
pub use error::SetupError;

/// Makes the stream and its consumer where they are missing.
pub async fn create(jetstream: &Context, choices: Choices) -> Result<Created, SetupError> {
    let stream = match verified_stream(jetstream, choices).await {
        Ok(stream) => stream,
        Err(SetupError::Missing(_)) => {
            jetstream.create_stream(stream_config(choices)).await.map_err(|error| unavailable(&error))?;
            verified_stream(jetstream, choices).await?
        }
        Err(error) => return Err(error),
    };
    let made_buckets = buckets::create(jetstream, choices, stream.cached_info().config.max_age).await?;
    match verify_consumer(&stream).await {
        Ok(()) => Ok(made_buckets),
        Err(SetupError::Missing(_)) => {
            stream.create_consumer_strict(consumer_config()).await.map_err(|error| unavailable(&error))?;
            verify_consumer(&stream).await?;
            Ok(Created::New)
        }
        Err(error) => Err(error),
    }
}

/// The consumer, if it and the stream are what they have to be.
pub async fn consumer(jetstream: &Context) -> Result<PullConsumer, SetupError> {
    let stream = verified_stream(jetstream, Choices::default()).await?;
    verify_consumer(&stream).await?;
    buckets::verify_needed(jetstream, stream.cached_info().config.max_age).await?;
    stream.get_consumer(CONSUMER).await.map_err(|error| unavailable(&*error))
}
