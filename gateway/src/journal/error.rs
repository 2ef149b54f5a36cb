//! Why an event is not recorded, and why a journal is not opened.

use std::io;
use std::path::PathBuf;

/// Why an event was not recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JournalError {
    /// There is no room for another chat.
    #[error("the journal is full")]
    Full,
    /// The disk does not take it.
    #[error("the journal cannot be written")]
    Unwritable,
    /// The gateway is stopping.
    #[error("the journal is closed")]
    Closed,
    /// It could not be written as JSON.
    #[error("the event could not be encoded")]
    Encoding,
}

/// Why a journal cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum JournalOpenError {
    /// Another process has it.
    #[error("{} is in use by process {holder}: every gateway needs a directory of its own", path.display())]
    Locked {
        /// The directory.
        path: PathBuf,
        /// The process id of the other.
        holder: String,
    },
    /// It cannot be read or written.
    #[error("{} cannot be used", path.display())]
    Unusable {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        #[source]
        error: io::Error,
    },
    /// It was written by another version.
    #[error("{} has the form of version {version}, expected version 1: start the gateway that wrote it once more", path.display())]
    UnsupportedVersion {
        /// The segment.
        path: PathBuf,
        /// Its version.
        version: u32,
    },
}
