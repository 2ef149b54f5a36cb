//! The recorders' durable consumer: expected configuration, and comparison with the existing consumer.

use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::consumer::{self, AckPolicy, DeliverPolicy, pull};
use async_nats::jetstream::context::ConsumerInfoErrorKind;
use async_nats::jetstream::stream;
use shared::stream::{ACK_WAIT, CONSUMER, MAX_ACK_PENDING, MAX_ACK_WAIT};

use super::error::{Differences, SetupError, unavailable};

const CONSUMER_LABEL: &str = "consumer recorder of stream CHATS";

pub(super) fn consumer_config() -> pull::Config {
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

pub(super) async fn verify_consumer(stream: &stream::Stream) -> Result<(), SetupError> {
    let info = stream.consumer_info(CONSUMER).await.map_err(|error| match error.kind() {
        ConsumerInfoErrorKind::NotFound => SetupError::Missing(CONSUMER_LABEL),
        ConsumerInfoErrorKind::JetStream(reply) if reply.error_code() == ErrorCode::CONSUMER_NOT_FOUND => {
            SetupError::Missing(CONSUMER_LABEL)
        }
        _ => unavailable(&error),
    })?;
    match consumer_differences(&info.config) {
        none if none.is_empty() => Ok(()),
        differences => Err(SetupError::Differs { what: CONSUMER_LABEL, differences }),
    }
}

fn consumer_differences(found: &consumer::Config) -> Vec<String> {
    let expected = consumer_config();
    let mut differences = Differences::default();
    differences.compare("durable name", &expected.durable_name, &found.durable_name);
    differences.compare("deliver subject (push)", &None, &found.deliver_subject);
    differences.compare("deliver policy", &expected.deliver_policy, &found.deliver_policy);
    differences.compare("ack policy", &expected.ack_policy, &found.ack_policy);
    if !(ACK_WAIT..=MAX_ACK_WAIT).contains(&found.ack_wait) {
        differences.compare("ack wait", &expected.ack_wait, &found.ack_wait);
    }
    differences.compare("max_deliver", &expected.max_deliver, &found.max_deliver);
    differences.compare("max_ack_pending", &expected.max_ack_pending, &found.max_ack_pending);
    differences.compare("filter subject", &expected.filter_subject, &found.filter_subject);
    differences.compare("filter subjects", &expected.filter_subjects, &found.filter_subjects);
    differences.compare("inactive threshold", &expected.inactive_threshold, &found.inactive_threshold);
    differences.compare("backoff", &expected.backoff, &found.backoff);
    differences.compare("headers only", &expected.headers_only, &found.headers_only);
    differences.compare("memory storage", &expected.memory_storage, &found.memory_storage);
    differences.0
}
