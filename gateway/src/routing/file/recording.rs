//! The recording mode of a route or a rule of a routes file.

use serde::Deserialize;
use shared::event::RecordingMode;

/// A mode as the file writes it. Modes of later versions are unknown words, and therefore mistakes.
#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum RecordingEntry {
    Full,
    Metadata,
    None,
}

impl RecordingEntry {
    /// Returns the mode.
    pub(super) fn mode(self) -> RecordingMode {
        match self {
            Self::Full => RecordingMode::Full,
            Self::Metadata => RecordingMode::Metadata,
            Self::None => RecordingMode::None,
        }
    }
}
