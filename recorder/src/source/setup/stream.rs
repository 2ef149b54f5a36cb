//! The stream: what it has to be, and telling how what is there differs.

use async_nats::jetstream::context::GetStreamErrorKind;
use async_nats::jetstream::stream::{self, Compression, DiscardPolicy, RetentionPolicy, StorageType};
use async_nats::jetstream::{Context, ErrorCode};
use shared::stream::{DUPLICATE_WINDOW, NAME, SUBJECTS};

use super::choices::Choices;
use super::error::{Differences, SetupError, unavailable};

const THE_STREAM: &str = "stream CHATS";

pub(super) fn stream_config(choices: Choices) -> stream::Config {
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

pub(super) async fn verified_stream(jetstream: &Context, choices: Choices) -> Result<stream::Stream, SetupError> {
    let stream = find_stream(jetstream, NAME, THE_STREAM).await?;
    match stream_differences(&stream.cached_info().config, choices) {
        none if none.is_empty() => Ok(stream),
        differences => Err(SetupError::Differs { what: THE_STREAM, differences }),
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
