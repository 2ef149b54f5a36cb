//! Errors of the database: what kind of trouble one is, and the error in words.

use crate::policy::disposition::DatabaseFault;

/// What kind of trouble an error is.
pub fn classify(error: &sqlx::Error) -> DatabaseFault {
    match error {
        sqlx::Error::Database(error) => DatabaseFault::Sqlstate(error.code().unwrap_or_default().into_owned()),
        sqlx::Error::Encode(_) | sqlx::Error::InvalidArgument(_) => DatabaseFault::Unencodable,
        sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => DatabaseFault::Unreadable,
        _ => DatabaseFault::Unreachable,
    }
}

/// The error in words. PostgreSQL's detail is left out: it repeats the row, and so the text of a chat.
pub fn describe(error: &sqlx::Error) -> String {
    match error {
        sqlx::Error::Database(error) => {
            let place = error.constraint().or(error.table()).map(|name| format!(" ({name})")).unwrap_or_default();
            format!("{} {}{place}", error.code().unwrap_or_default(), error.message())
        }
        error => error.to_string(),
    }
}
