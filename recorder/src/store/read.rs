//! From columns back to the projection's types.

use shared::id::UserId;
use time::{OffsetDateTime, UtcOffset};

use crate::projection::sql_enum::Word;

/// A value in a row that this build cannot read.
#[derive(Debug, thiserror::Error)]
#[error("{column} holds something that this recorder does not know: is there a newer one?")]
pub struct Unreadable {
    column: &'static str,
}

impl From<Unreadable> for sqlx::Error {
    fn from(error: Unreadable) -> Self {
        Self::Decode(Box::new(error))
    }
}

pub(super) fn word<T: Word>(column: &'static str, text: Option<&str>) -> Result<T, Unreadable> {
    text.and_then(T::from_word).ok_or(Unreadable { column })
}

pub(super) fn user(text: String) -> Result<UserId, Unreadable> {
    UserId::try_from(text).map_err(|_| Unreadable { column: "user_id" })
}

pub(super) fn utc(at: OffsetDateTime) -> OffsetDateTime {
    at.to_offset(UtcOffset::UTC)
}
