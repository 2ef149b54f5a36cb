//! The watchdog: notices a broker that went back in time, and heals it.
//!
//! A broker that lost the end of its stream (a power cut, a copy put back) uses the lost sequences again. A consumer whose own
//! state survived believes that it has delivered those already, and passes the new events over, without a word. So what the
//! consumer has acknowledged is written down as a mark: which sequence, and when the broker took in the event there. If
//! another event is there now, the consumer is made anew, from the first event on. The projection counts nothing twice, so
//! that costs only time.
//!
//! A mark is a little older than the consumer. A broker that lost only what lies between the two cannot be told from the
//! mark; so on every new connection that much is read again, whatever the consumer says of it, before the mark moves on.

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

/// How often the mark is moved on.
const CHECK_INTERVAL: Duration = Duration::from_secs(10);

/// How often a new connection is looked for.
const RECONNECT_POLL_INTERVAL: Duration = Duration::from_millis(250);

/// How long a broker has to say the same before it is believed: in a cluster, one that has just been elected may not know
/// everything yet.
const CONFIRMATION_DELAY: Duration = Duration::from_secs(1);

/// What a check came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckOutcome {
    /// All is as it was left. What the consumer has delivered goes from after the mark through another sequence.
    Consistent {
        /// The mark.
        after: u64,
        /// What the consumer has delivered.
        through: u64,
    },
    /// The consumer was made anew.
    ConsumerRecreated,
    /// Another recorder is at it.
    Busy,
}

/// Why a check could not be made.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// The broker's side.
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// The database's side.
    #[error("the database is not available: {}", store::describe(.0))]
    Database(#[from] sqlx::Error),
}

/// A connection to the broker, as the broker numbers it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConnectionId {
    server: String,
    number: u64,
}

/// A worker that looks after the consumer.
#[derive(Clone, Debug)]
pub struct ConsumerWatchdog {
    client: Client,
    pool: PgPool,
    metrics: Arc<Metrics>,
    /// The connection on which everything behind the mark has been read again.
    reread_connection: Arc<watch::Sender<ConnectionId>>,
}

impl ConsumerWatchdog {
    /// A worker on this broker and this database.
    pub fn new(client: Client, pool: PgPool, metrics: Arc<Metrics>) -> Self {
        Self { client, pool, metrics, reread_connection: Arc::default() }
    }

    /// Its connection to the broker.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// Moves the mark on, and heals, until told to stop.
    pub async fn run(self, stop: CancellationToken) {
        while stop.run_until_cancelled(sleep(CHECK_INTERVAL)).await.is_some() {
            // On a new connection the pipeline has to read again first.
            let Some(connection) = self.current_connection().filter(|connection| self.is_reread(connection)) else {
                continue;
            };
            if let Some(Err(error)) = stop.run_until_cancelled(self.advance_mark(&connection)).await {
                // What a check cannot see, the pipeline meets as well, and says so.
                tracing::debug!(%error, "the stream could not be checked");
            }
        }
    }

    /// Resolves when there is a connection on which nothing has been read again yet.
    pub async fn reconnected(&self) -> ConnectionId {
        loop {
            match self.current_connection() {
                Some(connection) if !self.is_reread(&connection) => return connection,
                _ => sleep(RECONNECT_POLL_INTERVAL).await,
            }
        }
    }

    /// Everything behind the mark has been read again on this connection.
    pub fn mark_reread(&self, connection: ConnectionId) {
        self.reread_connection.send_replace(connection);
    }

    /// Compares the broker with the mark, and heals it. Does not move a mark that is there.
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
            // Of a stream without a mark, nothing is known that could be wrong.
            None => {
                stream_marks::save(lock.connection(), &status.mark()).await?;
                through
            }
        };
        lock.commit().await?;
        Ok(CheckOutcome::Consistent { after, through })
    }

    /// Compares, and moves the mark to where the consumer is.
    async fn advance_mark(&self, connection: &ConnectionId) -> Result<(), CheckError> {
        let Some(mut lock) = LeaderLock::try_acquire(&self.pool, store::WATCHDOG_LOCK).await? else { return Ok(()) };
        if let MarkComparison::Consistent(_, status) = self.compare_with_mark(&mut lock).await? {
            // Was it this connection that said so?
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
            // Another recorder died while it made the consumer anew.
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
        // Written down first: without its consumer, no recorder would know that another is only making it anew.
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

// === impl Standing ===

impl StreamStatus {
    /// What is wrong with it, seen from the mark.
    fn regression(&self, mark: Option<&StreamMark>) -> Option<&'static str> {
        if self.delivered_sequence > self.last_sequence {
            return Some("the consumer is ahead of the stream");
        }
        let mark = mark.filter(|mark| mark.stream_created_ns == self.created_ns)?;
        if mark.sequence > self.last_sequence {
            return Some("the stream is shorter than it was");
        }
        // An event that is gone says nothing: it was too old, or deleted.
        let is_different_event =
            self.mark_stored_ns.is_some() && mark.taken_in_ns.is_some() && self.mark_stored_ns != mark.taken_in_ns;
        is_different_event.then_some("another event stands where the mark is")
    }

    /// The mark to be left here.
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
        assert!(problem(StreamStatus { mark_stored_ns: Some(9000), ..sound }, mark), "its place was given out again");
        assert!(problem(sound, StreamMark { sequence: 101, ..mark }));
        assert!(problem(StreamStatus { delivered_sequence: 101, created_ns: 2, ..sound }, mark));
        assert_eq!(sound.mark(), StreamMark { sequence: 80, taken_in_ns: Some(8000), ..mark });
    }
}
