//! The bucket that all gateways share: a key-value bucket of the broker, made by `recorder stream create`, which forgets
//! keys by itself.
//!
//! Nothing here is needed for a chat to go on. The connection is opened when the first key comes.

use std::time::Duration;

use async_nats::connection::State;
use async_nats::jetstream::kv::{self, CreateErrorKind, Operation};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use shared::id::{ChatId, ConversationId};
use time::OffsetDateTime;
use tokio::sync::OnceCell;

use super::key::{Progress, Taken, Token};

#[derive(Debug)]
pub(super) struct Bucket {
    nats_url: String,
    name: String,
    longest: Duration,
    client: OnceCell<async_nats::Client>,
    store: OnceCell<kv::Store>,
}

/// What the bucket says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// The key was free; this is where it stands now.
    Claimed(u64),
    /// It is somebody's.
    Taken(Taken),
    /// Nothing.
    Unknown,
}

/// What stands in the bucket for a key.
#[derive(Debug, Deserialize, Serialize)]
struct Entry {
    chat_id: ChatId,
    conversation_id: ConversationId,
    fingerprint: String,
    is_done: bool,
    #[serde(with = "time::serde::rfc3339")]
    at: OffsetDateTime,
}

impl Bucket {
    pub(super) fn new(nats_url: &str, instance: &str, longest: Duration) -> Self {
        let name = format!("{instance} (idempotency keys)");
        Self { nats_url: nats_url.to_owned(), name, longest, client: OnceCell::new(), store: OnceCell::new() }
    }

    /// Claims a key.
    pub(super) async fn claim(&self, token: Token, taken: Taken) -> Answer {
        let Some(store) = self.store().await else { return Answer::Unknown };
        let (key, value) = (token.text(), Entry::of(taken).encode());
        match store.create(&key, value.clone()).await {
            Ok(revision) => return Answer::Claimed(revision),
            Err(error) if error.kind() == CreateErrorKind::AlreadyExists => {}
            Err(_) => return Answer::Unknown,
        }
        let Ok(Some(found)) = store.entry(&key).await else { return Answer::Unknown };
        let entry = match found.operation {
            Operation::Put => serde_json::from_slice::<Entry>(&found.value).ok(),
            Operation::Delete | Operation::Purge => None,
        };
        match entry.map(|entry| (entry.taken(), entry.is_abandoned(self.longest))) {
            Some((Some(other), false)) => Answer::Taken(other),
            // Given back just now, unreadable, or of a chat that cannot be under way any more.
            _ => match store.update(&key, value, found.revision).await {
                Ok(revision) => Answer::Claimed(revision),
                Err(_) => Answer::Unknown,
            },
        }
    }

    /// Says what became of a claim: an answer, or nothing.
    pub(super) async fn settle(&self, token: Token, taken: Option<Taken>, revision: u64) -> Result<(), ()> {
        let store = self.store().await.ok_or(())?;
        let key = token.text();
        match taken {
            Some(taken) => store.update(&key, Entry::of(taken).encode(), revision).await.map(drop).map_err(drop),
            None => store.delete_expect_revision(&key, Some(revision)).await.map_err(drop),
        }
    }

    async fn store(&self) -> Option<&kv::Store> {
        let client = self.client.get_or_try_init(|| self.connect()).await.ok()?;
        // A request that cannot be sent would only be waited for in vain.
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
                tracing::warn!(%error, "the bucket of idempotency keys is not to be had");
                None
            }
        }
    }

    /// Returns at once; the connection is made, and made again, in the background.
    async fn connect(&self) -> Result<async_nats::Client, async_nats::ConnectError> {
        let options = async_nats::ConnectOptions::new().name(&self.name).retry_on_initial_connect();
        options.connect(&shared::stream::servers(&self.nats_url)[..]).await
    }
}

impl Entry {
    fn of(taken: Taken) -> Self {
        Self {
            chat_id: taken.chat,
            conversation_id: taken.conversation,
            fingerprint: format!("{:032x}", taken.fingerprint),
            is_done: taken.progress == Progress::Done,
            at: shared::event::now(),
        }
    }

    fn encode(&self) -> Bytes {
        serde_json::to_vec(self).unwrap_or_default().into()
    }

    fn taken(&self) -> Option<Taken> {
        Some(Taken {
            chat: self.chat_id,
            conversation: self.conversation_id,
            fingerprint: u128::from_str_radix(&self.fingerprint, 16).ok()?,
            progress: if self.is_done { Progress::Done } else { Progress::UnderWay },
        })
    }

    /// Whether its chat cannot be under way any more, though nobody said how it ended.
    fn is_abandoned(&self, longest: Duration) -> bool {
        !self.is_done && shared::event::now() - self.at > longest
    }
}
