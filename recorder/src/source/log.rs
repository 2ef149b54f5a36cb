//! The log as a source: the stream read in its own order, from one place to another, by a consumer that goes with the reader.
//! The recorders' consumer does not notice.

use std::time::Duration;

use async_nats::Client;
use async_nats::jetstream::consumer::DeliverPolicy;
use async_nats::jetstream::consumer::pull::{Ordered, OrderedConfig, OrderedError};
use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::stream::LastRawMessageErrorKind;
use async_nats::jetstream::{self, Message, stream};
use futures_util::StreamExt as _;
use time::OffsetDateTime;
use tokio::time::timeout;

use super::bodies::BodyFetcher;
use super::delivery::Delivery;
use super::retry::RetryUntil;

/// How long a body in a bucket may take.
const BODY_TIMEOUT: Duration = Duration::from_secs(60);
/// How long the broker may be silent although there is more.
const IDLE_TIMEOUT: Duration = Duration::from_secs(20);
/// The most bytes of events that are on their way at once.
const MAX_IN_FLIGHT_BYTES: i64 = 16 << 20;

/// Which part of the log.
#[derive(Clone, Debug)]
pub struct LogRange {
    /// Where it begins.
    pub from: RangeStart,
    /// The last sequence that belongs to it. Unless given, whatever is there when the log is opened.
    pub to: Option<u64>,
    /// Only these subjects; all if there are none.
    pub subjects: Vec<String>,
    /// Whether to go on with what is published later.
    pub end: RangeEnd,
}

/// Where a span begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RangeStart {
    /// With the first event there is.
    Beginning,
    /// With this sequence, or the first one after it.
    Sequence(u64),
    /// With the first event that the broker took in at this time or later.
    Time(OffsetDateTime),
}

/// What happens at the end of a span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RangeEnd {
    /// It ends.
    Stop,
    /// The reader waits for more.
    Follow,
}

/// What the log holds at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogExtent {
    /// When the stream was made.
    pub stream_created_at: OffsetDateTime,
    /// When the broker stored the first event that is still there; none if there is no event.
    pub first_stored_at: Option<OffsetDateTime>,
    /// Whether events from before the first one are gone.
    pub is_truncated: bool,
    /// The sequence of the last event.
    pub last_sequence: u64,
    /// How many there are.
    pub events: u64,
}

/// Why the log cannot be read on.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// There is no stream.
    #[error("stream CHATS does not exist: expected one made by `recorder stream create`")]
    NoStream,
    /// It is not the stream that it was.
    #[error("stream CHATS was made anew while it was being read")]
    StreamRecreated,
    /// The broker was away for too long.
    #[error("the broker is not available: {0}")]
    Unavailable(String),
}

/// A reader of the log.
pub struct LogReader {
    client: Client,
    range: LogRange,
    messages: Option<Ordered>,
    /// The last sequence that will be read.
    last_sequence: u64,
    /// The last sequence that has been delivered.
    delivered_sequence: u64,
    /// How many events of the span the broker still has.
    pending: u64,
    /// The last event that was delivered, until it has its body: kept here so that giving up waiting for that loses nothing.
    awaiting_body: Option<Delivery>,
}

impl LogReader {
    /// A reader of this part of the log.
    pub async fn open(client: Client, range: LogRange) -> Result<Self, LogError> {
        let stream = stream(&client).await?;
        let last_sequence = range.to.unwrap_or(stream.cached_info().state.last_sequence);
        let mut log = Self {
            client,
            range,
            messages: None,
            last_sequence,
            delivered_sequence: 0,
            pending: 0,
            awaiting_body: None,
        };
        let retry_until = RetryUntil::start();
        while let Err(error) = log.bind(&stream).await {
            if !retry_until.wait_before_retry(&error).await {
                return Err(error);
            }
        }
        Ok(log)
    }

    /// The next event, or whatever else is in its place; `None` at the end. May be given up at any moment, and asked again.
    pub async fn next(&mut self) -> Result<Option<Delivery>, LogError> {
        let mut retry_until = None;
        loop {
            if let Some(delivery) = &self.awaiting_body {
                let filled = timeout(BODY_TIMEOUT, BodyFetcher::new(self.client.clone()).attach_body(delivery)).await;
                filled.map_err(|_| LogError::Unavailable("a body could not be fetched".to_owned()))?;
                return Ok(self.awaiting_body.take());
            }
            let stops = self.range.end == RangeEnd::Stop;
            if stops && self.delivered_sequence >= self.last_sequence {
                return Ok(None);
            }
            let problem = match &mut self.messages {
                Some(_) if stops && self.pending == 0 => {
                    if !self.has_missed_events().await? {
                        return Ok(None);
                    }
                    "the consumer has not caught up with the stream".to_owned()
                }
                // A consumer that says nothing although there is more has lost its way.
                Some(messages) => match next_message(messages, self.pending > 0).await {
                    Some(Ok(message)) => {
                        let delivery = Delivery::new(message);
                        (self.delivered_sequence, self.pending) = (delivery.sequence(), delivery.pending());
                        self.awaiting_body =
                            Some(delivery).filter(|_| !stops || self.delivered_sequence <= self.last_sequence);
                        continue;
                    }
                    Some(Err(error)) => error.to_string(),
                    None => "the consumer is gone".to_owned(),
                },
                None => "not bound".to_owned(),
            };
            // Whatever it was, the reader begins anew behind the last event that it was given.
            self.messages = None;
            if !retry_until.get_or_insert_with(RetryUntil::start).wait_before_retry(&problem).await {
                return Err(LogError::Unavailable(problem));
            }
            if let Ok(stream) = stream(&self.client).await
                && let Err(error) = self.bind(&stream).await
            {
                tracing::debug!(%error, "the log could not be opened yet");
            }
        }
    }

    /// What there is now.
    pub async fn extent(client: &Client) -> Result<LogExtent, LogError> {
        let stream = stream(client).await?;
        let info = stream.cached_info();
        Ok(LogExtent {
            stream_created_at: info.created,
            first_stored_at: (info.state.messages > 0).then_some(info.state.first_timestamp),
            is_truncated: info.state.first_sequence > 1,
            last_sequence: info.state.last_sequence,
            events: info.state.messages,
        })
    }

    /// The first and the last sequence that there is now.
    pub async fn bounds(client: &Client) -> Result<(u64, u64), LogError> {
        let state = stream(client).await?.cached_info().state.clone();
        Ok((state.first_sequence, state.last_sequence))
    }

    /// The last sequence that this reader will come to; what is published later does not belong to it unless it follows.
    pub fn last_sequence(&self) -> u64 {
        self.last_sequence
    }

    /// How many events are still to be read, as far as is known.
    pub fn pending(&self) -> u64 {
        self.pending
    }

    /// Whether the stream goes on where the consumer knows of nothing more. In a cluster a consumer may have come to a node that is
    /// behind, such as one that was just started again; the stream's leader, which answers here, is not.
    async fn has_missed_events(&mut self) -> Result<bool, LogError> {
        let retry_until = RetryUntil::start();
        let stream = stream(&self.client).await?;
        let all = [shared::stream::SUBJECTS.to_owned()];
        let subjects = if self.range.subjects.is_empty() { &all[..] } else { &self.range.subjects[..] };
        for subject in subjects {
            let last = loop {
                match stream.get_last_raw_message_by_subject(subject).await {
                    Ok(message) => break Some(message),
                    Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => break None,
                    Err(error) if retry_until.wait_before_retry(&error).await => {}
                    Err(error) => return Err(LogError::Unavailable(error.to_string())),
                }
            };
            let belongs = |message: &StreamMessage| match self.range.from {
                RangeStart::Beginning => true,
                RangeStart::Sequence(from) => message.sequence >= from,
                RangeStart::Time(from) => message.time >= from,
            };
            if last.is_some_and(|last| last.sequence > self.delivered_sequence && belongs(&last)) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn bind(&mut self, stream: &stream::Stream) -> Result<(), LogError> {
        let from = if self.delivered_sequence > 0 {
            RangeStart::Sequence(self.delivered_sequence + 1)
        } else {
            self.range.from
        };
        let config = OrderedConfig {
            description: Some("A reader of the log.".to_owned()),
            deliver_policy: match from {
                RangeStart::Beginning => DeliverPolicy::All,
                RangeStart::Sequence(sequence) => DeliverPolicy::ByStartSequence { start_sequence: sequence.max(1) },
                RangeStart::Time(time) => DeliverPolicy::ByStartTime { start_time: time },
            },
            filter_subjects: self.range.subjects.clone(),
            max_bytes: MAX_IN_FLIGHT_BYTES
                .max(i64::try_from(2 * self.client.max_payload()).unwrap_or(MAX_IN_FLIGHT_BYTES)),
            ..OrderedConfig::default()
        };
        let unavailable = |error: &dyn std::fmt::Display| LogError::Unavailable(error.to_string());
        let consumer = stream.create_consumer(config).await.map_err(|error| unavailable(&error))?;
        self.pending = consumer.cached_info().num_pending;
        self.messages = Some(consumer.messages().await.map_err(|error| unavailable(&error))?);
        Ok(())
    }
}

/// The next message. Where one is due and none comes for long, as if the consumer were gone.
async fn next_message(messages: &mut Ordered, is_due: bool) -> Option<Result<Message, OrderedError>> {
    if is_due { timeout(IDLE_TIMEOUT, messages.next()).await.unwrap_or(None) } else { messages.next().await }
}

impl std::fmt::Debug for LogReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogReader")
            .field("range", &self.range)
            .field("delivered_sequence", &self.delivered_sequence)
            .finish_non_exhaustive()
    }
}

/// The stream, as soon as the broker is there.
async fn stream(client: &Client) -> Result<stream::Stream, LogError> {
    use jetstream::ErrorCode;
    use jetstream::context::GetStreamErrorKind;

    let jetstream = jetstream::new(client.clone());
    let retry_until = RetryUntil::start();
    loop {
        let error = match jetstream.get_stream(shared::stream::NAME).await {
            Ok(stream) => return Ok(stream),
            Err(error) => error,
        };
        match error.kind() {
            GetStreamErrorKind::JetStream(reply) if reply.error_code() == ErrorCode::STREAM_NOT_FOUND => {
                return Err(LogError::NoStream);
            }
            _ if retry_until.wait_before_retry(&error).await => {}
            _ => return Err(LogError::Unavailable(error.to_string())),
        }
    }
}
