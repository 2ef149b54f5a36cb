//! The broker's buckets beside the stream: leases of gateways, bodies too large for a message, idempotency keys, the
//! entries that gateways follow, and the parts of limits and of budgets that gateways grant themselves.

use std::time::Duration;

use async_nats::jetstream::stream::{self, Compression, DiscardPolicy, StorageType};
use async_nats::jetstream::{Context, kv, object_store};
use shared::stream::{
    GRANTS_BUCKET, GRANTS_LIFETIME, GRANTS_MAX_BYTES, IDEMPOTENCY_BUCKET, IDEMPOTENCY_MAX_BYTES, IDEMPOTENCY_WINDOW,
};
use shared::{access, budget_ledger, large_body, lease};

use super::error::{Differences, SetupError, unavailable};
use super::options::{SetupOutcome, StreamOptions};
use super::stream::find_stream;

const LEASES_LABEL: &str = "bucket GATEWAYS";
const BODIES_LABEL: &str = "bucket BODIES";
const KEYS_LABEL: &str = "bucket IDEMPOTENCY";
const ACCESS_LABEL: &str = "bucket ACCESS";
const GRANTS_LABEL: &str = "bucket GRANTS";
const BUDGETS_LABEL: &str = "bucket BUDGETS";

/// A bucket. The broker stores a bucket as a stream under another name.
struct Bucket {
    stream: String,
    what: &'static str,
    kind: BucketKind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum BucketKind {
    Leases,
    Bodies,
    Keys,
    Access,
    Grants,
    Budgets,
}

fn all_buckets() -> [Bucket; 6] {
    [
        Bucket { stream: format!("KV_{}", lease::BUCKET), what: LEASES_LABEL, kind: BucketKind::Leases },
        Bucket { stream: format!("OBJ_{}", large_body::BUCKET), what: BODIES_LABEL, kind: BucketKind::Bodies },
        Bucket { stream: format!("KV_{IDEMPOTENCY_BUCKET}"), what: KEYS_LABEL, kind: BucketKind::Keys },
        Bucket { stream: format!("KV_{}", access::BUCKET), what: ACCESS_LABEL, kind: BucketKind::Access },
        Bucket { stream: format!("KV_{GRANTS_BUCKET}"), what: GRANTS_LABEL, kind: BucketKind::Grants },
        Bucket { stream: format!("KV_{}", budget_ledger::BUCKET), what: BUDGETS_LABEL, kind: BucketKind::Budgets },
    ]
}

/// Creates the missing buckets and compares all buckets with the expected configuration. `stream_max_age` is the
/// maximum age of the stream's events; zero means no limit.
pub(super) async fn create(
    jetstream: &Context,
    options: StreamOptions,
    stream_max_age: Duration,
) -> Result<SetupOutcome, SetupError> {
    let mut outcome = SetupOutcome::AlreadyExists;
    for bucket in all_buckets() {
        if let Err(SetupError::Missing(_)) = find_stream(jetstream, &bucket.stream, bucket.what).await {
            bucket.create(jetstream, options).await?;
            outcome = SetupOutcome::Created;
        }
    }
    verify(jetstream, options, stream_max_age, all_buckets().into_iter()).await?;
    Ok(outcome)
}

/// Compares the buckets used by recorders with the expected configuration. The buckets of idempotency keys and of grants are left out,
/// because only gateways use them, and so are the buckets ACCESS and BUDGETS, which deployments of an earlier version do not have.
pub(super) async fn verify_required(jetstream: &Context, stream_max_age: Duration) -> Result<(), SetupError> {
    verify(
        jetstream,
        StreamOptions::default(),
        stream_max_age,
        all_buckets().into_iter().filter(|bucket| matches!(bucket.kind, BucketKind::Leases | BucketKind::Bodies)),
    )
    .await
}

/// Compares all buckets with the expected configuration.
pub(super) async fn verify_all(jetstream: &Context, stream_max_age: Duration) -> Result<(), SetupError> {
    verify(jetstream, StreamOptions::default(), stream_max_age, all_buckets().into_iter()).await
}

async fn verify(
    jetstream: &Context,
    options: StreamOptions,
    stream_max_age: Duration,
    buckets: impl Iterator<Item = Bucket>,
) -> Result<(), SetupError> {
    for bucket in buckets {
        let stream = find_stream(jetstream, &bucket.stream, bucket.what).await?;
        let differences = bucket.differences(&stream.cached_info().config, options, stream_max_age);
        if !differences.is_empty() {
            return Err(SetupError::Differs { what: bucket.what, differences });
        }
    }
    Ok(())
}

// === impl Bucket ===

impl Bucket {
    async fn create(&self, jetstream: &Context, options: StreamOptions) -> Result<(), SetupError> {
        let num_replicas = options.replicas.unwrap_or(1);
        match self.kind {
            BucketKind::Leases => {
                let config = kv::Config {
                    bucket: lease::BUCKET.to_owned(),
                    description: "Which gateways live.".to_owned(),
                    history: 1,
                    max_age: options.lease_lifetime.unwrap_or(lease::DEFAULT_LIFETIME),
                    storage: StorageType::File,
                    num_replicas,
                    ..kv::Config::default()
                };
                jetstream.create_key_value(config).await.map(drop).map_err(|error| unavailable(&error))
            }
            BucketKind::Keys => {
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
            BucketKind::Access => {
                let config = kv::Config {
                    bucket: access::BUCKET.to_owned(),
                    description: "API keys, disabled users, ended sessions and limits.".to_owned(),
                    history: 1,
                    storage: StorageType::File,
                    num_replicas,
                    ..kv::Config::default()
                };
                jetstream.create_key_value(config).await.map(drop).map_err(|error| unavailable(&error))
            }
            BucketKind::Grants => {
                let config = kv::Config {
                    bucket: GRANTS_BUCKET.to_owned(),
                    description: "Which parts of limits gateways hold.".to_owned(),
                    history: 1,
                    max_age: GRANTS_LIFETIME,
                    max_bytes: GRANTS_MAX_BYTES,
                    storage: StorageType::File,
                    num_replicas,
                    ..kv::Config::default()
                };
                jetstream.create_key_value(config).await.map(drop).map_err(|error| unavailable(&error))
            }
            BucketKind::Budgets => {
                let config = kv::Config {
                    bucket: budget_ledger::BUCKET.to_owned(),
                    description: "Which parts of budgets gateways have.".to_owned(),
                    history: 1,
                    max_bytes: budget_ledger::MAX_BYTES,
                    storage: StorageType::File,
                    num_replicas,
                    ..kv::Config::default()
                };
                jetstream.create_key_value(config).await.map(drop).map_err(|error| unavailable(&error))
            }
            BucketKind::Bodies => {
                let config = object_store::Config {
                    bucket: large_body::BUCKET.to_owned(),
                    description: Some("Bodies of events that are too large for a message.".to_owned()),
                    // A body must not expire before the event with the reference.
                    max_age: options.max_age.unwrap_or_default(),
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

    fn differences(&self, found: &stream::Config, options: StreamOptions, stream_max_age: Duration) -> Vec<String> {
        let mut differences = Differences::default();
        differences.compare("storage", &StorageType::File, &found.storage);
        differences.compare("discard", &DiscardPolicy::New, &found.discard);
        if let Some(replicas) = options.replicas {
            differences.compare("replicas", &replicas, &found.num_replicas);
        }
        match self.kind {
            BucketKind::Leases => {
                differences.compare("max_msgs_per_subject", &1, &found.max_messages_per_subject);
                if let Some(lifetime) = options.lease_lifetime {
                    differences.compare("max_age", &lifetime, &found.max_age);
                } else if found.max_age < lease::MIN_LIFETIME {
                    differences.0.push(format!(
                        "max_age is {:?}, expected at least {:?}",
                        found.max_age,
                        lease::MIN_LIFETIME
                    ));
                }
            }
            BucketKind::Keys | BucketKind::Access | BucketKind::Grants | BucketKind::Budgets => {
                differences.compare("max_msgs_per_subject", &1, &found.max_messages_per_subject);
            }
            BucketKind::Bodies => {
                differences.compare("compression", &Some(Compression::S2), &found.compression);
                let has_other_max_age =
                    Duration::ZERO < found.max_age && options.max_age.is_some_and(|age| age != found.max_age);
                if has_other_max_age {
                    differences.compare("max_age", &options.max_age.unwrap_or_default(), &found.max_age);
                } else if !found.max_age.is_zero() && stream_max_age.is_zero() {
                    differences.0.push(format!("max_age is {:?}, expected none, as the stream has", found.max_age));
                } else if !found.max_age.is_zero() && found.max_age < stream_max_age {
                    differences.0.push(format!(
                        "max_age is {:?}, expected at least the stream's {stream_max_age:?}",
                        found.max_age
                    ));
                }
            }
        }
        differences.0
    }
}
