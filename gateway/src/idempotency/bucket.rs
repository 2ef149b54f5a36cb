//! The bucket of idempotency keys that all gateways share: a key-value bucket on the broker, created by
//! `recorder stream create`. The broker expires the entries.
//!
//! No chat depends on the bucket. The connection is opened when the first key is claimed.

use std::time::Duration;

use async_nats::connection::State;
use async_nats::jetstream::kv::{self, CreateErrorKind, Operation};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use shared::id::{ChatId, ConversationId};
use shared::nats::{BrokerConfig, BrokerRole};
use time::OffsetDateTime;
use tokio::sync::OnceCell;

use super::key::{KeyHash, KeyOwner, Progress};

#[derive(Debug)]
pub(super) struct Bucket {
    broker: BrokerConfig,
    name: String,
    max_chat_duration: Duration,
    client: OnceCell<async_nats::Client>,
    store: OnceCell<kv::Store>,
}

/// The bucket's answer to a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ClaimOutcome {
    /// The key was free. Holds the revision of the new entry.
    Claimed(u64),
    /// The key belongs to another chat.
    AlreadyClaimed(KeyOwner),
    /// The bucket gave no answer.
    Unknown,
}

/// The value of a key's entry in the bucket, stored as JSON.
#[derive(Debug, Deserialize, Serialize)]
struct StoredKey {
    chat_id: ChatId,
    conversation_id: ConversationId,
    fingerprint: String,
    is_done: bool,
    #[serde(with = "time::serde::rfc3339")]
    at: OffsetDateTime,
}

impl Bucket {
    pub(super) fn new(broker: BrokerConfig, instance: &str, max_chat_duration: Duration) -> Self {
        let name = format!("{instance} (idempotency keys)");
        Self { broker, name, max_chat_duration, client: OnceCell::new(), store: OnceCell::new() }
    }

    /// Claims a key, unless the key belongs to a chat that has an answer or may still be in progress.
    pub(super) async fn claim(&self, key_hash: KeyHash, owner: KeyOwner) -> ClaimOutcome {
        let Some(store) = self.store().await else { return ClaimOutcome::Unknown };
        let (key, value) = (key_hash.hex(), StoredKey::new(owner).encode());
        match store.create(&key, value.clone()).await {
            Ok(revision) => return ClaimOutcome::Claimed(revision),
            Err(error) if error.kind() == CreateErrorKind::AlreadyExists => {}
            Err(_) => return ClaimOutcome::Unknown,
        }
        let Ok(Some(found)) = store.entry(&key).await else { return ClaimOutcome::Unknown };
        let entry = match found.operation {
            Operation::Put => serde_json::from_slice::<StoredKey>(&found.value).ok(),
            Operation::Delete | Operation::Purge => None,
        };
        match entry.map(|entry| (entry.owner(), entry.is_abandoned(self.max_chat_duration))) {
            Some((Some(other), false)) => ClaimOutcome::AlreadyClaimed(other),
            // The key was given back just now, its entry is unreadable, or its chat cannot be in progress any more.
            _ => match store.update(&key, value, found.revision).await {
                Ok(revision) => ClaimOutcome::Claimed(revision),
                Err(_) => ClaimOutcome::Unknown,
            },
        }
    }

    /// Stores the outcome of a claim: the owner of an answer, or no owner if the chat has no answer.
    pub(super) async fn settle(&self, key_hash: KeyHash, owner: Option<KeyOwner>, revision: u64) -> Result<(), ()> {
        let store = self.store().await.ok_or(())?;
        let key = key_hash.hex();
        match owner {
            Some(owner) => store.update(&key, StoredKey::new(owner).encode(), revision).await.map(drop).map_err(drop),
            None => store.delete_expect_revision(&key, Some(revision)).await.map_err(drop),
        }
    }

    async fn store(&self) -> Option<&kv::Store> {
        let client = self.client.get_or_try_init(|| self.connect()).await.ok()?;
        // A request that cannot be sent would only wait until the timeout.
        if client.connection_state() != State::Connected && self.store.initialized() {
            return None;
        }
        let found = self.store.get_or_try_init(|| async {
            let jetstream = async_nats::jetstream::new(client.clone());
            jetstream.get_key_value(shared::stream::IDEMPOTENCY_BUCKET).await
        });
        match found.await {
            Ok(store) => Some(store),
            Err(error) => {
                tracing::warn!(%error, "cannot open the bucket of idempotency keys; chats continue without");
                None
            }
        }
    }

    /// Returns at once. The client connects and reconnects in the background.
    async fn connect(&self) -> Result<async_nats::Client, async_nats::ConnectError> {
        self.broker.connect(BrokerRole::Gateway, &self.name, |_| {}).await
    }
}

impl StoredKey {
    fn new(owner: KeyOwner) -> Self {
        Self {
            chat_id: owner.chat,
            conversation_id: owner.conversation,
            fingerprint: format!("{:032x}", owner.fingerprint),
            is_done: owner.progress == Progress::Done,
            at: shared::event::now(),
        }
    }

    fn encode(&self) -> Bytes {
        serde_json::to_vec(self).unwrap_or_default().into()
    }

    fn owner(&self) -> Option<KeyOwner> {
        Some(KeyOwner {
            chat: self.chat_id,
            conversation: self.conversation_id,
            fingerprint: u128::from_str_radix(&self.fingerprint, 16).ok()?,
            progress: if self.is_done { Progress::Done } else { Progress::UnderWay },
        })
    }

    /// Returns true if the chat cannot be in progress any more, although no outcome has been stored.
    fn is_abandoned(&self, max_chat_duration: Duration) -> bool {
        !self.is_done && shared::event::now() - self.at > max_chat_duration
    }
}
