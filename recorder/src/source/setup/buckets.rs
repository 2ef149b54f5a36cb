//! The buckets beside the stream: gateways' leases, bodies that are too large for a message, and idempotency keys.

use std::time::Duration;

use async_nats::jetstream::stream::{self, Compression, DiscardPolicy, StorageType};
use async_nats::jetstream::{Context, kv, object_store};
use shared::stream::{IDEMPOTENCY_BUCKET, IDEMPOTENCY_MAX_BYTES, IDEMPOTENCY_WINDOW};
use shared::{large_body, lease};

use super::choices::{Choices, Created};
use super::error::{Differences, SetupError, unavailable};
use super::stream::find_stream;

const THE_LEASES: &str = "bucket GATEWAYS";
const THE_BODIES: &str = "bucket BODIES";
const THE_KEYS: &str = "bucket IDEMPOTENCY";

/// A bucket as the broker keeps it: a stream by another name.
struct Bucket {
    stream: String,
    what: &'static str,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Leases,
    Bodies,
    Keys,
}

fn all() -> [Bucket; 3] {
    [
        Bucket { stream: format!("KV_{}", lease::BUCKET), what: THE_LEASES, kind: Kind::Leases },
        Bucket { stream: format!("OBJ_{}", large_body::BUCKET), what: THE_BODIES, kind: Kind::Bodies },
        Bucket { stream: format!("KV_{IDEMPOTENCY_BUCKET}"), what: THE_KEYS, kind: Kind::Keys },
    ]
}

/// Makes those that are missing, beside a stream that keeps its events for so long (zero: for ever).
pub(super) async fn create(jetstream: &Context, choices: Choices, kept: Duration) -> Result<Created, SetupError> {
    let mut made = Created::Already;
    for bucket in all() {
        if let Err(SetupError::Missing(_)) = find_stream(jetstream, &bucket.stream, bucket.what).await {
            bucket.create(jetstream, choices).await?;
            made = Created::New;
        }
    }
    verify(jetstream, choices, kept, all().into_iter()).await?;
    Ok(made)
}

/// Whether those that a recorder uses are what they have to be. Without idempotency keys, which are the gateways' alone, it
/// records as ever.
pub(super) async fn verify_needed(jetstream: &Context, kept: Duration) -> Result<(), SetupError> {
    verify(jetstream, Choices::default(), kept, all().into_iter().filter(|bucket| bucket.kind != Kind::Keys)).await
}

async fn verify(
    jetstream: &Context,
    choices: Choices,
    kept: Duration,
    buckets: impl Iterator<Item = Bucket>,
) -> Result<(), SetupError> {
    for bucket in buckets {
        let stream = find_stream(jetstream, &bucket.stream, bucket.what).await?;
        let differences = bucket.differences(&stream.cached_info().config, choices, kept);
        if !differences.is_empty() {
            return Err(SetupError::Differs { what: bucket.what, differences });
        }
    }
    Ok(())
}

// === impl Bucket ===

impl Bucket {
    async fn create(&self, jetstream: &Context, choices: Choices) -> Result<(), SetupError> {
        let num_replicas = choices.replicas.unwrap_or(1);
        match self.kind {
            Kind::Leases => {
                let config = kv::Config {
                    bucket: lease::BUCKET.to_owned(),
                    description: "Which gateways live.".to_owned(),
                    history: 1,
                    max_age: choices.lease_lifetime.unwrap_or(lease::LIFETIME),
                    storage: StorageType::File,
                    num_replicas,
                    ..kv::Config::default()
                };
                jetstream.create_key_value(config).await.map(drop).map_err(|error| unavailable(&error))
            }
            Kind::Keys => {
                let config = kv::Config {
                    bucket: IDEMPOTENCY_BUCKET.to_owned(),
                    description: "Which chats idempotency keys belong to.".to_owned(),
                    history: 1,
                    max_age: IDEMPOTENCY_WINDOW,
                    max_bytes: IDEMPOTENCY_MAX_BYTES,
                    storage: StorageType::File,
                    num_replicas,
                    ..kv::Config::default()
                };
                jetstream.create_key_value(config).await.map(drop).map_err(|error| unavailable(&error))
            }
            Kind::Bodies => {
                let config = object_store::Config {
                    bucket: large_body::BUCKET.to_owned(),
                    description: Some("Bodies of events that are too large for a message.".to_owned()),
                    // They must not go before the events that refer to them.
                    max_age: choices.max_age.unwrap_or_default(),
                    max_bytes: -1,
                    storage: StorageType::File,
                    num_replicas,
                    compression: true,
                    ..object_store::Config::default()
                };
                jetstream.create_object_store(config).await.map(drop).map_err(|error| unavailable(&error))
            }
        }
    }

    fn differences(&self, found: &stream::Config, choices: Choices, kept: Duration) -> Vec<String> {
        let mut list = Differences::default();
        list.compare("storage", &StorageType::File, &found.storage);
        list.compare("discard", &DiscardPolicy::New, &found.discard);
        if let Some(replicas) = choices.replicas {
            list.compare("replicas", &replicas, &found.num_replicas);
        }
        match self.kind {
            Kind::Leases => {
                list.compare("max_msgs_per_subject", &1, &found.max_messages_per_subject);
                if let Some(lifetime) = choices.lease_lifetime {
                    list.compare("max_age", &lifetime, &found.max_age);
                } else if found.max_age < lease::SHORTEST_LIFETIME {
                    list.0.push(format!(
                        "max_age is {:?}, expected at least {:?}",
                        found.max_age,
                        lease::SHORTEST_LIFETIME
                    ));
                }
            }
            Kind::Keys => list.compare("max_msgs_per_subject", &1, &found.max_messages_per_subject),
            Kind::Bodies => {
                list.compare("compression", &Some(Compression::S2), &found.compression);
                let may_go = Duration::ZERO < found.max_age && choices.max_age.is_some_and(|age| age != found.max_age);
                if may_go {
                    list.compare("max_age", &choices.max_age.unwrap_or_default(), &found.max_age);
                } else if !found.max_age.is_zero() && kept.is_zero() {
                    list.0.push(format!("max_age is {:?}, expected none, as the stream has", found.max_age));
                } else if !found.max_age.is_zero() && found.max_age < kept {
                    list.0.push(format!("max_age is {:?}, expected at least the stream's {kept:?}", found.max_age));
                }
            }
        }
        list.0
    }
}
