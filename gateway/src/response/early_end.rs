//! The end of an answer before the end of the provider.

/// The reason for which the gateway ends an answer before the provider does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EarlyEnd {
    /// The user stopped the chat.
    StoppedByUser,
    /// A budget is used up.
    CutByBudget,
}

impl EarlyEnd {
    /// Returns one of two words: for an answer that was stopped, or for an answer that was cut.
    pub fn word(self, stopped: &'static str, cut: &'static str) -> &'static str {
        match self {
            Self::StoppedByUser => stopped,
            Self::CutByBudget => cut,
        }
    }
}
