//! Why a projection of the log was given up.

use crate::source::log::LogError;
use crate::source::setup::SetupError;
use crate::store;
use crate::store::shadow::ShadowError;

/// Why a projection was given up.
#[derive(Debug, thiserror::Error)]
pub enum ReprojectionError {
    /// It was told to stop.
    #[error("stopped: the tables are as they were")]
    Stopped,
    /// The log cannot be read.
    #[error("the log: {0}")]
    LogReader(#[from] LogError),
    /// The recorders' consumer cannot be asked.
    #[error("the log: {0}")]
    Consumer(#[from] SetupError),
    /// The shadow cannot be made, or cannot be used.
    #[error(transparent)]
    ShadowSchema(#[from] ShadowError),
    /// The database's own trouble.
    #[error("the database: {}", store::describe(.0))]
    Database(#[from] sqlx::Error),
    /// The database refuses for its content what was held back of many batches: of which event's it is cannot be told.
    #[error("the database refuses the sums of many events")]
    SumsRefused,
    /// The task that reads died.
    #[error("the reader of the log died")]
    Reader,
    /// The tables may have what the log does not say any more.
    #[error(
        "{count} events of the log cannot be read, the first at sequence {first}, and are not in quarantine: what the tables \
         have of them would be gone, so the tables are as they were. Put back what bucket BODIES has lost, use a recorder of a \
         version that can read them, or wait until the recorders have come to them; --without-unreadable gives them up"
    )]
    Unreadable {
        /// How many.
        count: u64,
        /// Where the first one is.
        first: u64,
    },
}
