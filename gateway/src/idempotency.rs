//! `Idempotency-Key`: the same key from the same user within a window is the same chat, whichever gateway it comes to.
//!
//! Who brings a key claims it for their chat before anything else happens: in this process at once, and then in a bucket that
//! all gateways share. If the key is taken, nothing is begun, and the caller is told whose it is. If the bucket cannot be
//! asked in time the chat goes on with what this process knows, and its record says so.
//!
//! A chat that fails without an answer gives its key back: there is nothing to come back to.

mod bucket;
mod key;
mod local;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use http::HeaderMap;
use sha2::{Digest as _, Sha256};
use shared::id::{ChatId, ConversationId};

use bucket::{Answer, Bucket};
use local::Known;

pub use key::{Progress, Taken, Token};

/// The header.
pub const HEADER: &str = "idempotency-key";

/// The longest key.
const MAX_KEY_BYTES: usize = 255;

/// How long the bucket may take to answer before a chat goes on without it.
const PATIENCE: Duration = Duration::from_millis(500);

/// The note on a chat whose key could only be checked in this process.
pub const UNCHECKED: &str = "idempotency_key_not_checked";

/// The keys of all users.
#[derive(Debug)]
pub struct Idempotency {
    known: Mutex<Known>,
    bucket: Bucket,
}

/// A key, claimed for one chat.
#[derive(Debug)]
pub struct Claim {
    keys: Arc<Idempotency>,
    token: Token,
    taken: Taken,
    /// Where it stands in the bucket, if it does.
    revision: Option<u64>,
}

/// What is wrong with a key.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("idempotency-key: expected 1 to {MAX_KEY_BYTES} visible ascii characters")]
pub struct MalformedKey;

/// The key that a request brings, if it does.
pub fn key_in(headers: &HeaderMap) -> Result<Option<&str>, MalformedKey> {
    let Some(value) = headers.get(HEADER) else { return Ok(None) };
    match value.to_str().map(str::trim) {
        Ok(key) if (1..=MAX_KEY_BYTES).contains(&key.len()) => Ok(Some(key)),
        _ => Err(MalformedKey),
    }
}

/// What tells one request from another: half a hash of its body.
pub fn fingerprint(body: &[u8]) -> u128 {
    let hash: [u8; 32] = Sha256::digest(body).into();
    let mut half = [0; 16];
    half.copy_from_slice(&hash[..16]);
    u128::from_le_bytes(half)
}

impl Idempotency {
    /// Keys that are kept in the bucket of this broker. A chat is never under way for longer than `longest`.
    pub fn new(nats_url: &str, instance: &str, longest: Duration) -> Self {
        Self { known: Mutex::default(), bucket: Bucket::new(nats_url, instance, longest) }
    }

    /// Claims a key for a chat, or says whose it is.
    pub async fn claim(
        self: &Arc<Self>,
        token: Token,
        (chat, conversation): (ChatId, ConversationId),
        fingerprint: u128,
    ) -> Result<(Claim, Option<&'static str>), Taken> {
        let taken = Taken { chat, conversation, fingerprint, progress: Progress::UnderWay };
        self.known().claim(token, taken, Instant::now())?;
        // From here on the key is given back unless the claim stands, also if the caller leaves meanwhile.
        let mut pending = Pending { keys: self, token, is_settled: false };
        let answer = tokio::time::timeout(PATIENCE, self.bucket.claim(token, taken)).await;
        pending.is_settled = true;
        let claim = |revision| Claim { keys: Arc::clone(self), token, taken, revision };
        match answer.unwrap_or(Answer::Unknown) {
            Answer::Claimed(revision) => Ok((claim(Some(revision)), None)),
            Answer::Taken(other) => {
                self.known().replace(token, other);
                Err(other)
            }
            Answer::Unknown => Ok((claim(None), Some(UNCHECKED))),
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Claim {
    /// The chat has an answer, or part of one: the key stays with it.
    pub fn keep(mut self) {
        self.taken.progress = Progress::Done;
        self.keys.known().replace(self.token, self.taken);
        self.tell_bucket(Some(self.taken));
    }

    /// The chat came to nothing: the key is free.
    pub fn give_back(self) {
        self.keys.known().forget(self.token);
        self.tell_bucket(None);
    }

    /// Lets other gateways know, when there is time. If they are not told, the key is taken until the bucket forgets it.
    fn tell_bucket(&self, taken: Option<Taken>) {
        let (Some(revision), Ok(runtime)) = (self.revision, tokio::runtime::Handle::try_current()) else { return };
        let (keys, token) = (Arc::clone(&self.keys), self.token);
        runtime.spawn(async move {
            let told = tokio::time::timeout(PATIENCE * 10, keys.bucket.settle(token, taken, revision)).await;
            if !matches!(told, Ok(Ok(()))) {
                tracing::warn!("an idempotency key could not be settled: it stays taken until it is forgotten");
            }
        });
    }
}

/// A claim of which the bucket has not said yet whether it stands.
struct Pending<'a> {
    keys: &'a Idempotency,
    token: Token,
    is_settled: bool,
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        if !self.is_settled {
            self.keys.known().forget(self.token);
        }
    }
}

#[cfg(test)]
mod tests {
    use shared::id::UserId;

    use super::*;

    #[test]
    fn keys_belong_to_users() {
        let user = |id: &str| id.parse::<UserId>().unwrap();
        assert_eq!(Token::new(&user("ann"), "k"), Token::new(&user("ann"), "k"));
        assert_ne!(Token::new(&user("ann"), "k"), Token::new(&user("bob"), "k"));
        assert_ne!(Token::new(&user("ann"), "xk"), Token::new(&user("annx"), "k"));
        assert_eq!(Token::new(&user("ann"), "k").text().len(), 64);
    }

    #[test]
    fn keys_are_short_and_visible() {
        let with = |value: &'static [u8]| {
            let mut headers = HeaderMap::new();
            headers.insert(HEADER, http::HeaderValue::from_bytes(value).unwrap());
            key_in(&headers).map(|key| key.map(str::to_owned))
        };
        assert_eq!(with(b" k-1 "), Ok(Some("k-1".to_owned())));
        assert_eq!(with(b" "), Err(MalformedKey));
        assert_eq!(with("ü".as_bytes()), Err(MalformedKey));
        assert_eq!(key_in(&HeaderMap::new()), Ok(None));
    }
}
