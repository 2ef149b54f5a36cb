//! The watchdog of the consumer: detects a broker that went back in time, and recreates the consumer.
//!
//! A broker that lost the end of its stream (power cut, restored copy) gives the lost sequences to new events. If the
//! consumer's own state survived, the consumer counts those sequences as delivered and silently skips the new events.
//! The watchdog therefore saves a mark in the database: an acknowledged sequence, and the time at which the broker
//! stored the event with this sequence. If a different event has the marked sequence, the watchdog recreates the
//! consumer, and every event of the stream is delivered again. The projection is idempotent, so the redelivery costs
//! only time.
//!
//! The mark is always a little older than the consumer's state. If the broker lost only events between the mark and the
//! consumer's state, the mark does not show the loss. On every new connection, the pipeline therefore rereads this part
//! of the stream before the watchdog moves the mark.

use std::sync::Arc;
use std::time::Duration;

use async_nats::{Client, jetstream};
use sqlx::postgres::PgPool;
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;
use crate::source::is_connected;
use crate::source::setup::SetupError;
use crate::source::setup::status::{StreamStatus, recreate_consumer, stream_status};
use crate::store::stream_marks::{self, StreamMark};
use crate::store::{self, LeaderLock};

/// The interval at which the mark is compared and moved.
const CHECK_INTERVAL: Duration = Duration::from_secs(10);

/// The interval at which `reconnected` looks for a new connection.
const RECONNECT_POLL_INTERVAL: Duration = Duration::from_millis(250);

/// The delay before a suspected regression is confirmed by a second look: in a cluster, a newly elected leader may not
/// know the whole stream yet.
const CONFIRMATION_DELAY: Duration = Duration::from_secs(1);

/// The result of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckOutcome {
    /// The broker agrees with the mark. The sequences after `after`, up to `through`, were delivered but are not
    /// covered by the mark.
    Consistent {
        /// The sequence of the mark.
        after: u64,
        /// The last sequence delivered by the consumer.
        through: u64,
    },
    /// The consumer was recreated: every event of the stream is delivered again.
    ConsumerRecreated,
    /// Another recorder holds the watchdog's lock.
    Busy,
}

/// The reason a check failed.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// The stream or the consumer cannot be used, or the broker is away.
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// The mark could not be read or saved.
    #[error("the database is not available: {}", store::describe(.0))]
    Database(#[from] sqlx::Error),
}

/// The identity of a connection to the broker: the server's id, and the server's number for the connection. The default
/// value stands for no connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConnectionId {
    server: String,
    number: u64,
}

/// The watchdog. Clones share the reread state: one clone runs as a worker, another belongs to the pipeline.
#[derive(Clone, Debug)]
pub struct ConsumerWatchdog {
    client: Client,
    pool: PgPool,
    metrics: Arc<Metrics>,
    /// The latest connection on which the pipeline has reread the stream after the mark.
    reread_connection: Arc<watch::Sender<ConnectionId>>,
}

impl ConsumerWatchdog {
    /// Creates a watchdog on this broker and this database.
    pub fn new(client: Client, pool: PgPool, metrics: Arc<Metrics>) -> Self {
        Self { client, pool, metrics, reread_connection: Arc::default() }
    }

    /// Returns the client of the broker.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// Compares the broker with the mark every 10 seconds, moves the mark, and recreates the consumer after a
    /// regression, until told to stop.
    pub async fn run(self, stop: CancellationToken) {
        while stop.run_until_cancelled(sleep(CHECK_INTERVAL)).await.is_some() {
            // On a new connection the pipeline must reread the stream before the mark moves.
            let Some(connection) = self.current_connection().filter(|connection| self.is_reread(connection)) else {
                continue;
            };
            if let Some(Err(error)) = stop.run_until_cancelled(self.advance_mark(&connection)).await {
                // Debug level is enough: the pipeline meets the same problem and reports the problem.
                tracing::debug!(%error, "the stream could not be compared with the mark: trying again");
            }
        }
    }

    /// Waits for a connection on which the pipeline has not reread the stream yet.
    pub async fn reconnected(&self) -> ConnectionId {
        loop {
            match self.current_connection() {
                Some(connection) if !self.is_reread(&connection) => return connection,
                _ => sleep(RECONNECT_POLL_INTERVAL).await,
            }
        }
    }

    /// Notes that the pipeline has reread the stream after the mark on this connection, so that the mark may move.
    pub fn mark_reread(&self, connection: ConnectionId) {
        self.reread_connection.send_replace(connection);
    }

    /// Compares the broker with the mark, and recreates the consumer after a regression. Saves a first mark if there is
    /// no mark of this stream; never moves an existing mark.
    pub async fn check(&self) -> Result<CheckOutcome, CheckError> {
        let Some(mut lock) = LeaderLock::try_acquire(&self.pool, store::WATCHDOG_LOCK).await? else {
            return Ok(CheckOutcome::Busy);
        };
        let (mark, status) = match self.compare_with_mark(&mut lock).await? {
            MarkComparison::Consistent(mark, status) => (mark, status),
            MarkComparison::ConsumerRecreated => return Ok(CheckOutcome::ConsumerRecreated),
        };
        let through = status.delivered_sequence;
        let after = match mark.filter(|mark| mark.stream_created_ns == status.created_ns) {
            Some(mark) => mark.sequence,
            // A stream without a mark has no earlier state to compare with: the first mark is the present state.
            None => {
                stream_marks::save(lock.connection(), &status.mark()).await?;
                through
            }
        };
        lock.commit().await?;
        Ok(CheckOutcome::Consistent { after, through })
    }

    /// Compares the broker with the mark, and moves the mark to the consumer's acknowledged sequence.
    async fn advance_mark(&self, connection: &ConnectionId) -> Result<(), CheckError> {
        let Some(mut lock) = LeaderLock::try_acquire(&self.pool, store::WATCHDOG_LOCK).await? else { return Ok(()) };
        if let MarkComparison::Consistent(_, status) = self.compare_with_mark(&mut lock).await? {
            // A reconnect during the check may have reached a different server: the mark moves only if the connection
            // is the same.
            if self.current_connection().as_ref() == Some(connection) {
                stream_marks::save(lock.connection(), &status.mark()).await?;
            }
            lock.commit().await?;
        }
        Ok(())
    }

    async fn compare_with_mark(&self, lock: &mut LeaderLock) -> Result<MarkComparison, CheckError> {
        let jetstream = jetstream::new(self.client.clone());
        let mark = stream_marks::load(lock.connection()).await?;
        if mark.is_some_and(|mark| mark.is_healing) {
            // Another recorder died while recreating the consumer: the work is finished here.
            self.recreate_consumer_and_mark(&jetstream).await?;
            return Ok(MarkComparison::ConsumerRecreated);
        }
        let read_status = async || stream_status(&jetstream, mark.map(|mark| mark.sequence)).await;
        let mut status = read_status().await?;
        if status.regression(mark.as_ref()).is_some() {
            sleep(CONFIRMATION_DELAY).await;
            status = read_status().await?;
        }
        let Some(problem) = status.regression(mark.as_ref()) else {
            return Ok(MarkComparison::Consistent(mark, status));
        };
        let StreamStatus { last_sequence: last, delivered_sequence: delivered, .. } = status;
        tracing::error!(problem, last, delivered, "the broker went back in time: every event is delivered again");
        self.metrics.broker_regressions.inc();
        // The `is_healing` flag is saved before the consumer is deleted. After a crash in between, the flag tells the
        // next recorder that the consumer is missing because of a recreation.
        let healing = StreamMark { is_healing: true, ..status.mark() };
        stream_marks::save(&mut *self.pool.acquire().await?, &healing).await?;
        self.recreate_consumer_and_mark(&jetstream).await?;
        Ok(MarkComparison::ConsumerRecreated)
    }

    async fn recreate_consumer_and_mark(&self, jetstream: &jetstream::Context) -> Result<(), CheckError> {
        recreate_consumer(jetstream).await?;
        let status = stream_status(jetstream, None).await?;
        Ok(stream_marks::save(&mut *self.pool.acquire().await?, &status.mark()).await?)
    }

    fn current_connection(&self) -> Option<ConnectionId> {
        let info = self.client.server_info();
        is_connected(&self.client).then_some(ConnectionId { server: info.server_id, number: info.client_id })
    }

    fn is_reread(&self, connection: &ConnectionId) -> bool {
        *self.reread_connection.borrow() == *connection
    }
}

enum MarkComparison {
    Consistent(Option<StreamMark>, StreamStatus),
    ConsumerRecreated,
}

// === impl StreamStatus ===

impl StreamStatus {
    /// Returns the evidence that the broker went back in time since the mark was saved; `None` if consistent.
    fn regression(&self, mark: Option<&StreamMark>) -> Option<&'static str> {
        if self.delivered_sequence > self.last_sequence {
            return Some("the consumer is ahead of the stream");
        }
        let mark = mark.filter(|mark| mark.stream_created_ns == self.created_ns)?;
        if mark.sequence > self.last_sequence {
            return Some("the stream is shorter than it was");
        }
        // A missing event is no evidence: the event may have been deleted, or may have passed the stream's maximum age.
        let is_different_event =
            self.mark_stored_ns.is_some() && mark.taken_in_ns.is_some() && self.mark_stored_ns != mark.taken_in_ns;
        is_different_event.then_some("another event has the sequence of the mark")
    }

    /// Returns the mark for this status: the acknowledged sequence, and the time at which the broker stored the event.
    fn mark(&self) -> StreamMark {
        StreamMark {
            stream_created_ns: self.created_ns,
            sequence: self.acknowledged_sequence,
            taken_in_ns: self.acknowledged_stored_ns,
            is_healing: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broker_that_lost_the_end_of_its_stream_is_detected() {
        let sound = StreamStatus {
            created_ns: 1,
            first_sequence: 1,
            last_sequence: 100,
            delivered_sequence: 90,
            acknowledged_sequence: 80,
            acknowledged_stored_ns: Some(8000),
            mark_stored_ns: Some(7000),
        };
        let mark = StreamMark { stream_created_ns: 1, sequence: 70, taken_in_ns: Some(7000), is_healing: false };
        let problem = |status: StreamStatus, mark: StreamMark| status.regression(Some(&mark)).is_some();
        assert_eq!(sound.regression(None), None);
        assert!(!problem(sound, mark));
        assert!(
            !problem(StreamStatus { mark_stored_ns: None, first_sequence: 75, ..sound }, mark),
            "too old, and gone"
        );
        assert!(
            !problem(StreamStatus { created_ns: 2, last_sequence: 90, mark_stored_ns: None, ..sound }, mark),
            "another stream"
        );
        assert!(
            problem(StreamStatus { mark_stored_ns: Some(9000), ..sound }, mark),
            "its sequence was given to another event"
        );
        assert!(problem(sound, StreamMark { sequence: 101, ..mark }));
        assert!(problem(StreamStatus { delivered_sequence: 101, created_ns: 2, ..sound }, mark));
        assert_eq!(sound.mark(), StreamMark { sequence: 80, taken_in_ns: Some(8000), ..mark });
    }
}
