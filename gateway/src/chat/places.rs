//! The places of chats: a maximum in all, and a maximum for each user, so that one user's streams keep nobody else out.

use std::sync::Arc;

use shared::fair_share::{FairShare, NoPlace, Place};
use shared::id::UserId;

use crate::error::ApiError;
use crate::limits::Limits;

/// The places of all chats of the gateway (`GATEWAY_MAX_CHATS`).
#[derive(Debug)]
pub struct ChatPlaces {
    share: Arc<FairShare>,
    /// The maximum number of places of one user (`GATEWAY_CHATS_USER_SHARE`).
    max_of_user: usize,
}

impl ChatPlaces {
    /// Creates the places within the limits.
    pub fn new(limits: &Limits) -> Self {
        let max_of_user = (limits.max_chats * limits.chats_user_share / 100).max(1);
        Self { share: FairShare::new(limits.max_chats), max_of_user }
    }

    /// Takes a place. Returns 429 if the user has its maximum, and 503 if all places are taken.
    pub fn take(&self, user: &UserId) -> Result<Place, ApiError> {
        self.share.take(user.as_str(), self.max_of_user).map_err(|reason| match reason {
            NoPlace::HolderHasShare => ApiError::too_many_chats_of_user(),
            NoPlace::AllTaken => ApiError::too_many_chats(),
        })
    }
}
