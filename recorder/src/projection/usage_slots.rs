//! Quarters of an hour: what a day in any time zone can be summed from, as every zone's offset has been a multiple of 15
//! minutes since 1972.

use shared::id::UserId;
use time::OffsetDateTime;

/// How long a slot is, in seconds.
pub const SLOT_SECONDS: i64 = 15 * 60;

/// The model of what has none.
pub const NO_MODEL: &str = "";

/// The longest model name that is told from others, in bytes: it is part of a key, which an index must be able to hold.
const MAX_MODEL_BYTES: usize = 256;

/// What is kept of a longer one, in characters.
const TRUNCATED_MODEL_CHARACTERS: usize = 64;

/// The key of a row of `usage_slots`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SlotKey {
    /// The user.
    pub user_id: UserId,
    /// When the quarter of an hour begins.
    pub slot_at: OffsetDateTime,
    /// The model.
    pub model: String,
}

impl SlotKey {
    /// The slot of this time.
    pub fn new(user: &UserId, at: OffsetDateTime, model: &str) -> Self {
        let seconds = at.unix_timestamp().div_euclid(SLOT_SECONDS) * SLOT_SECONDS;
        // What is earlier than any time that there is does not exist.
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
