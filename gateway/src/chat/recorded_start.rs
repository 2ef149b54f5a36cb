//! Waiting for the journal before an answer begins.

use shared::event::{ChatError, FailureStage};
use shared::trace_context::TraceContext;
use tokio::time::timeout;

use super::ChatPipeline;
use super::open_chat::OpenChat;
use crate::error::ApiError;
use crate::journal::Recorded;
use crate::spans::{self, JournalPart};

impl ChatPipeline {
    /// Waits until the journal has accepted the start of a chat, before the upstream is asked. Does not wait for the disk
    /// unless room for the chat has to be found there. Returns 503 if there is no room, or after `start_timeout`.
    pub(crate) async fn wait_until_accepted(
        &self,
        chat: OpenChat,
        started: &mut Recorded,
    ) -> Result<OpenChat, ApiError> {
        match timeout(self.start_timeout, started.accepted()).await {
            Ok(Ok(())) => Ok(chat),
            Ok(Err(_)) => {
                chat.cancel_unstarted();
                Err(ApiError::journal_unavailable())
            }
            // The start is recorded when the disk answers again.
            Err(_) => Err(self.fail_unrecorded(chat, ApiError::journal_unavailable())),
        }
    }

    /// Waits until the start is written to the journal: from then on the start survives a crash of the process, and the
    /// answer may begin. Returns the start, because the configured durability may ask for more than the write; the chat's end
    /// waits for the rest. Returns 503 if the start cannot be recorded, or after `start_timeout`.
    /// `call` is the span of the call.
    pub(crate) async fn wait_until_written(
        &self,
        mut started: Recorded,
        call: Option<TraceContext>,
    ) -> Result<Option<Recorded>, ApiError> {
        let tracer = &self.recording.tracer;
        let traced = tracer.kept(call).map(|call| (call, shared::event::now()));
        let written = timeout(self.start_timeout, started.written()).await;
        if let Some((call, began)) = traced {
            spans::send_journal(tracer, call, JournalPart::Start, began);
        }
        match written {
            Ok(Ok(())) => Ok(Some(started)),
            Ok(Err(_)) | Err(_) => Err(ApiError::journal_unavailable()),
        }
    }

    /// Waits for an event to become durable, at most for `start_timeout`. Returns 503 if the time is over or the event
    /// cannot be recorded.
    pub async fn wait_until_durable(&self, recorded: Recorded) -> Result<(), ApiError> {
        match timeout(self.start_timeout, recorded).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(ApiError::journal_unavailable()),
        }
    }

    /// Ends a chat whose start could not be made durable in time. Returns `refusal`, the error for the client.
    #[expect(clippy::unused_self, reason = "one of the ends of a chat, beside the others")]
    pub(crate) fn fail_unrecorded(&self, mut chat: OpenChat, refusal: ApiError) -> ApiError {
        let failure = ChatError::new("journal_unavailable", "the start could not be made durable");
        super::end_failed(&mut chat, FailureStage::UpstreamConnect, failure).detach();
        refusal
    }
}
