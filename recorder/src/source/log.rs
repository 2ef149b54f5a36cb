//! The log reader: reads a range of the stream in order, through an ephemeral consumer created for the reader. The
//! recorders' durable consumer is not affected.

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

use super::delivery::Delivery;
use super::read_ahead::{BodyUnavailable, ReadAhead};
use super::retry::RetryUntil;

/// The longest silence of the broker while more events are due; afterwards the consumer is recreated.
const IDLE_TIMEOUT: Duration = Duration::from_secs(20);
/// The maximum number of bytes in flight, raised if the broker allows larger messages.
const MAX_IN_FLIGHT_BYTES: i64 = 16 << 20;

/// A range of the log.
#[derive(Clone, Debug)]
pub struct LogRange {
    /// The beginning of the range.
    pub from: RangeStart,
    /// The last sequence of the range, inclusive. `None`: the stream's last sequence at the time of opening.
    pub to: Option<u64>,
    /// The subjects to read; empty for all subjects.
    pub subjects: Vec<String>,
    /// The behaviour at the end of the range.
    pub end: RangeEnd,
}

/// The beginning of a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RangeStart {
    /// The first event in the stream.
    Beginning,
    /// The event with this sequence, or the next existing event.
    Sequence(u64),
    /// The first event stored by the broker at this time or later.
    Time(OffsetDateTime),
}

/// The behaviour at the end of a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RangeEnd {
    /// The reader returns `None`.
    Stop,
    /// The reader waits for newly published events, without end.
    Follow,
}

/// The extent of the log at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogExtent {
    /// The creation time of the stream.
    pub stream_created_at: OffsetDateTime,
    /// The time at which the broker stored the first remaining event; `None` if the stream is empty.
    pub first_stored_at: Option<OffsetDateTime>,
    /// True if events before the first remaining event were removed: the first sequence is greater than 1.
    pub is_truncated: bool,
    /// The last sequence given out by the stream.
    pub last_sequence: u64,
    /// The number of events in the stream.
    pub events: u64,
}

/// The reason the log cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The stream does not exist.
    #[error("stream CHATS does not exist: expected one made by `recorder stream create`")]
    NoStream,
    /// The stream was deleted and created again while the log was being read.
    #[error("stream CHATS was deleted and created again while it was being read")]
    StreamRecreated,
    /// The broker was unavailable for longer than the retry policy allows.
    #[error("the broker is not available: {0}")]
    Unavailable(String),
    /// A large body could not be read, and the broker did not say that the body is missing.
    #[error(transparent)]
    Body(#[from] BodyUnavailable),
}

/// A reader of a range of the log.
#[derive(Debug)]
pub struct LogReader {
    messages: MessageReader,
    /// True to attach the large bodies to the deliveries.
    attaches_bodies: bool,
    /// Deliveries that wait for their bodies. Kept here, so that cancelling [`next`](Self::next) loses no event.
    read_ahead: ReadAhead,
    /// True after the last message of the range.
    ended: bool,
}

/// A reader of the messages of a range, without large bodies.
struct MessageReader {
    client: Client,
    range: LogRange,
    messages: Option<Ordered>,
    /// The last sequence of the range.
    last_sequence: u64,
    /// The last sequence delivered so far; 0 before the first delivery.
    delivered_sequence: u64,
    /// The number of events of the range not delivered yet, as reported by the broker with the latest delivery.
    pending: u64,
}

impl LogReader {
    /// Opens a reader at the beginning of the range, with large bodies. Waits up to a minute for an unavailable broker.
    pub async fn open(client: Client, range: LogRange) -> Result<Self, LogError> {
        let read_ahead = ReadAhead::new(client.clone());
        let messages = MessageReader::open(client, range).await?;
        Ok(Self { messages, attaches_bodies: true, read_ahead, ended: false })
    }

    /// Opens a reader that leaves the large bodies to the caller.
    pub async fn open_without_bodies(client: Client, range: LogRange) -> Result<Self, LogError> {
        Ok(Self { attaches_bodies: false, ..Self::open(client, range).await? })
    }

    /// Returns the next delivery, which may not be a readable event; `None` at the end of the range. Cancel safe. An
    /// error comes after a minute without success. A body that the broker says is missing is no error: the delivery then
    /// cannot be decoded.
    pub async fn next(&mut self) -> Result<Option<Delivery>, LogError> {
        if !self.attaches_bodies {
            return self.messages.next().await;
        }
        loop {
            if self.ended || !self.read_ahead.has_room() {
                return if self.read_ahead.is_empty() { Ok(None) } else { Ok(Some(self.read_ahead.pop().await?)) };
            }
            let message = tokio::select! {
                biased;
                delivery = self.read_ahead.pop() => return Ok(Some(delivery?)),
                message = self.messages.next() => message?,
            };
            match message {
                None => self.ended = true,
                Some(delivery) if self.read_ahead.is_empty() && !delivery.has_reference() => return Ok(Some(delivery)),
                Some(delivery) => self.read_ahead.push(delivery),
            }
        }
    }

    /// Returns the last sequence of the range. Later events belong to the range only with [`RangeEnd::Follow`].
    pub fn last_sequence(&self) -> u64 {
        self.messages.last_sequence
    }

    /// Returns the number of events left to read, as last reported by the broker.
    pub fn pending(&self) -> u64 {
        self.messages.pending + self.read_ahead.len() as u64
    }

    /// Returns the present extent of the log.
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

    /// Returns the first and the last sequence of the stream at present.
    pub async fn bounds(client: &Client) -> Result<(u64, u64), LogError> {
        let state = stream(client).await?.cached_info().state.clone();
        Ok((state.first_sequence, state.last_sequence))
    }
}

impl MessageReader {
    async fn open(client: Client, range: LogRange) -> Result<Self, LogError> {
        let stream = stream(&client).await?;
        let last_sequence = range.to.unwrap_or(stream.cached_info().state.last_sequence);
        let mut log = Self { client, range, messages: None, last_sequence, delivered_sequence: 0, pending: 0 };
        let retry_until = RetryUntil::start();
        while let Err(error) = log.bind(&stream).await {
            if !retry_until.wait_before_retry(&error).await {
                return Err(error);
            }
        }
        Ok(log)
    }

    /// Returns the next message; `None` at the end of the range. Cancel safe. After a failure the reader binds again
    /// behind the latest message; an error comes after a minute without success.
    async fn next(&mut self) -> Result<Option<Delivery>, LogError> {
        let mut retry_until = None;
        loop {
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
                // A silent consumer is treated as lost if more events are due.
                Some(messages) => match next_message(messages, self.pending > 0).await {
                    Some(Ok(message)) => {
                        let delivery = Delivery::new(message);
                        (self.delivered_sequence, self.pending) = (delivery.sequence(), delivery.pending());
                        if !stops || self.delivered_sequence <= self.last_sequence {
                            return Ok(Some(delivery));
                        }
                        continue;
                    }
                    Some(Err(error)) => error.to_string(),
                    None => "the reader's consumer is gone, or sent no event for 20 s".to_owned(),
                },
                None => "the reader is not bound to a consumer".to_owned(),
            };
            // After any problem, a new consumer starts behind the latest delivery.
            self.messages = None;
            if !retry_until.get_or_insert_with(RetryUntil::start).wait_before_retry(&problem).await {
                return Err(LogError::Unavailable(problem));
            }
            if let Ok(stream) = stream(&self.client).await
                && let Err(error) = self.bind(&stream).await
            {
                tracing::debug!(%error, "a new consumer for the log reader could not be created: trying again");
            }
        }
    }

    /// Returns true if the stream holds a later event of the range although the consumer reports no pending event. In a
    /// cluster, the consumer may have been placed on a node that lags behind, such as a node just restarted; the
    /// stream's leader, asked here, does not lag.
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

/// Returns the next message. If a message is due and does not arrive within [`IDLE_TIMEOUT`], returns `None`, as for a
/// lost consumer.
async fn next_message(messages: &mut Ordered, is_due: bool) -> Option<Result<Message, OrderedError>> {
    if is_due { timeout(IDLE_TIMEOUT, messages.next()).await.unwrap_or(None) } else { messages.next().await }
}

impl std::fmt::Debug for MessageReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MessageReader")
            .field("range", &self.range)
            .field("delivered_sequence", &self.delivered_sequence)
            .finish_non_exhaustive()
    }
}

/// Returns the stream. Waits up to a minute for an unavailable broker.
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
