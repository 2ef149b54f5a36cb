//! The running chats of all gateways. Chats of other gateways are reached over the broker's core subjects: a question goes to all gateways,
//! and the one that runs the chat, or has run it, answers. The stream of events is not involved, and a chat that nobody asks for sends
//! nothing.
//!
//! A reader of an answer asks again and again, each time with what it has, so that a lost message or a lost gateway is noticed, and a slow
//! reader holds nothing up.

use std::sync::Arc;
use std::time::Duration;

use async_nats::{Client, Message, RequestErrorKind};
use futures_util::StreamExt as _;
use futures_util::stream::select;
use shared::id::{ChatId, ConversationId, UserId};
use shared::nats::{BrokerConfig, BrokerRole};
use tokio::sync::{OnceCell, Semaphore};
use tokio::time::timeout;
use uuid::Uuid;

use super::messages::{Question, Reply, Wish};
use super::{ChatIds, Found, News, RunningChat, RunningChats};
use crate::response::answer_piece::Lengths;

/// The subject of questions about a chat, to which every gateway listens. Each gateway also listens to a subject of its own below.
const SUBJECT: &str = "stenograph.chats";

/// The maximum time for the answer of the gateway that knows a chat.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(750);

/// The time for which a gateway waits for the end of a chat that it stops, before it says that the chat is stopping.
const END_TIMEOUT: Duration = Duration::from_millis(500);

/// The time for which a reader waits for news before it asks again.
const NEWS_TIMEOUT: Duration = Duration::from_secs(1);

/// The maximum time for news of another gateway. After that, the gateway counts as gone.
const PEER_NEWS_TIMEOUT: Duration = Duration::from_secs(3);

/// The maximum number of questions that are answered at once. Further questions are not answered.
const MAX_QUESTIONS: usize = 1024;

/// The delay before the subscriptions are made again.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// The running chats of all gateways.
#[derive(Debug)]
pub struct Peers {
    broker: BrokerConfig,
    name: String,
    /// The subject of this gateway.
    subject: String,
    chats: Arc<RunningChats>,
    client: OnceCell<Client>,
}

/// The result of a stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopOutcome {
    /// The upstream was let go of, and the end is on the record or on its way there.
    Stopped,
    /// The chat had ended before.
    Ended,
}

/// A place where an answer is read.
#[derive(Clone, Debug)]
pub enum Source {
    /// This gateway.
    Here(Arc<RunningChat>),
    /// The gateway that listens to this subject.
    Elsewhere(ChatIds, String),
}

/// The whereabouts of a chat, as far as the gateways know.
#[derive(Clone, Debug)]
pub enum Whereabouts {
    /// The chat runs.
    Runs(Source),
    /// The chat has ended, a short time ago. Has the conversation of the chat.
    Ended(Option<ConversationId>),
    /// No gateway knows such a chat of the user.
    Unknown,
}

impl Source {
    /// Returns the ids of the chat.
    pub fn ids(&self) -> ChatIds {
        match self {
            Self::Here(chat) => chat.ids(),
            Self::Elsewhere(ids, _) => ids.clone(),
        }
    }
}

impl RunningChats {
    /// Stops a chat that this gateway runs, and waits for the end for a moment. `None` if this gateway does not know such a chat of
    /// the user.
    pub async fn stop(&self, id: ChatId, user: &UserId) -> Option<StopOutcome> {
        match self.find(id, user)? {
            Found::Ended(_) => Some(StopOutcome::Ended),
            Found::Running(chat) => {
                chat.stop();
                // The end is recorded in the background. The estimate of the usage may take a while.
                let _ = timeout(END_TIMEOUT, chat.ended()).await;
                Some(StopOutcome::Stopped)
            }
        }
    }
}

impl Peers {
    /// Creates the connection to the other gateways, which is not opened yet.
    pub fn new(broker: BrokerConfig, instance: &str, chats: Arc<RunningChats>) -> Self {
        let (name, subject) = (format!("gateway {instance} chats"), format!("{SUBJECT}.{}", Uuid::now_v7()));
        Self { broker, name, subject, chats, client: OnceCell::new() }
    }

    /// Stops a chat, wherever it runs. `None` if no gateway answers that it knows such a chat of the user.
    pub async fn stop(&self, chat: ChatId, user: &UserId) -> Option<StopOutcome> {
        if let Some(stopped) = self.chats.stop(chat, user).await {
            return Some(stopped);
        }
        match self.ask_all(user, Wish::Stop { chat }).await? {
            Reply::Stopped { had_ended: false } => Some(StopOutcome::Stopped),
            Reply::Stopped { had_ended: true } => Some(StopOutcome::Ended),
            _ => None,
        }
    }

    /// Finds a chat of the user.
    pub async fn find(&self, chat: ChatId, user: &UserId) -> Whereabouts {
        match self.chats.find(chat, user) {
            Some(Found::Running(chat)) => return Whereabouts::Runs(Source::Here(chat)),
            Some(Found::Ended(conversation)) => return Whereabouts::Ended(conversation),
            None => {}
        }
        match self.ask_all(user, Wish::Find { chat }).await {
            Some(Reply::Runs { ids, subject }) => Whereabouts::Runs(Source::Elsewhere(ids, subject)),
            Some(Reply::Ended { conversation }) => Whereabouts::Ended(conversation),
            _ => Whereabouts::Unknown,
        }
    }

    /// Finds the latest running chat of a conversation of the user.
    pub async fn find_in(&self, conversation: ConversationId, user: &UserId) -> Option<Source> {
        if let Some(chat) = self.chats.find_in(conversation, user) {
            return Some(Source::Here(chat));
        }
        match self.ask_all(user, Wish::FindIn { conversation }).await? {
            Reply::Runs { ids, subject } => Some(Source::Elsewhere(ids, subject)),
            _ => None,
        }
    }

    /// Returns what follows in an answer. Waits for about a second if there is nothing. A gateway that does not answer counts as gone, and
    /// the answer as ended.
    pub async fn news(&self, source: &Source, user: &UserId, have: &Lengths) -> News {
        match source {
            Source::Here(chat) => chat.news(have, NEWS_TIMEOUT).await,
            Source::Elsewhere(ids, subject) => {
                let wish = Wish::Read { chat: ids.chat, have: have.clone() };
                match self.ask(subject, user, wish, PEER_NEWS_TIMEOUT).await {
                    Some(Reply::Piece(piece)) => News::Piece(piece),
                    _ => News::Ended,
                }
            }
        }
    }

    async fn ask_all(&self, user: &UserId, wish: Wish) -> Option<Reply> {
        self.ask(SUBJECT, user, wish, ANSWER_TIMEOUT).await
    }

    async fn ask(&self, subject: &str, user: &UserId, ask: Wish, within: Duration) -> Option<Reply> {
        let question = serde_json::to_vec(&Question { user: user.clone(), ask }).unwrap_or_default();
        let asking = async {
            match self.client().await.ok()?.request(subject.to_owned(), question.into()).await {
                Ok(message) => serde_json::from_slice(&message.payload).ok(),
                Err(error) => {
                    if !matches!(error.kind(), RequestErrorKind::NoResponders | RequestErrorKind::TimedOut) {
                        tracing::warn!(%error, "cannot ask another gateway about a chat");
                    }
                    None
                }
            }
        };
        timeout(within, asking).await.ok()?
    }

    /// Answers the questions of other gateways. Never returns.
    pub async fn run(self: Arc<Self>) {
        let places = Arc::new(Semaphore::new(MAX_QUESTIONS));
        loop {
            if let Ok(client) = self.client().await
                && let (Ok(of_all), Ok(own)) =
                    tokio::join!(client.subscribe(SUBJECT), client.subscribe(self.subject.clone()))
            {
                let mut questions = select(of_all, own);
                while let Some(message) = questions.next().await {
                    let Ok(question) = serde_json::from_slice::<Question>(&message.payload) else { continue };
                    // Most questions are about chats of other gateways.
                    if let (true, Ok(place)) = (self.knows(&question), Arc::clone(&places).try_acquire_owned()) {
                        let (this, client) = (Arc::clone(&self), client.clone());
                        tokio::spawn(async move {
                            this.answer(&client, message, question).await;
                            drop(place);
                        });
                    }
                }
            }
            tokio::time::sleep(RETRY_DELAY).await;
        }
    }

    fn knows(&self, Question { user, ask }: &Question) -> bool {
        match ask {
            Wish::Stop { chat } | Wish::Find { chat } | Wish::Read { chat, .. } => {
                self.chats.find(*chat, user).is_some()
            }
            Wish::FindIn { conversation } => self.chats.find_in(*conversation, user).is_some(),
        }
    }

    async fn answer(&self, client: &Client, message: Message, Question { user, ask }: Question) {
        let runs = |chat: Arc<RunningChat>| Reply::Runs { ids: chat.ids(), subject: self.subject.clone() };
        let reply = match ask {
            Wish::Stop { chat } => {
                let stopped = self.chats.stop(chat, &user).await;
                stopped.map(|outcome| Reply::Stopped { had_ended: outcome == StopOutcome::Ended })
            }
            Wish::Find { chat } => self.chats.find(chat, &user).map(|found| match found {
                Found::Running(chat) => runs(chat),
                Found::Ended(conversation) => Reply::Ended { conversation },
            }),
            Wish::FindIn { conversation } => self.chats.find_in(conversation, &user).map(runs),
            Wish::Read { chat, have } => match self.chats.find(chat, &user) {
                Some(Found::Running(chat)) => Some(match chat.news(&have, NEWS_TIMEOUT).await {
                    News::Piece(piece) => Reply::Piece(piece),
                    News::Ended => Reply::Ended { conversation: chat.ids().conversation },
                }),
                Some(Found::Ended(conversation)) => Some(Reply::Ended { conversation }),
                None => None,
            },
        };
        let (Some(reply), Some(to)) = (reply, message.reply) else { return };
        let reply = serde_json::to_vec(&reply).unwrap_or_default();
        if let Err(error) = client.publish(to, reply.into()).await {
            tracing::warn!(%error, "cannot answer a question of another gateway about a chat");
        }
    }

    /// Returns at once. The client connects and reconnects in the background.
    async fn client(&self) -> Result<&Client, async_nats::ConnectError> {
        self.client.get_or_try_init(|| self.broker.connect(BrokerRole::Gateway, &self.name, |_| {})).await
    }
}
