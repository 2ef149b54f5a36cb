//! A chat whose answer the provider makes in the background: the event that says so, and the chat as another process goes on with it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use shared::event::{ChatDeferred, DialectName, Event};
use shared::fair_share::Place;
use shared::traces::Position;

use super::OpenChat;
use crate::chat::recording::Recording;
use crate::chat::response_state::is_plain_id;
use crate::journal::Recorded;
use crate::response::token_estimate::Prompt;
use crate::response::transcript::Transcript;
use crate::routing::OnDisconnect;

impl OpenChat {
    /// Records that the provider makes the answer in the background, and moves the chat to a place of such chats. Returns the event, and
    /// the event on the way to durability. The prompt is let go: a chat may be open for hours.
    pub fn defer(&mut self, response_id: &str, place: Place) -> (Arc<ChatDeferred>, Recorded) {
        self.place = Some(place);
        self.prompt = Prompt::default();
        self.record_deferral(response_id)
    }

    fn record_deferral(&self, response_id: &str) -> (Arc<ChatDeferred>, Recorded) {
        let event = ChatDeferred {
            chat_id: self.id,
            operation: self.operation,
            conversation_id: self.conversation_id,
            user_id: self.user.clone(),
            key_id: self.key_id,
            project_id: self.project_id,
            gateway: self.recording.instance.clone(),
            started_at: self.started_at,
            deferred_at: shared::event::now(),
            model: self.model.clone(),
            upstream: self.upstream.clone().unwrap_or_default(),
            response_id: response_id.to_owned(),
            recording: self.mode,
            traceparent: self.traceparent(),
            restored: None,
        };
        if let Some(conversation) = self.conversation_id {
            self.recording.responses.remember(&self.user, response_id, conversation);
        }
        let recorded = self.recording.journal.record(&Event::ChatDeferred(Box::new(event.clone())));
        (Arc::new(event), recorded)
    }

    /// Records that the provider makes a streamed answer in the background, as soon as the answer has said its id.
    pub(super) fn note_background(&mut self, transcript: &Transcript) {
        if self.background.is_some()
            && self.deferral.is_none()
            && let Some(id) = transcript.response_id.as_deref().filter(|id| is_plain_id(id))
        {
            let (event, recorded) = self.record_deferral(id);
            // The event is not an end, so nobody waits for it.
            drop(recorded);
            self.deferral = Some(event);
        }
    }

    /// Hands a chat whose stream has ended early over to those that follow answers in the background. Returns false if the provider does not
    /// make the answer in the background. The chat that is left has ended.
    pub fn hand_over(&mut self) -> bool {
        let (Some(event), Some(background)) = (self.deferral.take(), self.background.take()) else { return false };
        self.is_ended = true;
        let chat = Self {
            recording: Arc::clone(&self.recording),
            model: self.model.clone(),
            user: self.user.clone(),
            admitted_by: self.admitted_by.take(),
            attempts: std::mem::take(&mut self.attempts),
            upstream: self.upstream.take(),
            media: self.media.take(),
            prompt: Prompt::default(),
            started: self.started.take(),
            is_ended: false,
            claim: self.claim.take(),
            notes: std::mem::take(&mut self.notes),
            limits: self.limits.take(),
            running: self.running.take(),
            place: Some(background.place),
            background: None,
            deferral: None,
            ..*self
        };
        if let Err(unsent) = background.deferrals.send((chat, event)) {
            unsent.0.0.leave_open();
        }
        true
    }

    /// Returns true if the chat has ended, or goes on without this owner.
    pub fn is_ended(&self) -> bool {
        self.is_ended
    }

    /// Goes on with a chat that another process has deferred, to end it.
    pub fn resume(recording: &Arc<Recording>, event: &ChatDeferred, place: Option<Place>) -> Self {
        let age = Duration::try_from(shared::event::now() - event.started_at).unwrap_or_default();
        recording.metrics.chats_open.inc();
        Self {
            recording: Arc::clone(recording),
            id: event.chat_id,
            operation: event.operation,
            conversation_id: event.conversation_id,
            origin: None,
            dialect: DialectName::OpenaiResponses,
            user: event.user_id.clone(),
            key_id: event.key_id,
            project_id: event.project_id,
            admitted_by: Some(event.gateway.clone()),
            mode: event.recording,
            trace: event.traceparent.map(|context| Position { context, parent: None }),
            started_at: event.started_at,
            admitted_at: Instant::now().checked_sub(age).unwrap_or_else(Instant::now),
            model: event.model.clone(),
            attempts: Vec::new(),
            first_token_ms: None,
            upstream: Some(event.upstream.clone()),
            media: None,
            prompt: Prompt::default(),
            started: None,
            is_ended: false,
            claim: None,
            on_disconnect: OnDisconnect::Cancel,
            notes: vec!["resumed_in_background"],
            limits: None,
            background: None,
            deferral: None,
            running: Some(recording.running.register(event.chat_id, &event.user_id, event.conversation_id)),
            place,
        }
    }

    /// Lets the chat go without an end, when the gateway stops: the next process goes on with it.
    pub fn leave_open(mut self) {
        self.is_ended = true;
        if let Some(claim) = self.claim.take() {
            claim.keep();
        }
        self.recording.metrics.chats_open.dec();
    }
}
