//! From columns back to the projection's types.

use shared::id::UserId;
use time::{OffsetDateTime, UtcOffset};

use crate::projection::sql_enum::SqlEnum;

/// A value in a row that this build cannot read.
#[derive(Debug, thiserror::Error)]
#[error("{column} holds something that this recorder does not know: is there a newer one?")]
pub struct UnreadableColumn {
    column: &'static str,
}

impl From<UnreadableColumn> for sqlx::Error {
    fn from(error: UnreadableColumn) -> Self {
        Self::Decode(Box::new(error))
    }
}

pub(super) fn sql_enum<T: SqlEnum>(column: &'static str, text: Option<&str>) -> Result<T, UnreadableColumn> {
    text.and_then(T::from_sql).ok_or(UnreadableColumn { column })
}

pub(super) fn user_id(text: String) -> Result<UserId, UnreadableColumn> {
    UserId::try_from(text).map_err(|_| UnreadableColumn { column: "user_id" })
}

pub(super) fn utc(at: OffsetDateTime) -> OffsetDateTime {
    at.to_offset(UtcOffset::UTC)
}
