//! The places of chats: a maximum in all, and a maximum for each user, so that one user's streams keep nobody else out.

use std::sync::Arc;

use shared::fair_share::{FairShare, NoPlace, Place};
use shared::id::UserId;

use crate::error::ApiError;

/// The places of the gateway for chats (`GATEWAY_MAX_CHATS`), or for chats in the background.
#[derive(Debug)]
pub struct ChatPlaces {
    share: Arc<FairShare>,
    /// The maximum number of places of one user (`GATEWAY_CHATS_USER_SHARE`).
    max_of_user: usize,
}

impl ChatPlaces {
    /// Creates this number of places. `user_share` is the share that one user may take, in per cent; at least one place.
    pub fn new(places: usize, user_share: usize) -> Self {
        Self { share: FairShare::new(places), max_of_user: (places * user_share / 100).max(1) }
    }

    /// Takes a place. Returns 429 if the user has its maximum, and 503 if all places are taken.
    pub fn take(&self, user: &UserId) -> Result<Place, ApiError> {
        self.share.take(user.as_str(), self.max_of_user).map_err(|reason| match reason {
            NoPlace::HolderHasShare => ApiError::too_many_chats_of_user(),
            NoPlace::AllTaken => ApiError::too_many_chats(),
        })
    }
}
