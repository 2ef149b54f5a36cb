//! Asking the broker for the money of an answer that streams.

use std::sync::Arc;

use crate::grants::budget_hold::Asking;
use crate::running::RunningChat;

/// Asks in the background. The answer goes on meanwhile, and is ended if a budget is used up.
pub(super) fn ask(asking: Asking, chat: Option<Arc<RunningChat>>) {
    tokio::spawn(async move {
        if let (false, Some(chat)) = (asking.is_granted().await, chat) {
            chat.cut();
        }
    });
}
