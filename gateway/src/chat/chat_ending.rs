//! The way in which a chat ends, and what the record says of it.

use shared::event::{CUT_BY_BUDGET, ChatError, FailureStage, STOPPED_BY_USER};

use crate::response::early_end::EarlyEnd;
use crate::response::transcript::Transcript;

/// The way in which a chat ends.
#[derive(Debug)]
pub enum ChatEnding {
    /// The answer is complete.
    Completed,
    /// The chat failed at this stage with this error.
    Failed(FailureStage, ChatError),
    /// The client disconnected before the end of the answer.
    ClientGone,
    /// The gateway ended the answer before the upstream did.
    Early(EarlyEnd),
}

impl ChatEnding {
    /// Returns the end for the record. A chat that was left, stopped or cut after some of the answer counts as completed, with a finish reason
    /// of its own; without any of the answer it has failed. `is_stopping`: the gateway is being cut off.
    #[must_use]
    pub(super) fn resolve(self, transcript: &mut Transcript, is_stopping: bool) -> Self {
        let (finish_reason, stage, message) = match self {
            Self::ClientGone if is_stopping => {
                let error = ChatError::new("gateway_stopped", "the gateway was stopped");
                return Self::Failed(FailureStage::GatewayRestarted, error);
            }
            Self::ClientGone => ("client_gone", FailureStage::ClientGone, "the client left before there was an answer"),
            Self::Early(EarlyEnd::CutByBudget) => {
                let message = "the budget was used up before there was an answer";
                (CUT_BY_BUDGET, FailureStage::UpstreamStream, message)
            }
            Self::Early(EarlyEnd::StoppedByUser) => {
                let message = "the user stopped the chat before there was an answer";
                (STOPPED_BY_USER, FailureStage::StoppedByUser, message)
            }
            other => return other,
        };
        if transcript.has_any_content() {
            transcript.finish_reason = Some(finish_reason.to_owned());
            return Self::Completed;
        }
        Self::Failed(stage, ChatError::new(finish_reason, message))
    }
}
