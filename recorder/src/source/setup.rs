//! The stream and its consumer: what they have to be, making them, and telling how what is there differs.
//!
//! Made once, by an operator's command; never changed silently. A recorder that finds something else refuses to start: a
//! stream that drops its oldest events, or a consumer that gives up on some, would lose the record without a word.

mod buckets;
pub mod standing;

use std::fmt::Debug;
use std::time::Duration;

use async_nats::jetstream::consumer::{self, AckPolicy, DeliverPolicy, pull};
use async_nats::jetstream::context::{ConsumerInfoErrorKind, GetStreamErrorKind};
use async_nats::jetstream::stream::{self, Compression, DiscardPolicy, RetentionPolicy, StorageType};
use async_nats::jetstream::{Context, ErrorCode};
use shared::stream::{ACK_WAIT, CONSUMER, DUPLICATE_WINDOW, MAX_ACK_PENDING, NAME, SUBJECTS};

/// What an operator may choose; what is left out is not compared with what is there.
#[derive(Clone, Copy, Debug, Default)]
pub struct Choices {
    /// Copies of the stream in a cluster. 1 unless chosen.
    pub replicas: Option<usize>,
    /// How large the stream may grow. Without limit unless chosen.
    pub max_bytes: Option<i64>,
    /// How long events are kept. For ever unless chosen.
    pub max_age: Option<Duration>,
    /// How long a gateway's lease lives unless it is renewed. [`shared::lease::LIFETIME`] unless chosen.
    pub lease_lifetime: Option<Duration>,
}

/// What making the stream came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Created {
    /// It was made.
    New,
    /// It was there, and as it should be.
    Already,
}

/// Why the stream or the consumer cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// One of them is not there.
    #[error("{0} does not exist: expected one made by `recorder stream create`")]
    Missing(&'static str),
    /// One of them is something else.
    #[error("{what} differs: {}", differences.join("; "))]
    Differs {
        /// Which.
        what: &'static str,
        /// Each difference, in words.
        differences: Vec<String>,
    },
    /// The broker did not answer, or not yet.
    #[error("the broker is not available: {0}")]
    Unavailable(String),
}

const THE_STREAM: &str = "stream CHATS";
const THE_CONSUMER: &str = "consumer recorder of stream CHATS";

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
pub async fn consumer(jetstream: &Context) -> Result<consumer::PullConsumer, SetupError> {
    let stream = verified_stream(jetstream, Choices::default()).await?;
    verify_consumer(&stream).await?;
    buckets::verify_needed(jetstream, stream.cached_info().config.max_age).await?;
    stream.get_consumer(CONSUMER).await.map_err(|error| unavailable(&*error))
}

fn stream_config(choices: Choices) -> stream::Config {
    stream::Config {
        name: NAME.to_owned(),
        description: Some("Every chat, as events.".to_owned()),
        subjects: vec![SUBJECTS.to_owned()],
        storage: StorageType::File,
        retention: RetentionPolicy::Limits,
        discard: DiscardPolicy::New,
        duplicate_window: DUPLICATE_WINDOW,
        compression: Some(Compression::S2),
        num_replicas: choices.replicas.unwrap_or(1),
        max_bytes: choices.max_bytes.unwrap_or(-1),
        max_age: choices.max_age.unwrap_or_default(),
        max_message_size: -1,
        max_messages: -1,
        max_messages_per_subject: -1,
        max_consumers: -1,
        ..stream::Config::default()
    }
}

fn consumer_config() -> pull::Config {
    pull::Config {
        durable_name: Some(CONSUMER.to_owned()),
        description: Some("All recorders together.".to_owned()),
        deliver_policy: DeliverPolicy::All,
        ack_policy: AckPolicy::Explicit,
        ack_wait: ACK_WAIT,
        max_deliver: -1,
        max_ack_pending: MAX_ACK_PENDING,
        ..pull::Config::default()
    }
}

async fn verified_stream(jetstream: &Context, choices: Choices) -> Result<stream::Stream, SetupError> {
    let stream = find_stream(jetstream, NAME, THE_STREAM).await?;
    match stream_differences(&stream.cached_info().config, choices) {
        none if none.is_empty() => Ok(stream),
        differences => Err(SetupError::Differs { what: THE_STREAM, differences }),
    }
}

async fn find_stream(jetstream: &Context, name: &str, what: &'static str) -> Result<stream::Stream, SetupError> {
    jetstream.get_stream(name).await.map_err(|error| match error.kind() {
        GetStreamErrorKind::JetStream(reply) if reply.error_code() == ErrorCode::STREAM_NOT_FOUND => {
            SetupError::Missing(what)
        }
        _ => unavailable(&error),
    })
}

async fn verify_consumer(stream: &stream::Stream) -> Result<(), SetupError> {
    let info = stream.consumer_info(CONSUMER).await.map_err(|error| match error.kind() {
        ConsumerInfoErrorKind::NotFound => SetupError::Missing(THE_CONSUMER),
        ConsumerInfoErrorKind::JetStream(reply) if reply.error_code() == ErrorCode::CONSUMER_NOT_FOUND => {
            SetupError::Missing(THE_CONSUMER)
        }
        _ => unavailable(&error),
    })?;
    match consumer_differences(&info.config) {
        none if none.is_empty() => Ok(()),
        differences => Err(SetupError::Differs { what: THE_CONSUMER, differences }),
    }
}

fn stream_differences(found: &stream::Config, choices: Choices) -> Vec<String> {
    let expected = stream_config(choices);
    let mut list = Differences::default();
    list.compare("subjects", &expected.subjects, &found.subjects);
    list.compare("storage", &expected.storage, &found.storage);
    list.compare("retention", &expected.retention, &found.retention);
    list.compare("discard", &expected.discard, &found.discard);
    list.compare("duplicate window", &expected.duplicate_window, &found.duplicate_window);
    list.compare("compression", &expected.compression, &found.compression);
    list.compare("max_msg_size", &expected.max_message_size, &found.max_message_size);
    list.compare("max_msgs", &expected.max_messages, &found.max_messages);
    list.compare("max_msgs_per_subject", &expected.max_messages_per_subject, &found.max_messages_per_subject);
    list.compare("no_ack", &expected.no_ack, &found.no_ack);
    if choices.replicas.is_some() {
        list.compare("replicas", &expected.num_replicas, &found.num_replicas);
    }
    if choices.max_bytes.is_some() {
        list.compare("max_bytes", &expected.max_bytes, &found.max_bytes);
    }
    if choices.max_age.is_some() {
        list.compare("max_age", &expected.max_age, &found.max_age);
    }
    list.0
}

fn consumer_differences(found: &consumer::Config) -> Vec<String> {
    let expected = consumer_config();
    let mut list = Differences::default();
    list.compare("durable name", &expected.durable_name, &found.durable_name);
    list.compare("deliver subject (push)", &None, &found.deliver_subject);
    list.compare("deliver policy", &expected.deliver_policy, &found.deliver_policy);
    list.compare("ack policy", &expected.ack_policy, &found.ack_policy);
    list.compare("ack wait", &expected.ack_wait, &found.ack_wait);
    list.compare("max_deliver", &expected.max_deliver, &found.max_deliver);
    list.compare("max_ack_pending", &expected.max_ack_pending, &found.max_ack_pending);
    list.compare("filter subject", &expected.filter_subject, &found.filter_subject);
    list.compare("filter subjects", &expected.filter_subjects, &found.filter_subjects);
    list.compare("inactive threshold", &expected.inactive_threshold, &found.inactive_threshold);
    list.compare("backoff", &expected.backoff, &found.backoff);
    list.compare("headers only", &expected.headers_only, &found.headers_only);
    list.compare("memory storage", &expected.memory_storage, &found.memory_storage);
    list.0
}

#[derive(Default)]
struct Differences(Vec<String>);

impl Differences {
    fn compare<T: PartialEq + Debug>(&mut self, what: &str, expected: &T, found: &T) {
        if expected != found {
            self.0.push(format!("{what} is {found:?}, expected {expected:?}"));
        }
    }
}

fn unavailable(error: &dyn std::fmt::Display) -> SetupError {
    SetupError::Unavailable(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_difference_is_named() {
        let mut found = stream_config(Choices { replicas: Some(3), ..Choices::default() });
        assert!(stream_differences(&found, Choices::default()).is_empty(), "what was not chosen may be anything");
        found.discard = DiscardPolicy::Old;
        found.max_messages = 5;
        let differences = stream_differences(&found, Choices { replicas: Some(1), ..Choices::default() });
        let expected = ["discard is Old, expected New", "max_msgs is 5, expected -1", "replicas is 3, expected 1"];
        assert_eq!(differences, expected);
    }
}
