//! The replacement of `parquet.rs` in a build without the feature `parquet`: the same interface, and every call that
//! would write a file returns an error.

use std::io;
use std::path::Path;

use shared::event::Event;

use crate::projection::chat::Chat;
use crate::projection::message::Message;

/// The error of every attempt to write a Parquet file.
#[derive(Debug, thiserror::Error)]
#[error(
    "this recorder was built without Parquet: build one with `cargo build --release -p recorder`, which makes target/release/recorder"
)]
pub struct NotBuilt;

/// A dataset that cannot be written.
#[derive(Debug)]
pub struct DatasetWriter;

impl DatasetWriter {
    /// Takes the arguments of the real dataset and ignores them.
    pub fn new(_directory: &Path, _name: &str, _day: &str) -> Self {
        Self
    }

    /// Returns [`NotBuilt`] in place of adding the chat.
    pub fn add_chat(&mut self, _chat: &Chat) -> Result<(), NotBuilt> {
        Err(NotBuilt)
    }

    /// Returns [`NotBuilt`] in place of adding the message.
    pub fn add_message(&mut self, _message: &Message) -> Result<(), NotBuilt> {
        Err(NotBuilt)
    }

    /// Returns [`NotBuilt`] in place of adding the conversation event.
    pub fn add_conversation_event(&mut self, _event: &Event) -> Result<(), NotBuilt> {
        Err(NotBuilt)
    }

    /// Returns [`NotBuilt`] in place of the number of rows.
    pub fn finish(self) -> Result<u64, NotBuilt> {
        Err(NotBuilt)
    }
}

/// Returns [`NotBuilt`]: this build never starts a Parquet file, so no unfinished file can exist.
pub fn remove_unfinished(_directory: &Path, _name: &str, _day: &str) -> io::Result<()> {
    Err(io::Error::other(NotBuilt))
}

/// Returns [`NotBuilt`]. Called before the log is read, so that the command fails at once.
pub fn ensure_built() -> Result<(), NotBuilt> {
    Err(NotBuilt)
}
