//! Database errors: the classification for [`Disposition`](crate::policy::disposition::Disposition), and the text for
//! logs.

use crate::policy::disposition::DatabaseFault;

/// Classifies a database error, so that the pipeline can decide between waiting, splitting a batch and quarantine.
pub fn classify(error: &sqlx::Error) -> DatabaseFault {
    match error {
        sqlx::Error::Database(error) => DatabaseFault::Sqlstate(error.code().unwrap_or_default().into_owned()),
        sqlx::Error::Encode(_) | sqlx::Error::InvalidArgument(_) => DatabaseFault::Unencodable,
        sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => DatabaseFault::Unreadable,
        _ => DatabaseFault::Unreachable,
    }
}

/// The text of a database error for logs and reports. PostgreSQL's detail is left out, because the detail repeats the
/// row and therefore the text of a chat.
pub fn describe(error: &sqlx::Error) -> String {
    match error {
        sqlx::Error::Database(error) => {
            let place = error.constraint().or(error.table()).map(|name| format!(" ({name})")).unwrap_or_default();
            format!("{} {}{place}", error.code().unwrap_or_default(), error.message())
        }
        error => error.to_string(),
    }
}
