//! The stream `CHATS`: expected configuration, and comparison with the existing stream.

use std::time::Duration;

use async_nats::jetstream::context::GetStreamErrorKind;
use async_nats::jetstream::stream::{self, Compression, DiscardPolicy, RetentionPolicy, StorageType};
use async_nats::jetstream::{Context, ErrorCode};
use shared::stream::{DUPLICATE_WINDOW, NAME, SUBJECTS};

use super::error::{Differences, SetupError, unavailable};
use super::options::StreamOptions;

const STREAM_LABEL: &str = "stream CHATS";

/// The limits that an operator may choose, and by which the stream drops or refuses events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetentionLimits {
    /// The age after which events are dropped; `None`: never.
    pub max_age: Option<Duration>,
    /// The size in bytes above which new events are refused; `None`: no limit.
    pub max_bytes: Option<u64>,
}

// === impl RetentionLimits ===

impl RetentionLimits {
    pub(super) fn of(config: &stream::Config) -> Self {
        Self {
            max_age: (!config.max_age.is_zero()).then_some(config.max_age),
            max_bytes: u64::try_from(config.max_bytes).ok(),
        }
    }

    /// Says that the stream with the limits `now` drops events which it kept with these limits; `None` if it drops none of them.
    pub fn shortened_to(&self, now: &Self) -> Option<String> {
        let age = |limit: Option<Duration>| {
            limit.map_or("without limit".to_owned(), |age| format!("for {}", humantime::format_duration(age)))
        };
        let is_shorter = now.max_age.is_some_and(|now| self.max_age.is_none_or(|before| now < before));
        is_shorter.then(|| {
            format!("{STREAM_LABEL} keeps events {}, and {} at the start", age(now.max_age), age(self.max_age))
        })
    }
}

pub(super) fn stream_config(options: StreamOptions) -> stream::Config {
    stream::Config {
        name: NAME.to_owned(),
        description: Some("Every chat, as events.".to_owned()),
        subjects: vec![SUBJECTS.to_owned()],
        storage: StorageType::File,
        retention: RetentionPolicy::Limits,
        discard: DiscardPolicy::New,
        duplicate_window: DUPLICATE_WINDOW,
        compression: Some(Compression::S2),
        num_replicas: options.replicas.unwrap_or(1),
        max_bytes: options.max_bytes.unwrap_or(-1),
        max_age: options.max_age.unwrap_or_default(),
        max_message_size: -1,
        max_messages: -1,
        max_messages_per_subject: -1,
        max_consumers: -1,
        ..stream::Config::default()
    }
}

pub(super) async fn verified_stream(jetstream: &Context, options: StreamOptions) -> Result<stream::Stream, SetupError> {
    let stream = find_stream(jetstream, NAME, STREAM_LABEL).await?;
    match stream_differences(&stream.cached_info().config, options) {
        none if none.is_empty() => Ok(stream),
        differences => Err(SetupError::Differs { what: STREAM_LABEL, differences }),
    }
}

pub(super) async fn find_stream(
    jetstream: &Context,
    name: &str,
    what: &'static str,
) -> Result<stream::Stream, SetupError> {
    jetstream.get_stream(name).await.map_err(|error| match error.kind() {
        GetStreamErrorKind::JetStream(reply) if reply.error_code() == ErrorCode::STREAM_NOT_FOUND => {
            SetupError::Missing(what)
        }
        _ => unavailable(&error),
    })
}

fn stream_differences(found: &stream::Config, options: StreamOptions) -> Vec<String> {
    let expected = stream_config(options);
    let mut differences = Differences::default();
    differences.compare("subjects", &expected.subjects, &found.subjects);
    differences.compare("storage", &expected.storage, &found.storage);
    differences.compare("retention", &expected.retention, &found.retention);
    differences.compare("discard", &expected.discard, &found.discard);
    differences.compare("duplicate window", &expected.duplicate_window, &found.duplicate_window);
    differences.compare("compression", &expected.compression, &found.compression);
    differences.compare("max_msg_size", &expected.max_message_size, &found.max_message_size);
    differences.compare("max_msgs", &expected.max_messages, &found.max_messages);
    differences.compare("max_msgs_per_subject", &expected.max_messages_per_subject, &found.max_messages_per_subject);
    differences.compare("no_ack", &expected.no_ack, &found.no_ack);
    if options.replicas.is_some() {
        differences.compare("replicas", &expected.num_replicas, &found.num_replicas);
    }
    if options.max_bytes.is_some() {
        differences.compare("max_bytes", &expected.max_bytes, &found.max_bytes);
    }
    if options.max_age.is_some() {
        differences.compare("max_age", &expected.max_age, &found.max_age);
    }
    differences.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_difference_from_the_expected_stream_is_listed() {
        let mut found = stream_config(StreamOptions { replicas: Some(3), ..StreamOptions::default() });
        assert!(
            stream_differences(&found, StreamOptions::default()).is_empty(),
            "options that were not chosen accept any value"
        );
        found.discard = DiscardPolicy::Old;
        found.max_messages = 5;
        let differences = stream_differences(&found, StreamOptions { replicas: Some(1), ..StreamOptions::default() });
        let expected = ["discard is Old, expected New", "max_msgs is 5, expected -1", "replicas is 3, expected 1"];
        assert_eq!(differences, expected);
    }
}
