//! `POST /api/conversations`: opens a conversation ahead of its first chat.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use shared::event::{ConversationCreated, Event};
use shared::id::ConversationId;
use time::OffsetDateTime;

use super::Gateway;
use crate::error::ApiError;
use crate::request::InvalidRequest;

/// The longest title, in characters.
const MAX_TITLE: usize = 200;

#[derive(Default, Deserialize)]
#[serde(default)]
struct NewConversation {
    title: Option<String>,
    model: Option<String>,
    temperature: Option<f64>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Created {
    id: ConversationId,
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
}

/// Makes an id, and answers when the conversation is on the record.
pub(super) async fn create(State(gateway): State<Arc<Gateway>>, request: Request) -> Result<Response, ApiError> {
    gateway.create_conversation(request).await.map_err(|error| gateway.refuse(error))
}

impl Gateway {
    async fn create_conversation(&self, request: Request) -> Result<Response, ApiError> {
        let (caller, _, body) = self.read_json(request).await?;
        let new = parse(&body)?;
        let recording = &self.chats.recording;
        if !recording.journal.is_available() {
            return Err(ApiError::cannot_record());
        }
        let created_at = shared::event::now();
        let id = self.chats.conversations.mint(&caller.user, created_at);
        let recorded = recording.journal.record(&Event::ConversationCreated(Box::new(ConversationCreated {
            conversation_id: id,
            user_id: caller.user,
            created_at,
            title: new.title,
            model: new.model,
            temperature: new.temperature,
        })));
        self.chats.durable(recorded).await?;
        Ok((StatusCode::CREATED, Json(Created { id, created_at })).into_response())
    }
}

fn parse(body: &[u8]) -> Result<NewConversation, InvalidRequest> {
    let invalid = |message: String, param| InvalidRequest { message, param };
    if body.trim_ascii().is_empty() {
        return Ok(NewConversation::default());
    }
    let new: NewConversation = serde_json::from_slice(body).map_err(|error| {
        invalid(format!("expected an object with title, model and temperature, all optional: {error}"), None)
    })?;
    if new.title.as_ref().is_some_and(|title| title.chars().count() > MAX_TITLE) {
        return Err(invalid(format!("title: expected at most {MAX_TITLE} characters"), Some("title")));
    }
    if new.model.as_ref().is_some_and(|model| model.is_empty() || model.len() > 256) {
        return Err(invalid("model: expected a model name of 1 to 256 bytes".into(), Some("model")));
    }
    Ok(new)
}
