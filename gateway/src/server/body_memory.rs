//! The account of the memory that request bodies hold, in all and by user.
//!
//! A body is charged as its bytes arrive or are decoded, never by a length that a client claims. The charge lasts until the
//! last reference to the body is dropped.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use prometheus_client::metrics::gauge::Gauge;
use shared::id::UserId;

use crate::error::ApiError;
use crate::limits::Limits;

/// The account of all request bodies of the gateway, shared by all requests.
#[derive(Debug)]
pub struct BodyMemory {
    /// The maximum number of bytes that all bodies may hold together.
    max_bytes: usize,
    /// The maximum number of bytes that the bodies of one user may hold.
    max_bytes_of_user: usize,
    /// The maximum number of bodies of one user that may be unfinished at once.
    max_unfinished_of_user: usize,
    accounts: Mutex<Accounts>,
    /// The gauge of the bytes that all bodies hold.
    gauge: Gauge,
}

#[derive(Debug, Default)]
struct Accounts {
    bytes: usize,
    /// The users with at least one body. Callers without a verified token share the entry `None`.
    users: HashMap<Option<UserId>, UserAccount>,
}

#[derive(Debug, Default)]
struct UserAccount {
    bytes: usize,
    bodies: usize,
    unfinished: usize,
}

/// The charge of one body. Dropping the charge releases the memory.
#[derive(Debug)]
pub(super) struct BodyCharge {
    memory: Arc<BodyMemory>,
    user: Option<UserId>,
    bytes: usize,
    is_unfinished: bool,
}

/// A complete body together with the charge for its memory.
struct ChargedBody {
    body: Bytes,
    _charge: BodyCharge,
}

impl BodyMemory {
    /// Creates an account with the bounds of `limits`. `gauge` shows the bytes that all bodies hold.
    pub fn new(limits: &Limits, gauge: Gauge) -> Self {
        let share = |of: usize| of / 100 * limits.body_user_share + of % 100 * limits.body_user_share / 100;
        // A user can always send one compressed body of maximum size: encoded and decoded bytes are held at the same time.
        let one_body = limits.max_body_bytes.saturating_mul(2);
        Self {
            max_bytes: limits.max_body_memory,
            max_bytes_of_user: share(limits.max_body_memory).max(one_body),
            max_unfinished_of_user: share(limits.max_chats).max(2),
            accounts: Mutex::default(),
            gauge,
        }
    }

    /// Opens the charge of a body that is about to be read. `user` is `None` for a caller whose token is not verified.
    pub(super) fn open(self: &Arc<Self>, user: Option<UserId>) -> BodyCharge {
        self.lock().users.entry(user.clone()).or_default().bodies += 1;
        BodyCharge { memory: Arc::clone(self), user, bytes: 0, is_unfinished: false }
    }

    fn lock(&self) -> MutexGuard<'_, Accounts> {
        self.accounts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl BodyCharge {
    /// Counts the body as unfinished, because the rest has to be waited for. Returns 429 if the user's unfinished bodies are at
    /// their bound.
    pub(super) fn wait(&mut self) -> Result<(), ApiError> {
        if self.is_unfinished {
            return Ok(());
        }
        let mut accounts = self.memory.lock();
        let account = accounts.users.entry(self.user.clone()).or_default();
        if account.unfinished >= self.memory.max_unfinished_of_user {
            return Err(ApiError::too_many_bodies());
        }
        account.unfinished += 1;
        drop(accounts);
        self.is_unfinished = true;
        Ok(())
    }

    /// Charges for bytes that have arrived or were decoded. Returns 503 if all bodies together would hold too much, and 429
    /// if the bodies of the user would.
    pub(super) fn add(&mut self, bytes: usize) -> Result<(), ApiError> {
        let mut accounts = self.memory.lock();
        if accounts.bytes + bytes > self.memory.max_bytes {
            return Err(ApiError::body_memory_full());
        }
        let account = accounts.users.entry(self.user.clone()).or_default();
        if account.bytes + bytes > self.memory.max_bytes_of_user {
            return Err(ApiError::too_many_bodies());
        }
        account.bytes += bytes;
        accounts.bytes += bytes;
        self.memory.gauge.set(i64::try_from(accounts.bytes).unwrap_or(i64::MAX));
        drop(accounts);
        self.bytes += bytes;
        Ok(())
    }

    /// Releases a part of the charge, such as encoded bytes that have been decoded.
    pub(super) fn release(&mut self, bytes: usize) {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        self.settle(bytes, 0);
    }

    /// Marks the body as complete, and ties the charge to the body: the charge is released together with the last clone or
    /// slice of the returned bytes.
    pub(super) fn attach(mut self, body: Bytes) -> Bytes {
        if std::mem::take(&mut self.is_unfinished)
            && let Some(account) = self.memory.lock().users.get_mut(&self.user)
        {
            account.unfinished = account.unfinished.saturating_sub(1);
        }
        Bytes::from_owner(ChargedBody { body, _charge: self })
    }

    fn settle(&self, bytes: usize, bodies: usize) {
        let mut accounts = self.memory.lock();
        accounts.bytes = accounts.bytes.saturating_sub(bytes);
        self.memory.gauge.set(i64::try_from(accounts.bytes).unwrap_or(i64::MAX));
        let Some(account) = accounts.users.get_mut(&self.user) else { return };
        account.bytes = account.bytes.saturating_sub(bytes);
        account.bodies = account.bodies.saturating_sub(bodies);
        account.unfinished = account.unfinished.saturating_sub(if self.is_unfinished { bodies } else { 0 });
        if account.bodies == 0 {
            accounts.users.remove(&self.user);
        }
    }
}

impl Drop for BodyCharge {
    fn drop(&mut self) {
        self.settle(self.bytes, 1);
    }
}

impl AsRef<[u8]> for ChargedBody {
    fn as_ref(&self) -> &[u8] {
        &self.body
    }
}

#[cfg(test)]
mod tests {
    use shared::config::Environment;

    use super::*;

    fn memory(max_bytes: usize, share: usize, max_chats: usize) -> Arc<BodyMemory> {
        let standard = Limits::read(&Environment::from_pairs([("GATEWAY_MAX_BODY_BYTES", "10")])).unwrap();
        let limits = Limits { max_body_memory: max_bytes, body_user_share: share, max_chats, ..standard };
        Arc::new(BodyMemory::new(&limits, Gauge::default()))
    }

    fn user(name: &str) -> Option<UserId> {
        Some(name.parse().unwrap())
    }

    fn status(result: Result<impl Sized, ApiError>) -> u16 {
        result.err().map_or(200, |error| error.status.as_u16())
    }

    #[test]
    fn all_bodies_together_and_those_of_one_user_are_bounded() {
        let memory = memory(100, 60, 10);
        let mut ann = memory.open(user("ann"));
        assert_eq!(status(ann.add(60)), 200);
        assert_eq!(status(ann.add(1)), 429, "the share of one user is 60 of 100 bytes");
        let mut second = memory.open(user("ann"));
        assert_eq!(status(second.add(1)), 429, "the share counts all bodies of the user");
        let mut bob = memory.open(user("bob"));
        assert_eq!(status(bob.add(40)), 200);
        assert_eq!(status(bob.add(1)), 503, "all bodies together are at their bound");
        ann.release(10);
        assert_eq!(status(bob.add(10)), 200);
        let body = ann.attach(Bytes::from_static(b"body"));
        let slice = body.slice(1..2);
        drop(body);
        assert_eq!(memory.lock().bytes, 100, "a slice of the body keeps the charge");
        drop((slice, second, bob));
        assert_eq!(memory.lock().bytes, 0);
        assert!(memory.lock().users.is_empty());
        assert_eq!(memory.gauge.get(), 0);
    }

    #[test]
    fn the_unfinished_bodies_of_one_user_are_bounded() {
        let memory = memory(100, 50, 4);
        let wait = |name: &str| {
            let mut charge = memory.open(user(name));
            charge.wait().map(|()| charge)
        };
        let (mut first, second) = (wait("ann").unwrap(), wait("ann").unwrap());
        assert_eq!(status(first.wait()), 200, "a body counts once");
        assert_eq!(status(wait("ann")), 429);
        assert_eq!(status(wait("bob")), 200);
        let body = first.attach(Bytes::new());
        let third = wait("ann").unwrap();
        assert_eq!(status(wait("ann")), 429);
        drop(second);
        let fourth = wait("ann").unwrap();
        assert_eq!(status(wait("ann")), 429);
        drop((body, third, fourth));
        assert!(memory.lock().users.is_empty());
    }

    #[test]
    fn a_user_can_always_hold_one_encoded_and_decoded_body_of_maximum_size() {
        let memory = memory(1000, 1, 1);
        let mut only = memory.open(user("ann"));
        assert_eq!(status(only.add(20)), 200);
        assert_eq!(status(only.add(1)), 429);
    }
}
