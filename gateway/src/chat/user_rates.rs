//! What one user may do in a minute or a day on this gateway, without any limit being set: bounds that no person reaches, so that a
//! program that runs wild fills neither the journal, nor the broker, nor the bucket of idempotency keys.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use shared::id::UserId;

use crate::error::ApiError;
use crate::limits::UserRateLimits;

const MINUTE: u64 = 60;
const DAY: u64 = 24 * 3600;

/// The rates of all users.
#[derive(Debug)]
pub struct UserRates {
    conversations: Rate,
    idempotency_keys: Rate,
    body_bytes: Rate,
}

/// Counts by user in windows of fixed length. Users of former windows take no memory.
#[derive(Debug)]
struct Rate {
    max: u64,
    window_seconds: u64,
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    window: u64,
    by_user: HashMap<UserId, u64>,
}

impl UserRates {
    /// Creates rates without a count.
    pub fn new(limits: UserRateLimits) -> Self {
        Self {
            conversations: Rate::new(limits.conversations_per_minute, MINUTE),
            idempotency_keys: Rate::new(limits.idempotency_keys_per_minute, MINUTE),
            body_bytes: Rate::new(limits.body_bytes_per_day, DAY),
        }
    }

    /// Counts a conversation that is created ahead of its first chat.
    pub fn count_conversation(&self, user: &UserId) -> Result<(), ApiError> {
        self.conversations.count(user, 1, now()).map_err(ApiError::too_many_conversations)
    }

    /// Counts the idempotency key of a chat.
    pub fn count_idempotency_key(&self, user: &UserId) -> Result<(), ApiError> {
        self.idempotency_keys.count(user, 1, now()).map_err(ApiError::too_many_idempotency_keys)
    }

    /// Returns an error if the bodies of the user's chats have reached the bound of the day.
    pub fn check_body_bytes(&self, user: &UserId) -> Result<(), ApiError> {
        self.body_bytes.count(user, 0, now()).map_err(ApiError::too_many_body_bytes)
    }

    /// Counts the bytes of a body that was read. A body that passes the bound is the last one of the day.
    pub fn count_body_bytes(&self, user: &UserId, bytes: usize) {
        let _ = self.body_bytes.count(user, bytes as u64, now());
    }
}

fn now() -> u64 {
    u64::try_from(shared::event::now().unix_timestamp()).unwrap_or(0)
}

impl Rate {
    fn new(max: u64, window_seconds: u64) -> Self {
        Self { max, window_seconds, counts: Mutex::default() }
    }

    /// Adds to the count of a user that is below the bound. Otherwise, returns the seconds until the next window.
    fn count(&self, user: &UserId, amount: u64, now: u64) -> Result<(), u64> {
        let window = now / self.window_seconds;
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.window != window {
            *counts = Counts { window, by_user: HashMap::new() };
        }
        if let Some(count) = counts.by_user.get_mut(user) {
            if *count >= self.max {
                return Err(self.window_seconds - now % self.window_seconds);
            }
            *count = count.saturating_add(amount);
        } else if amount > 0 {
            counts.by_user.insert(user.clone(), amount);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_reaches_the_bound_alone_and_the_next_window_begins_at_zero() {
        let rate = Rate::new(3, 60);
        let (ann, bob) = (UserId::try_from("ann".to_owned()).unwrap(), UserId::try_from("bob".to_owned()).unwrap());
        assert_eq!((rate.count(&ann, 2, 600), rate.count(&ann, 5, 601)), (Ok(()), Ok(())));
        assert_eq!(rate.count(&ann, 1, 602), Err(58));
        assert_eq!((rate.count(&ann, 0, 659), rate.count(&bob, 1, 659)), (Err(1), Ok(())));
        assert_eq!(rate.count(&ann, 1, 660), Ok(()));
        assert_eq!(rate.counts.lock().unwrap().by_user.len(), 1);
    }
}
