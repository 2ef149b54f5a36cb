//! Pull requests on the recorders' consumer, one at a time.
//!
//! The client library's own stream renews its requests by itself and can only be dropped. Messages that the broker has
//! sent by then would come back only after the acknowledgement timeout. Here a request ends by itself within
//! `REQUEST_EXPIRY`, so that [`Pull::close`] returns every message that the broker has sent.

use std::time::Duration;

use async_nats::client::SubscribeError;
use async_nats::connection::State;
use async_nats::jetstream::{self, Context};
use async_nats::{Client, StatusCode, Subscriber};
use futures_util::{FutureExt as _, StreamExt as _};
use serde_json::json;
use shared::stream::{CONSUMER, NAME};
use tokio::time::{Instant, sleep_until, timeout_at};

/// The lifetime of a request: also the longest wait of [`Pull::close`] on a healthy connection.
const REQUEST_EXPIRY: Duration = Duration::from_secs(2);

/// The time after which a request counts as lost if the broker has not said that the request has ended.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// The interval at which a request is compared with the present connection.
const RECONNECT_POLL_INTERVAL: Duration = Duration::from_millis(250);

/// The limits of a request.
#[derive(Clone, Copy, Debug)]
pub struct PullLimits {
    /// The maximum number of messages.
    pub messages: usize,
    /// The maximum number of bytes, headers included. A larger message would never be delivered.
    pub bytes: usize,
}

/// The reason a pull ended.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// The broker refused the request, or the consumer is gone.
    #[error("the broker refused a request for events: {0}")]
    Refused(String),
    /// The broker neither delivered nor ended the request.
    #[error("the broker did not end a request for events within {REQUEST_TIMEOUT:?}")]
    Lost,
    /// The connection was closed for good.
    #[error("the connection to the broker is closed")]
    Closed,
    /// The request could not be handed to the connection.
    #[error("a request for events could not be sent: {0}")]
    Unsent(String),
}

/// A subscription for the answers to pull requests, and the request in progress.
pub struct Pull {
    context: Context,
    client: Client,
    answers: Subscriber,
    inbox: String,
    limits: PullLimits,
    /// The number of the latest request: the last token of the subject of its answers.
    number: u64,
    request: Option<PullRequest>,
}

/// A request that has not ended yet.
#[derive(Clone, Copy)]
struct PullRequest {
    /// The number of messages that may still come.
    remaining: usize,
    deadline: Instant,
    /// The number of connections that the client had made: a request does not survive its connection.
    connects: u64,
}

impl Pull {
    /// Subscribes to the answers. The first request is made by [`next`](Self::next).
    pub async fn open(client: Client, limits: PullLimits) -> Result<Self, SubscribeError> {
        let inbox = client.new_inbox();
        let answers = client.subscribe(format!("{inbox}.*")).await?;
        Ok(Self { context: jetstream::new(client.clone()), client, answers, inbox, limits, number: 0, request: None })
    }

    /// Returns the next message. Waits without a limit while there is none. Cancel safe.
    pub async fn next(&mut self) -> Result<jetstream::Message, PullError> {
        loop {
            if let Some(message) = self.receive().await? {
                return Ok(message);
            }
            self.request().await?;
        }
    }

    /// Returns a message that has arrived already; `None` if none has.
    pub fn try_next(&mut self) -> Option<jetstream::Message> {
        while self.request.is_some() {
            match self.answers.next().now_or_never() {
                Some(Some(answer)) => {
                    if let Ok(Some(message)) = self.accept(answer) {
                        return Some(message);
                    }
                }
                Some(None) | None => break,
            }
        }
        None
    }

    /// Makes no further request, waits for the end of the request in progress, and returns the messages that have not
    /// been taken. Waits for at most `REQUEST_TIMEOUT`, and not at all without a connection.
    pub async fn close(mut self) -> Vec<jetstream::Message> {
        let mut left: Vec<_> = std::iter::from_fn(|| self.try_next()).collect();
        let until = Instant::now() + REQUEST_TIMEOUT;
        while self.client.connection_state() == State::Connected
            && let Ok(Ok(Some(message))) = timeout_at(until, self.receive()).await
        {
            left.push(message);
        }
        left
    }

    /// Waits for the next message of the request in progress; `None` if there is no request, or if the request ends.
    async fn receive(&mut self) -> Result<Option<jetstream::Message>, PullError> {
        while let Some(PullRequest { deadline, connects, .. }) = self.request {
            // A lost connection is noticed within a part of a second, and not only at the deadline.
            let look = deadline.min(Instant::now() + RECONNECT_POLL_INTERVAL);
            tokio::select! {
                // Messages that wait in the buffer come before the deadline.
                biased;
                answer = self.answers.next() => {
                    if let Some(message) = self.accept(answer.ok_or(PullError::Closed)?)? {
                        return Ok(Some(message));
                    }
                }
                () = sleep_until(look) => {
                    if self.connects() != connects {
                        self.request = None;
                    } else if Instant::now() >= deadline {
                        self.request = None;
                        return Err(PullError::Lost);
                    }
                }
            }
        }
        Ok(None)
    }

    /// Sorts an answer: a message, or the end of the request, or a refusal.
    fn accept(&mut self, answer: async_nats::Message) -> Result<Option<jetstream::Message>, PullError> {
        let is_current = answer.subject.rsplit('.').next().and_then(|number| number.parse().ok()) == Some(self.number);
        let Some(status) = answer.status else {
            // A message of an earlier request was delivered late, and counts like any other.
            if is_current && let Some(request) = &mut self.request {
                request.remaining -= 1;
                if request.remaining == 0 {
                    self.request = None;
                }
            }
            return Ok(Some(jetstream::Message { message: answer, context: self.context.clone() }));
        };
        if !is_current || status == StatusCode::IDLE_HEARTBEAT {
            return Ok(None);
        }
        self.request = None;
        let description = answer.description.unwrap_or_default();
        match status {
            // The request has expired, or the next message would exceed the limit of bytes.
            StatusCode::TIMEOUT | StatusCode::NOT_FOUND => Ok(None),
            _ if description.contains("Exceeds MaxBytes") => Ok(None),
            _ => Err(PullError::Refused(format!("{status} {description}").trim_end().to_owned())),
        }
    }

    async fn request(&mut self) -> Result<(), PullError> {
        let connects = self.connects();
        let request = json!({
            "batch": self.limits.messages,
            "max_bytes": self.limits.bytes,
            "expires": u64::try_from(REQUEST_EXPIRY.as_nanos()).unwrap_or(u64::MAX),
        });
        let reply = format!("{}.{}", self.inbox, self.number + 1);
        let subject = format!("$JS.API.CONSUMER.MSG.NEXT.{NAME}.{CONSUMER}");
        let sent = self.client.publish_with_reply(subject, reply, request.to_string().into()).await;
        sent.map_err(|error| PullError::Unsent(error.to_string()))?;
        self.number += 1;
        let deadline = Instant::now() + REQUEST_TIMEOUT;
        self.request = Some(PullRequest { remaining: self.limits.messages, deadline, connects });
        Ok(())
    }

    fn connects(&self) -> u64 {
        self.client.statistics().connects.load(std::sync::atomic::Ordering::Relaxed)
    }
}

impl std::fmt::Debug for Pull {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pull").field("limits", &self.limits).field("number", &self.number).finish_non_exhaustive()
    }
}
