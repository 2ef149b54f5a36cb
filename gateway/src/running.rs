//! The chats that this gateway runs, by id, so that other requests can reach a running chat: to stop it, or to follow its answer from
//! another connection. Chats of other gateways are reached over the broker.
//!
//! A chat costs one entry of a map here. Nothing is done for its chunks unless somebody follows the answer: a follower reads the transcript
//! that the record is made of.

mod messages;
pub mod peers;
mod recent;

use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use shared::id::{ChatId, ConversationId, UserId};
use tokio::sync::Notify;
use tokio::time::timeout_at;

use crate::response::answer_piece::{Lengths, Piece};
use crate::response::early_end::EarlyEnd;
use recent::RecentChats;

/// The time for which a chat counts as followed after a question for news. A follower asks again within less.
const FOLLOWED_FOR: Duration = Duration::from_secs(3);

/// The answer of a running chat, as other requests reach it.
pub trait RunningAnswer: Debug + Send + Sync {
    /// Ends the answer, if it is still arriving from the upstream. Returns at once; the end is recorded after that.
    fn end_early(self: Arc<Self>, why: EarlyEnd);

    /// Returns what follows after the part that a reader has. `None` after the end of the upstream's answer.
    fn read(&self, have: &Lengths) -> Option<Piece>;
}

/// The news of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// What follows. Empty if nothing has come for a while.
    Piece(Piece),
    /// The answer is no longer arriving. The record has its end, or will have it.
    Ended,
}

/// The ids of a running chat.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct ChatIds {
    /// The chat.
    pub chat: ChatId,
    /// The conversation of the chat.
    pub conversation: Option<ConversationId>,
    /// The id of the answer in the format of `useChat`.
    pub message: String,
}

/// The chats that run here, and those that have ended here recently.
#[derive(Debug, Default)]
pub struct RunningChats(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    running: HashMap<ChatId, Arc<RunningChat>>,
    ended: RecentChats,
}

/// A chat that was found by its id and its user.
#[derive(Clone, Debug)]
pub enum Found {
    /// The chat runs here.
    Running(Arc<RunningChat>),
    /// The chat has run here and has ended. Has the conversation of the chat.
    Ended(Option<ConversationId>),
}

/// A chat that runs here.
#[derive(Debug)]
pub struct RunningChat {
    id: ChatId,
    user: UserId,
    conversation: Option<ConversationId>,
    /// The id of the answer that the client has chosen, for a client that continues one of its messages.
    message: OnceLock<String>,
    is_stop_requested: AtomicBool,
    is_ended: AtomicBool,
    /// Notified when a stop is requested, and when the chat has ended.
    changed: Notify,
    /// The answer, once it has begun. The chat does not own its answer.
    answer: OnceLock<Weak<dyn RunningAnswer>>,
    /// The number of followers that wait for news, and their notification.
    followers: AtomicUsize,
    news: Notify,
    /// The time of the last question for news.
    last_read: Mutex<Option<Instant>>,
}

/// The entry of a chat among those that run here. Dropping the entry means that the chat has ended.
#[derive(Debug)]
pub struct Registration {
    chats: Arc<RunningChats>,
    chat: Arc<RunningChat>,
}

impl RunningChats {
    /// Adds a chat of a user.
    pub fn register(self: &Arc<Self>, id: ChatId, user: &UserId, conversation: Option<ConversationId>) -> Registration {
        let chat = Arc::new(RunningChat {
            id,
            user: user.clone(),
            conversation,
            message: OnceLock::new(),
            is_stop_requested: AtomicBool::new(false),
            is_ended: AtomicBool::new(false),
            changed: Notify::new(),
            answer: OnceLock::new(),
            followers: AtomicUsize::new(0),
            news: Notify::new(),
            last_read: Mutex::default(),
        });
        self.known().running.insert(id, Arc::clone(&chat));
        Registration { chats: Arc::clone(self), chat }
    }

    /// Returns a chat of this user. `None` for a chat of another user, exactly as for a chat that does not exist.
    pub fn find(&self, id: ChatId, user: &UserId) -> Option<Found> {
        let known = self.known();
        match known.running.get(&id) {
            Some(chat) => (chat.user == *user).then(|| Found::Running(Arc::clone(chat))),
            None => known.ended.find(id, user).map(Found::Ended),
        }
    }

    /// Returns the latest chat of a conversation of this user that runs here.
    pub fn find_in(&self, conversation: ConversationId, user: &UserId) -> Option<Arc<RunningChat>> {
        let known = self.known();
        let of_conversation = known.running.values().filter(|chat| chat.conversation == Some(conversation));
        of_conversation.filter(|chat| chat.user == *user).max_by_key(|chat| chat.id).cloned()
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RunningChat {
    /// Requests the end of the chat. The request has no effect on a chat whose end is being recorded.
    pub fn stop(&self) {
        self.is_stop_requested.store(true, Ordering::SeqCst);
        self.changed.notify_waiters();
        if let Some(answer) = self.answer() {
            answer.end_early(EarlyEnd::StoppedByUser);
        }
    }

    /// Ends the answer, because a budget is used up. No effect before the answer, and on a chat whose end is being recorded.
    pub fn cut(&self) {
        if let Some(answer) = self.answer() {
            answer.end_early(EarlyEnd::CutByBudget);
        }
    }

    /// Returns true if the end of the chat was requested.
    pub fn is_stop_requested(&self) -> bool {
        self.is_stop_requested.load(Ordering::SeqCst)
    }

    /// Resolves when the end of the chat is requested.
    pub async fn stop_requested(&self) {
        self.wait(&self.is_stop_requested).await;
    }

    /// Resolves when the end of the chat is on the record, or when the chat has ended without one.
    pub async fn ended(&self) {
        self.wait(&self.is_ended).await;
    }

    /// Makes the answer of the chat reachable.
    pub fn set_answer(&self, answer: Weak<dyn RunningAnswer>) {
        // A chat has one answer.
        let _ = self.answer.set(answer);
        self.tell_followers();
        if self.is_stop_requested()
            && let Some(answer) = self.answer()
        {
            answer.end_early(EarlyEnd::StoppedByUser);
        }
    }

    /// Returns the ids of the chat.
    pub fn ids(&self) -> ChatIds {
        let message = self.message.get().cloned().unwrap_or_else(|| self.id.assistant_message().to_string());
        ChatIds { chat: self.id, conversation: self.conversation, message }
    }

    /// Sets the id of the answer in the format of `useChat`.
    pub fn set_message(&self, id: &str) {
        let _ = self.message.set(id.to_owned());
    }

    /// Returns what follows after the part that a reader has. Waits for news for `wait` at most.
    pub async fn news(&self, have: &Lengths, wait: Duration) -> News {
        let _follower = Follower::of(self);
        let deadline = Instant::now() + wait;
        loop {
            let news = self.news.notified();
            *self.last_read.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
            let piece = match (self.answer.get(), self.is_ended.load(Ordering::SeqCst)) {
                (_, true) => None,
                // The answer has not begun.
                (None, false) => Some(Piece::default()),
                (Some(answer), false) => answer.upgrade().and_then(|answer| answer.read(have)),
            };
            match piece {
                None => return News::Ended,
                Some(piece) if !piece.is_empty() || Instant::now() >= deadline => return News::Piece(piece),
                Some(_) => {
                    let _ = timeout_at(deadline.into(), news).await;
                }
            }
        }
    }

    /// Wakes the followers that wait for news. Costs one read of a number while there are none.
    pub fn tell_followers(&self) {
        if self.followers.load(Ordering::SeqCst) > 0 {
            self.news.notify_waiters();
        }
    }

    /// Returns true if a follower has asked for news within the last 3 seconds.
    pub fn is_followed(&self) -> bool {
        let last_read = *self.last_read.lock().unwrap_or_else(PoisonError::into_inner);
        last_read.is_some_and(|at| at.elapsed() < FOLLOWED_FOR)
    }

    /// Notes that the end of the chat is on the record.
    pub fn mark_ended(&self) {
        self.is_ended.store(true, Ordering::SeqCst);
        self.changed.notify_waiters();
        self.tell_followers();
    }

    fn answer(&self) -> Option<Arc<dyn RunningAnswer>> {
        self.answer.get()?.upgrade()
    }

    async fn wait(&self, flag: &AtomicBool) {
        loop {
            let changed = self.changed.notified();
            if flag.load(Ordering::SeqCst) {
                return;
            }
            changed.await;
        }
    }
}

/// A follower that waits for news.
struct Follower<'a>(&'a RunningChat);

impl<'a> Follower<'a> {
    fn of(chat: &'a RunningChat) -> Self {
        chat.followers.fetch_add(1, Ordering::SeqCst);
        Self(chat)
    }
}

impl Drop for Follower<'_> {
    fn drop(&mut self) {
        self.0.followers.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Registration {
    /// Returns the chat.
    pub fn chat(&self) -> &Arc<RunningChat> {
        &self.chat
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut known = self.chats.known();
        known.running.remove(&self.chat.id);
        known.ended.add(self.chat.id, self.chat.user.clone(), self.chat.conversation);
        drop(known);
        self.chat.mark_ended();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chat_is_found_by_its_user_alone_while_it_runs_and_after_its_end() {
        let (ann, bob): (UserId, UserId) = ("ann".parse().unwrap(), "bob".parse().unwrap());
        let (chats, id) = (Arc::new(RunningChats::default()), ChatId::mint());
        let conversation = ConversationId(uuid::Uuid::now_v7());
        let registration = chats.register(id, &ann, Some(conversation));
        assert!(matches!(chats.find(id, &ann), Some(Found::Running(chat)) if !chat.is_stop_requested()));
        assert!(chats.find(id, &bob).is_none());
        assert!(chats.find(ChatId::mint(), &ann).is_none());
        drop(registration);
        assert!(matches!(chats.find(id, &ann), Some(Found::Ended(known)) if known == Some(conversation)));
        assert!(chats.find(id, &bob).is_none());
    }

    #[tokio::test]
    async fn a_stop_is_heard_before_and_after_the_answer_begins() {
        #[derive(Debug, Default)]
        struct Answer(AtomicBool);
        impl RunningAnswer for Answer {
            fn end_early(self: Arc<Self>, _: EarlyEnd) {
                self.0.store(true, Ordering::SeqCst);
            }

            fn read(&self, _: &Lengths) -> Option<Piece> {
                None
            }
        }
        let user: UserId = "ann".parse().unwrap();
        let chats = Arc::new(RunningChats::default());
        for is_stopped_first in [true, false] {
            let registration = chats.register(ChatId::mint(), &user, None);
            let (chat, answer) = (registration.chat(), Arc::new(Answer::default()));
            let weak = Arc::downgrade(&answer) as Weak<dyn RunningAnswer>;
            if is_stopped_first {
                chat.stop();
                chat.set_answer(weak);
            } else {
                chat.set_answer(weak);
                assert!(!answer.0.load(Ordering::SeqCst));
                chat.stop();
            }
            chat.stop_requested().await;
            assert!(answer.0.load(Ordering::SeqCst), "stopped first: {is_stopped_first}");
            let ended = Arc::clone(chat);
            drop(registration);
            ended.ended().await;
        }
    }
}
