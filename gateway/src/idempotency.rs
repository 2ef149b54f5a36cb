//! Idempotency keys: requests of one user with the same `Idempotency-Key` within a time window are the same chat,
//! whichever gateway receives the requests.
//!
//! A request claims its key for a chat before any other work: first in the process, then in a bucket that all gateways
//! share. If the key is taken, no chat is started, and the caller gets the owning chat's id. If the bucket does not
//! answer in time, the chat continues with the keys known to the process, and a note in the chat's record says so.
//!
//! A chat that fails without an answer gives its key back, because there is no answer to return to.

mod bucket;
mod key;
mod local;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use http::HeaderMap;
use sha2::{Digest as _, Sha256};
use shared::id::{ChatId, ConversationId};
use shared::nats::BrokerConfig;

use bucket::{Bucket, ClaimOutcome};
use local::LocalKeys;

pub use key::{KeyHash, KeyOwner, Progress};

/// The name of the request header with the key.
pub const HEADER_NAME: &str = "idempotency-key";

/// The maximum length of a key, in bytes.
const MAX_KEY_BYTES: usize = 255;

/// The maximum time to wait for the bucket before a chat continues without.
const BUCKET_TIMEOUT: Duration = Duration::from_millis(500);

/// The note on a chat whose key could only be checked within the process.
pub const NOT_CHECKED_NOTE: &str = "idempotency_key_not_checked";

/// The claimed keys of all users.
#[derive(Debug)]
pub struct IdempotencyKeys {
    local: Mutex<LocalKeys>,
    bucket: Bucket,
}

/// A key that is claimed for one chat.
#[derive(Debug)]
pub struct Claim {
    keys: Arc<IdempotencyKeys>,
    key_hash: KeyHash,
    owner: KeyOwner,
    /// The revision of the key's entry in the bucket, or `None` if the bucket did not confirm the claim.
    revision: Option<u64>,
}

/// The key's length or characters are not allowed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("idempotency-key: expected 1 to {MAX_KEY_BYTES} visible ascii characters")]
pub struct MalformedKey;

/// Returns the key from a request's headers, or `None` if the request has no key.
pub fn key_from_headers(headers: &HeaderMap) -> Result<Option<&str>, MalformedKey> {
    let Some(value) = headers.get(HEADER_NAME) else { return Ok(None) };
    match value.to_str().map(str::trim) {
        Ok(key) if (1..=MAX_KEY_BYTES).contains(&key.len()) => Ok(Some(key)),
        _ => Err(MalformedKey),
    }
}

/// Returns half a SHA-256 hash of a request's body, to tell a repeated request from a different request.
pub fn fingerprint(body: &[u8]) -> u128 {
    let hash: [u8; 32] = Sha256::digest(body).into();
    let mut half = [0; 16];
    half.copy_from_slice(&hash[..16]);
    u128::from_le_bytes(half)
}

impl IdempotencyKeys {
    /// Creates an empty set of keys, with the bucket of the broker. A chat never takes longer than
    /// `max_chat_duration`, so an older claim without an outcome is abandoned.
    pub fn new(broker: BrokerConfig, instance: &str, max_chat_duration: Duration) -> Self {
        Self { local: Mutex::default(), bucket: Bucket::new(broker, instance, max_chat_duration) }
    }

    /// Claims a key for a chat, or returns the chat that owns the key. The second value is a note for the chat's
    /// record, if the bucket could not be checked.
    pub async fn claim(
        self: &Arc<Self>,
        key_hash: KeyHash,
        (chat, conversation): (ChatId, ConversationId),
        fingerprint: u128,
    ) -> Result<(Claim, Option<&'static str>), KeyOwner> {
        let owner = KeyOwner { chat, conversation, fingerprint, progress: Progress::UnderWay };
        self.local_keys().claim(key_hash, owner, Instant::now())?;
        // From here on, the key is given back unless the claim is settled, even if the client disconnects in the
        // meantime.
        let mut pending = PendingClaim { keys: self, key_hash, is_settled: false };
        let outcome = tokio::time::timeout(BUCKET_TIMEOUT, self.bucket.claim(key_hash, owner)).await;
        pending.is_settled = true;
        let claim = |revision| Claim { keys: Arc::clone(self), key_hash, owner, revision };
        match outcome.unwrap_or(ClaimOutcome::Unknown) {
            ClaimOutcome::Claimed(revision) => Ok((claim(Some(revision)), None)),
            ClaimOutcome::AlreadyClaimed(other) => {
                self.local_keys().replace(key_hash, other);
                Err(other)
            }
            ClaimOutcome::Unknown => Ok((claim(None), Some(NOT_CHECKED_NOTE))),
        }
    }

    fn local_keys(&self) -> MutexGuard<'_, LocalKeys> {
        self.local.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Claim {
    /// Keeps the key for the chat, which has an answer or part of an answer.
    pub fn keep(mut self) {
        self.owner.progress = Progress::Done;
        self.keys.local_keys().replace(self.key_hash, self.owner);
        self.settle_in_bucket(Some(self.owner));
    }

    /// Gives the key back, because the chat has ended without an answer.
    pub fn release(self) {
        self.keys.local_keys().forget(self.key_hash);
        self.settle_in_bucket(None);
    }

    /// Updates the bucket in the background, for other gateways. If the update fails, the key stays taken until the
    /// entry expires.
    fn settle_in_bucket(&self, owner: Option<KeyOwner>) {
        let (Some(revision), Ok(runtime)) = (self.revision, tokio::runtime::Handle::try_current()) else { return };
        let (keys, key_hash) = (Arc::clone(&self.keys), self.key_hash);
        runtime.spawn(async move {
            let settled =
                tokio::time::timeout(BUCKET_TIMEOUT * 10, keys.bucket.settle(key_hash, owner, revision)).await;
            if !matches!(settled, Ok(Ok(()))) {
                tracing::warn!(
                    "an idempotency key could not be updated in the bucket; the key stays taken until its entry expires"
                );
            }
        });
    }
}

/// A claim that waits for the bucket's answer. Gives the key back when dropped before the answer.
struct PendingClaim<'a> {
    keys: &'a IdempotencyKeys,
    key_hash: KeyHash,
    is_settled: bool,
}

impl Drop for PendingClaim<'_> {
    fn drop(&mut self) {
        if !self.is_settled {
            self.keys.local_keys().forget(self.key_hash);
        }
    }
}

#[cfg(test)]
mod tests {
    use shared::id::UserId;

    use super::*;

    #[test]
    fn the_same_key_of_two_users_has_two_hashes() {
        let user = |id: &str| id.parse::<UserId>().unwrap();
        assert_eq!(KeyHash::new(&user("ann"), "k"), KeyHash::new(&user("ann"), "k"));
        assert_ne!(KeyHash::new(&user("ann"), "k"), KeyHash::new(&user("bob"), "k"));
        assert_ne!(KeyHash::new(&user("ann"), "xk"), KeyHash::new(&user("annx"), "k"));
        assert_eq!(KeyHash::new(&user("ann"), "k").hex().len(), 64);
    }

    #[test]
    fn a_key_is_1_to_255_visible_ascii_characters() {
        let with = |value: &'static [u8]| {
            let mut headers = HeaderMap::new();
            headers.insert(HEADER_NAME, http::HeaderValue::from_bytes(value).unwrap());
            key_from_headers(&headers).map(|key| key.map(str::to_owned))
        };
        assert_eq!(with(b" k-1 "), Ok(Some("k-1".to_owned())));
        assert_eq!(with(b" "), Err(MalformedKey));
        assert_eq!(with("ü".as_bytes()), Err(MalformedKey));
        assert_eq!(key_from_headers(&HeaderMap::new()), Ok(None));
    }
}
