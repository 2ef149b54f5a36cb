//! The conversion from column values to the types of the projection.

use shared::event::{Budget, LimitScope};
use shared::id::UserId;
use time::{OffsetDateTime, UtcOffset};

use crate::projection::sql_enum::SqlEnum;

/// A column value that this build cannot read, most likely written by a newer recorder.
#[derive(Debug, thiserror::Error)]
#[error(
    "column {column} has a value unknown to this recorder: a newer recorder may have written the row; upgrade this recorder"
)]
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

pub(super) fn limit_scope(text: &str) -> Result<LimitScope, UnreadableColumn> {
    text.parse().map_err(|_| UnreadableColumn { column: "scope" })
}

pub(super) fn budget(value: serde_json::Value) -> Result<Box<Budget>, UnreadableColumn> {
    serde_json::from_value(value).map_err(|_| UnreadableColumn { column: "budget" })
}

pub(super) fn utc(at: OffsetDateTime) -> OffsetDateTime {
    at.to_offset(UtcOffset::UTC)
}
