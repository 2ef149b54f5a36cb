//! The chats whose answers providers make in the background, as far as this gateway follows them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use shared::event::ChatDeferred;
use shared::fair_share::Place;
use shared::id::UserId;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::chat::open_chat::{BackgroundPlace, Deferral, OpenChat};
use crate::chat::places::ChatPlaces;
use crate::limits::Limits;
use crate::metrics::Metrics;

/// The maximum number of documents that are read from providers at a time. Each takes up to 24 MiB.
const MAX_READS: usize = 32;

/// The chats that this gateway follows, by user and id of the response, and the places of such chats.
#[derive(Debug)]
pub struct BackgroundChats {
    /// The places of chats in the background (`GATEWAY_MAX_BACKGROUND_CHATS`).
    pub places: ChatPlaces,
    /// The time after which a chat is no longer followed (`GATEWAY_BACKGROUND_TIMEOUT`).
    pub timeout: Duration,
    /// One permit for each document that may be read at a time.
    pub reads: Semaphore,
    /// The tasks that follow chats.
    pub tasks: TaskTracker,
    /// Cancelled when the gateway stops. The chats stay open for the next process.
    pub stop: CancellationToken,
    deferrals: UnboundedSender<Deferral>,
    followed: Mutex<HashMap<(UserId, String), Arc<FollowedChat>>>,
    metrics: Arc<Metrics>,
}

/// A chat that this gateway follows. One task takes the chat out and ends it: the task that follows the chat, or a request that sees the
/// end first.
#[derive(Debug)]
pub struct FollowedChat {
    /// The event that says where the answer is made.
    pub event: Arc<ChatDeferred>,
    /// Notified when the provider is to be asked at once.
    pub ask_now: Notify,
    /// Cancelled when the chat has ended. The end may not be durable, if the journal failed.
    pub ended: CancellationToken,
    has_answer: AtomicBool,
    chat: Mutex<Option<OpenChat>>,
}

impl BackgroundChats {
    /// Creates an empty set within the limits.
    /// Returns the set, and the chats whose streams end early.
    pub fn new(limits: &Limits, metrics: Arc<Metrics>) -> (Self, UnboundedReceiver<Deferral>) {
        let (deferrals, deferred) = mpsc::unbounded_channel();
        let chats = Self {
            deferrals,
            places: ChatPlaces::new(limits.max_background_chats, limits.chats_user_share),
            timeout: limits.background_timeout,
            reads: Semaphore::new(MAX_READS),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
            followed: Mutex::default(),
            metrics,
        };
        (chats, deferred)
    }

    /// Makes the place of a chat whose answer is streamed.
    pub(super) fn streamed(&self, place: Place) -> BackgroundPlace {
        BackgroundPlace { place, deferrals: self.deferrals.clone() }
    }

    /// Returns the chat of a user that makes the response with this id, if it is followed here.
    pub fn find(&self, user: &UserId, response_id: &str) -> Option<Arc<FollowedChat>> {
        self.known().get(&(user.clone(), response_id.to_owned())).cloned()
    }

    /// Adds a chat.
    pub(super) fn insert(&self, chat: OpenChat, event: Arc<ChatDeferred>) -> Arc<FollowedChat> {
        let key = (event.user_id.clone(), event.response_id.clone());
        let (ask_now, ended, chat) = (Notify::new(), CancellationToken::new(), Mutex::new(Some(chat)));
        let followed = Arc::new(FollowedChat { event, ask_now, ended, has_answer: AtomicBool::new(false), chat });
        self.known().insert(key, Arc::clone(&followed));
        self.metrics.background_chats.inc();
        followed
    }

    /// Removes a chat that has ended, or that the gateway leaves open.
    pub(super) fn remove(&self, chat: &Arc<FollowedChat>) {
        let key = (chat.event.user_id.clone(), chat.event.response_id.clone());
        let mut known = self.known();
        // A provider may have given the id again.
        if known.get(&key).is_some_and(|known| Arc::ptr_eq(known, chat)) {
            known.remove(&key);
        }
        self.metrics.background_chats.dec();
    }

    /// Stops following, and waits for the tasks.
    pub async fn finish(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    fn known(&self) -> std::sync::MutexGuard<'_, HashMap<(UserId, String), Arc<FollowedChat>>> {
        self.followed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl FollowedChat {
    /// Takes the chat out, to end it. `None` if another task has done so.
    pub(super) fn take(&self) -> Option<OpenChat> {
        self.chat.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Notes that the provider's answer is on the record.
    pub(super) fn set_answer(&self) {
        self.has_answer.store(true, Ordering::SeqCst);
    }

    /// Returns true if the provider's answer is on the record. Another end, such as a stop, is none.
    pub(super) fn has_answer(&self) -> bool {
        self.has_answer.load(Ordering::SeqCst)
    }

    /// Resolves when the user asks to stop the chat. Never resolves for a chat that another task ends.
    pub(super) async fn stop_requested(&self) {
        let running = {
            let chat = self.chat.lock().unwrap_or_else(PoisonError::into_inner);
            chat.as_ref().and_then(|chat| chat.running().cloned())
        };
        match running {
            Some(running) => running.stop_requested().await,
            None => std::future::pending().await,
        }
    }
}
