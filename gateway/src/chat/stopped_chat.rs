//! A chat that its user stops before the answer has begun.

use std::sync::Arc;

use shared::usage::Usage;

use crate::chat::chat_ending::ChatEnding;
use crate::chat::open_chat::OpenChat;
use crate::error::ApiError;
use crate::response::early_end::EarlyEnd;
use crate::response::transcript::Transcript;
use crate::running::RunningChat;

/// Runs the call to the upstream. Returns `None` if the user stops the chat first: the call is dropped.
pub(super) async fn until_stopped<T>(chat: Option<Arc<RunningChat>>, calling: impl Future<Output = T>) -> Option<T> {
    let Some(chat) = chat else { return Some(calling.await) };
    tokio::select! {
        answer = calling => Some(answer),
        () = chat.stop_requested() => None,
    }
}

/// Ends a chat that was stopped before there was an answer. Returns the error for the client that waits for the answer.
pub(super) async fn end(mut chat: OpenChat) -> ApiError {
    let ended = chat.end(ChatEnding::Early(EarlyEnd::StoppedByUser), Transcript::default(), Usage::default());
    ended.log_line.log(ended.pending.await);
    ApiError::chat_stopped()
}
