//! The places of searches: one at a time for each user, and a part of the database connections for all, so that searches over long
//! messages keep no other read waiting.

use std::sync::Arc;
use std::time::Duration;

use shared::fair_share::{FairShare, Place};
use shared::id::UserId;
use tokio::time::{Instant, sleep};

use super::error::ApiError;

/// The number of searches of a user at a time.
const PER_USER: usize = 1;
/// The part of the database connections that searches may use, as a divisor.
const CONNECTIONS_DIVISOR: u32 = 4;
/// The maximum wait for a place: a person types on while the search for the first letters runs.
const MAX_WAIT: Duration = Duration::from_secs(2);
/// The interval between two tries.
const RETRY_INTERVAL: Duration = Duration::from_millis(20);
/// The number of a user's searches that wait at the same time.
const MAX_WAITING_PER_USER: usize = 8;
/// The number of searches that wait at the same time.
const MAX_WAITING: usize = 256;

/// The places of searches.
#[derive(Debug)]
pub struct Searches {
    running: Arc<FairShare>,
    waiting: Arc<FairShare>,
}

impl Searches {
    /// Creates the places, for a process with this number of database connections.
    pub fn new(connections: u32) -> Self {
        let places = usize::try_from(connections / CONNECTIONS_DIVISOR).unwrap_or(usize::MAX).max(1);
        Self { running: FairShare::new(places), waiting: FairShare::new(MAX_WAITING) }
    }

    /// Waits for a place, for at most 2 s. Fails with 429 if the user's other searches take longer, or if too many searches wait.
    pub(super) async fn place(&self, user: &UserId) -> Result<Place, ApiError> {
        let user = user.as_str();
        if let Ok(place) = self.running.take(user, PER_USER) {
            return Ok(place);
        }
        let waiting = self.waiting.take(user, MAX_WAITING_PER_USER);
        let _waiting = waiting.map_err(|_| ApiError::too_many_requests())?;
        let deadline = Instant::now() + MAX_WAIT;
        while Instant::now() < deadline {
            sleep(RETRY_INTERVAL).await;
            if let Ok(place) = self.running.take(user, PER_USER) {
                return Ok(place);
            }
        }
        Err(ApiError::too_many_requests())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_user_searches_once_at_a_time_and_waits_a_moment() {
        let searches = Arc::new(Searches::new(16));
        let (ann, bob): (UserId, UserId) = ("ann".parse().unwrap(), "bob".parse().unwrap());
        let first = searches.place(&ann).await.unwrap();
        assert!(searches.place(&bob).await.is_ok(), "another user does not wait");
        assert!(searches.place(&ann).await.is_err(), "the first search takes too long");
        let second = tokio::spawn({
            let (searches, ann) = (Arc::clone(&searches), ann.clone());
            async move { searches.place(&ann).await.is_ok() }
        });
        sleep(Duration::from_millis(100)).await;
        drop(first);
        assert!(second.await.unwrap(), "the place is free in time");
    }
}
