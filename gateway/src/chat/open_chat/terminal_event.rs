//! The event of a chat's end.

use shared::event::{AssistantMessage, ChatFailed, Event, MessageCompleted, UpstreamAnswer};
use shared::usage::Usage;

use super::OpenChat;
use crate::chat::chat_ending::ChatEnding;
use crate::response::transcript::Transcript;

impl OpenChat {
    /// Makes the terminal event: `MessageCompleted` or `ChatFailed`.
    pub(super) fn terminal_event(
        &mut self,
        ending: ChatEnding,
        message: Option<AssistantMessage>,
        mut transcript: Transcript,
        usage: Usage,
        duration_ms: u64,
    ) -> Event {
        let finished_at = shared::event::now();
        let gateway = self.admitted_by.clone().unwrap_or_else(|| self.recording.instance.clone());
        let attempts = std::mem::take(&mut self.attempts);
        let traceparent = self.traceparent();
        let upstream = self.upstream.take().map(|name| UpstreamAnswer {
            name,
            model: transcript.model.take(),
            response_id: transcript.response_id.take(),
        });
        let notes = transcript.notes.iter().map(|note| (*note).to_owned()).collect();
        match ending {
            ChatEnding::Failed(stage, error) => Event::ChatFailed(Box::new(ChatFailed {
                chat_id: self.id,
                operation: self.operation,
                conversation_id: self.conversation_id,
                user_id: self.user.clone(),
                key_id: self.key_id,
                project_id: self.project_id,
                gateway,
                started_at: self.started_at,
                failed_at: finished_at,
                model: self.model.clone(),
                stage,
                error,
                message,
                usage,
                media: self.media.take(),
                time_to_first_token_ms: self.first_token_ms,
                duration_ms,
                upstream,
                attempts,
                notes,
                recording: self.mode,
                traceparent,
                restored: None,
            })),
            ChatEnding::Completed | ChatEnding::ClientGone | ChatEnding::Early(_) => {
                Event::MessageCompleted(Box::new(MessageCompleted {
                    chat_id: self.id,
                    operation: self.operation,
                    conversation_id: self.conversation_id,
                    user_id: self.user.clone(),
                    key_id: self.key_id,
                    project_id: self.project_id,
                    gateway,
                    started_at: self.started_at,
                    finished_at,
                    model: self.model.clone(),
                    message: message.or_else(|| {
                        self.operation.answers_with_message().then(|| transcript.message(self.id.assistant_message()))
                    }),
                    usage,
                    media: self.media.take(),
                    time_to_first_token_ms: self.first_token_ms,
                    duration_ms,
                    upstream: upstream.unwrap_or_default(),
                    attempts,
                    notes,
                    recording: self.mode,
                    traceparent,
                    restored: None,
                }))
            }
        }
    }
}
