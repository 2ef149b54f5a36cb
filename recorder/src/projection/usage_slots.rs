//! Usage by quarter of an hour. A day in any time zone is a sum of such slots, because every zone's offset has been a
//! multiple of 15 minutes since 1972.

use shared::id::UserId;
use time::OffsetDateTime;

/// The length of a slot, in seconds.
pub const SLOT_SECONDS: i64 = 15 * 60;

/// The model in the key of contributions that have no model, such as a new conversation.
pub const NO_MODEL: &str = "";

/// The maximum length of a model name that is stored whole, in bytes. The name is part of a key, and an index entry has
/// a maximum size.
const MAX_MODEL_BYTES: usize = 256;

/// The length to which a longer model name is cut, in characters.
const TRUNCATED_MODEL_CHARACTERS: usize = 64;

/// The key of a row of `usage_slots`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SlotKey {
    /// The user whose usage is counted.
    pub user_id: UserId,
    /// The beginning of the quarter of an hour.
    pub slot_at: OffsetDateTime,
    /// The model, cut to 64 characters when longer than 256 bytes; [`NO_MODEL`] without a model.
    pub model: String,
}

impl SlotKey {
    /// The key of the slot that contains the given time.
    pub fn new(user: &UserId, at: OffsetDateTime, model: &str) -> Self {
        let seconds = at.unix_timestamp().div_euclid(SLOT_SECONDS) * SLOT_SECONDS;
        // The fallback is reached only by a time with a UTC form before the first time that `OffsetDateTime` can
        // represent.
        let slot_at = OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH);
        let model = if model.len() <= MAX_MODEL_BYTES {
            model.into()
        } else {
            model.chars().take(TRUNCATED_MODEL_CHARACTERS).collect()
        };
        Self { user_id: user.clone(), slot_at, model }
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    #[test]
    fn a_time_belongs_to_the_quarter_of_an_hour_that_contains_it() {
        let user = "u".parse().unwrap();
        let slot = |at| SlotKey::new(&user, at, "m").slot_at;
        assert_eq!(slot(datetime!(2026-11-24 16:14:59.999999 UTC)), datetime!(2026-11-24 16:00 UTC));
        assert_eq!(slot(datetime!(2026-11-24 16:15 UTC)), datetime!(2026-11-24 16:15 UTC));
        assert_eq!(slot(datetime!(1969-12-31 23:59 UTC)), datetime!(1969-12-31 23:45 UTC));
        assert_eq!(SlotKey::new(&user, datetime!(2026-01-01 0:00 UTC), &"ü".repeat(200)).model, "ü".repeat(64));
    }
}
