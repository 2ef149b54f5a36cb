//! Chats of other gateways, over the broker's core subjects: a question goes to all gateways, and the one that runs the chat, or
//! has run it, answers. The stream of events is not involved, and a chat sends nothing.

use std::sync::Arc;
use std::time::Duration;

use async_nats::Client;
use futures_util::StreamExt as _;
use serde::{Deserialize, Serialize};
use shared::id::{ChatId, UserId};
use shared::nats::{BrokerConfig, BrokerRole};
use tokio::sync::{OnceCell, Semaphore};
use tokio::time::timeout;

use super::{Found, RunningChats};

/// The subject of questions about a chat, to which every gateway listens.
pub const SUBJECT: &str = "stenograph.chats";

/// The maximum time for the answer of the gateway that knows the chat.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(750);

/// The time for which a gateway waits for the end of a chat that it stops, before it says that the chat is stopping.
const END_TIMEOUT: Duration = Duration::from_millis(500);

/// The maximum number of questions that are answered at once. Further questions are not answered.
const MAX_QUESTIONS: usize = 1024;

/// The delay before the subscription is made again.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// The connection to the other gateways.
#[derive(Debug)]
pub struct Peers {
    broker: BrokerConfig,
    name: String,
    chats: Arc<RunningChats>,
    client: OnceCell<Client>,
}

/// A question to all gateways.
#[derive(Debug, Deserialize, Serialize)]
struct Question {
    /// The wish.
    ask: Wish,
    chat: ChatId,
    user: UserId,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Wish {
    /// The end of the chat.
    Stop,
    /// A wish of a later version.
    #[serde(other)]
    Unknown,
}

/// The answer of the gateway that knows the chat.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StopOutcome {
    /// The upstream was let go of, and the end is on the record or on its way there.
    Stopped,
    /// The chat had ended before.
    Ended,
}

#[derive(Debug, Deserialize, Serialize)]
struct StopAnswer {
    outcome: StopOutcome,
}

impl RunningChats {
    /// Stops a chat that this gateway runs, and waits for the end for a moment. `None` if this gateway does not know such a chat of
    /// the user.
    pub async fn stop(&self, id: ChatId, user: &UserId) -> Option<StopOutcome> {
        match self.find(id, user)? {
            Found::Ended => Some(StopOutcome::Ended),
            Found::Running(chat) => {
                chat.stop();
                // The end is in the journal at once. To be durable it may take longer, as on a slow disk.
                let _ = timeout(END_TIMEOUT, chat.ended()).await;
                Some(StopOutcome::Stopped)
            }
        }
    }
}

impl Peers {
    /// Creates the connection, which is not opened yet.
    pub fn new(broker: BrokerConfig, instance: &str, chats: Arc<RunningChats>) -> Self {
        Self { broker, name: format!("gateway {instance} chats"), chats, client: OnceCell::new() }
    }

    /// Stops a chat that another gateway runs. `None` if no gateway answers that it knows such a chat of the user.
    pub async fn stop(&self, chat: ChatId, user: &UserId) -> Option<StopOutcome> {
        let question = Question { ask: Wish::Stop, chat, user: user.clone() };
        let question = serde_json::to_vec(&question).unwrap_or_default();
        let asking = async { self.client().await.ok()?.request(SUBJECT, question.into()).await.ok() };
        let answer = timeout(ANSWER_TIMEOUT, asking).await.ok()??;
        serde_json::from_slice::<StopAnswer>(&answer.payload).ok().map(|answer| answer.outcome)
    }

    /// Answers the questions of other gateways. Never returns.
    pub async fn run(self: Arc<Self>) {
        let places = Arc::new(Semaphore::new(MAX_QUESTIONS));
        loop {
            if let Ok(client) = self.client().await
                && let Ok(mut questions) = client.subscribe(SUBJECT).await
            {
                while let Some(message) = questions.next().await {
                    let (Some(reply), Ok(place)) = (message.reply, Arc::clone(&places).try_acquire_owned()) else {
                        continue;
                    };
                    let Ok(question) = serde_json::from_slice::<Question>(&message.payload) else { continue };
                    // Most questions are about chats of other gateways.
                    if question.ask == Wish::Unknown || self.chats.find(question.chat, &question.user).is_none() {
                        continue;
                    }
                    let (chats, client) = (Arc::clone(&self.chats), client.clone());
                    tokio::spawn(async move {
                        if let Some(outcome) = chats.stop(question.chat, &question.user).await {
                            let answer = serde_json::to_vec(&StopAnswer { outcome }).unwrap_or_default();
                            if let Err(error) = client.publish(reply, answer.into()).await {
                                tracing::warn!(%error, "cannot answer a question of another gateway about a chat");
                            }
                        }
                        drop(place);
                    });
                }
            }
            tokio::time::sleep(RETRY_DELAY).await;
        }
    }

    /// Returns at once. The client connects and reconnects in the background.
    async fn client(&self) -> Result<&Client, async_nats::ConnectError> {
        self.client.get_or_try_init(|| self.broker.connect(BrokerRole::Gateway, &self.name, |_| {})).await
    }
}
