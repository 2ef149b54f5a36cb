//! Errors of recording an event, and of opening a journal.

use std::io;
use std::path::PathBuf;

/// Reasons for which the journal refuses an event. A refused event is stored nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JournalError {
    /// The journal has no room for another chat: the configured maximum size is reached, or the disk is full.
    #[error("the journal is full")]
    Full,
    /// The log cannot be written, because the disk has failed. The sync thread retries once a second.
    #[error("the journal cannot be written")]
    Unwritable,
    /// Events have been waiting for the disk for 2 s, or too many wait: the disk does not answer.
    #[error("the journal's disk does not answer")]
    Stuck,
    /// The gateway is stopping, and the journal accepts no more events.
    #[error("the journal is closed")]
    Closed,
    /// The event cannot be encoded as JSON, or is too long for a record.
    #[error("the event could not be encoded")]
    Encoding,
}

/// Returns true if the error says that the disk, or the share of the gateway's user, has no room.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Reasons for which a journal cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum JournalOpenError {
    /// Another process holds the lock on the directory.
    #[error("{} is in use by process {holder}: every gateway needs a directory of its own", path.display())]
    Locked {
        /// The journal's directory, below `GATEWAY_DATA_DIR`.
        path: PathBuf,
        /// The process id in the lock file, or an empty string if the lock file cannot be read.
        holder: String,
    },
    /// The directory, or a file in the directory, cannot be created, read or written.
    #[error("the journal cannot use {}", path.display())]
    Unusable {
        /// The path of the file or directory that failed.
        path: PathBuf,
        /// The error of the operating system.
        #[source]
        error: io::Error,
    },
    /// A gateway with another format version wrote a segment.
    #[error("{} has journal format version {version}, expected version 1: start the gateway version that wrote the file once more", path.display())]
    UnsupportedVersion {
        /// The path of the segment file.
        path: PathBuf,
        /// The format version in the segment's header.
        version: u32,
    },
}
