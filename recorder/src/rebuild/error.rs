//! The errors that end a projection of the log.

use crate::source::log::LogError;
use crate::source::setup::SetupError;
use crate::store;
use crate::store::losses::Losses;
use crate::store::shadow::ShadowError;

/// An error that ends a projection of the log. An error before the swap of a rebuild leaves the live tables unchanged.
#[derive(Debug, thiserror::Error)]
pub enum ReprojectionError {
    /// A signal stopped the command.
    #[error("stopped before the end: the tables are unchanged")]
    Stopped,
    /// The log cannot be read.
    #[error("cannot read the log: {0}")]
    LogReader(#[from] LogError),
    /// The stream or the recorders' consumer is missing, differs from the expected settings, or cannot be read.
    #[error("cannot use the stream or the recorders' consumer: {0}")]
    Consumer(#[from] SetupError),
    /// The shadow cannot be created or used.
    #[error(transparent)]
    ShadowSchema(#[from] ShadowError),
    /// The database reported an error.
    #[error("database error: {}", store::describe(.0))]
    Database(#[from] sqlx::Error),
    /// The database refused the content of sums over many batches, so the event to blame is unknown. The run is
    /// repeated with [`AggregateFlush::PerBatch`](super::reprojection::AggregateFlush::PerBatch).
    #[error("the database refused the sums of many events")]
    SumsRefused,
    /// Recorders price chats anew, after a change of prices, and have not finished in an hour.
    #[error("recorders are pricing chats anew after a change of prices: try again when they have finished")]
    Repricing,
    /// The task that reads the log panicked, or an earlier call failed.
    #[error("the task that reads the log ended unexpectedly")]
    Reader,
    /// Undecodable events are not in quarantine, and the live tables may still have the rows of these events.
    #[error(
        "{count} events of the log cannot be read, the first at sequence {first}, and are not in quarantine: a rebuild \
         would lose the rows of these events, so the tables are unchanged. Restore the missing bodies in bucket BODIES, use a \
         recorder version that can read the events, or wait until the recorders have reached the events; \
         --without-unreadable goes on without the rows"
    )]
    Unreadable {
        /// The number of such events.
        count: u64,
        /// The sequence of the first such event in the stream.
        first: u64,
    },
    /// The live tables have rows or facts that the log lacks.
    #[error(
        "the log lacks events whose rows are in the tables, and the tables may have the last copy, so the tables are \
         unchanged. After a rebuild, rows would be lost: {0}. `recorder verify` lists the rows; wait until the gateways have \
         published their journals, then `recorder restore-events` makes the lost events of stream CHATS again; --drop-missing goes on \
         without the rows"
    )]
    WouldLose(Losses),
    /// Undecodable events are not in quarantine, so that it is unknown whether they are lost.
    #[error(
        "{count} events of the log cannot be read, the first at sequence {first}, and are not in quarantine: nothing was \
         published. Restore the missing bodies in bucket BODIES, use a recorder version that can read the events, or wait until the \
         recorders have reached the events; --unreadable-as-lost makes these events again"
    )]
    UnreadableInLog {
        /// The number of such events.
        count: u64,
        /// The sequence of the first such event in the stream.
        first: u64,
    },
    /// The broker did not take an event within a minute.
    #[error("the broker does not take an event: {0}; run the command again to go on")]
    Publication(String),
}
