//! Enums stored as words in rows. The CHECK constraints of the tables list the same words.

use shared::event::{ConversationOrigin, DialectName, FailureStage};
use shared::usage::UsageSource;

use super::message::MessageStatus;

/// An enum stored as a word in a column.
pub trait SqlEnum: Copy + Sized + 'static {
    /// All values of the enum.
    const ALL: &'static [Self];

    /// The word in the column.
    fn as_sql(self) -> &'static str;

    /// The value for a word; none when this build does not know the word.
    fn from_sql(text: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|value| value.as_sql() == text)
    }
}

impl SqlEnum for ConversationOrigin {
    const ALL: &'static [Self] = &[Self::Minted, Self::Given, Self::Derived];

    fn as_sql(self) -> &'static str {
        match self {
            Self::Minted => "minted",
            Self::Given => "given",
            Self::Derived => "derived",
        }
    }
}

impl SqlEnum for DialectName {
    const ALL: &'static [Self] = &Self::ALL;

    fn as_sql(self) -> &'static str {
        self.as_str()
    }
}

impl SqlEnum for FailureStage {
    const ALL: &'static [Self] = &[
        Self::UpstreamConnect,
        Self::UpstreamStatus,
        Self::UpstreamStream,
        Self::ClientGone,
        Self::GatewayRestarted,
        Self::GatewayLost,
    ];

    fn as_sql(self) -> &'static str {
        self.as_str()
    }
}

impl SqlEnum for UsageSource {
    const ALL: &'static [Self] = &[Self::Reported, Self::Estimated, Self::Unknown];

    fn as_sql(self) -> &'static str {
        self.as_str()
    }
}

impl SqlEnum for MessageStatus {
    const ALL: &'static [Self] = &[Self::Complete, Self::Partial, Self::Truncated];

    fn as_sql(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Partial => "partial",
            Self::Truncated => "truncated",
        }
    }
}
