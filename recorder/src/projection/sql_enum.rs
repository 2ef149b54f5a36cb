//! Enums stored as words in rows.

use shared::event::{ConversationOrigin, DialectName, FailureStage, Operation, RecordingMode};
use shared::usage::UsageSource;

use super::message::MessageStatus;

/// An enum stored as a word in a column.
pub trait SqlEnum: Sized {
    /// The word in the column.
    fn as_sql(&self) -> &str;

    /// The value for a word; none when this build cannot read the word.
    fn from_sql(text: &str) -> Option<Self>;
}

/// Open sets of words: a column takes words that this build does not list.
macro_rules! open_sets {
    ($($name:ident)*) => {
        $(impl SqlEnum for $name {
            fn as_sql(&self) -> &str {
                self.as_str()
            }

            fn from_sql(text: &str) -> Option<Self> {
                text.parse().ok()
            }
        })*
    };
}

open_sets! { ConversationOrigin DialectName FailureStage Operation RecordingMode UsageSource }

impl SqlEnum for MessageStatus {
    fn as_sql(&self) -> &str {
        match self {
            Self::Complete => "complete",
            Self::Partial => "partial",
            Self::Truncated => "truncated",
        }
    }

    fn from_sql(text: &str) -> Option<Self> {
        [Self::Complete, Self::Partial, Self::Truncated].into_iter().find(|status| status.as_sql() == text)
    }
}
