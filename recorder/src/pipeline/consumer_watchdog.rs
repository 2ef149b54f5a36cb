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
use crate::source::setup::status::{Standing, renew_consumer, standing};
use crate::store::stream_marks::{self, Mark};
use crate::store::{self, Turn};

/// How often the mark is moved on.
const PAUSE: Duration = Duration::from_secs(10);

/// How often a new connection is looked for.
const GLANCE: Duration = Duration::from_millis(250);

/// How long a broker has to say the same before it is believed: in a cluster, one that has just been elected may not know
/// everything yet.
const SECOND_LOOK: Duration = Duration::from_secs(1);

/// What a check came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checked {
    /// All is as it was left. What the consumer has delivered goes from after the mark through another sequence.
    Sound {
        /// The mark.
        after: u64,
        /// What the consumer has delivered.
        through: u64,
    },
    /// The consumer was made anew.
    Healed,
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
pub struct Connection {
    server: String,
    number: u64,
}

/// A worker that looks after the consumer.
#[derive(Clone, Debug)]
pub struct Watchdog {
    client: Client,
    pool: PgPool,
    metrics: Arc<Metrics>,
    /// The connection on which everything behind the mark has been read again.
    looked_through: Arc<watch::Sender<Connection>>,
}

impl Watchdog {
    /// A worker on this broker and this database.
    pub fn new(client: Client, pool: PgPool, metrics: Arc<Metrics>) -> Self {
        Self { client, pool, metrics, looked_through: Arc::default() }
    }

    /// Its connection to the broker.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// Moves the mark on, and heals, until told to stop.
    pub async fn run(self, stop: CancellationToken) {
        while stop.run_until_cancelled(sleep(PAUSE)).await.is_some() {
            // On a new connection the pipeline has to read again first.
            let Some(connection) = self.connection().filter(|connection| self.is_looked_through(connection)) else {
                continue;
            };
            if let Some(Err(error)) = stop.run_until_cancelled(self.move_on(&connection)).await {
                // What a check cannot see, the pipeline meets as well, and says so.
                tracing::debug!(%error, "the stream could not be checked");
            }
        }
    }

    /// Resolves when there is a connection on which nothing has been read again yet.
    pub async fn reconnected(&self) -> Connection {
        loop {
            match self.connection() {
                Some(connection) if !self.is_looked_through(&connection) => return connection,
                _ => sleep(GLANCE).await,
            }
        }
    }

    /// Everything behind the mark has been read again on this connection.
    pub fn looked_through(&self, connection: Connection) {
        self.looked_through.send_replace(connection);
    }

    /// Compares the broker with the mark, and heals it. Does not move a mark that is there.
    pub async fn check(&self) -> Result<Checked, CheckError> {
        let Some(mut turn) = Turn::take(&self.pool, store::WATCHDOG).await? else { return Ok(Checked::Busy) };
        let (mark, standing) = match self.compare(&mut turn).await? {
            Compared::Sound(mark, standing) => (mark, standing),
            Compared::Healed => return Ok(Checked::Healed),
        };
        let through = standing.delivered;
        let after = match mark.filter(|mark| mark.stream_created == standing.created) {
            Some(mark) => mark.sequence,
            // Of a stream without a mark, nothing is known that could be wrong.
            None => {
                stream_marks::put(turn.connection(), &standing.mark()).await?;
                through
            }
        };
        turn.end().await?;
        Ok(Checked::Sound { after, through })
    }

    /// Compares, and moves the mark to where the consumer is.
    async fn move_on(&self, connection: &Connection) -> Result<(), CheckError> {
        let Some(mut turn) = Turn::take(&self.pool, store::WATCHDOG).await? else { return Ok(()) };
        if let Compared::Sound(_, standing) = self.compare(&mut turn).await? {
            // Was it this connection that said so?
            if self.connection().as_ref() == Some(connection) {
                stream_marks::put(turn.connection(), &standing.mark()).await?;
            }
            turn.end().await?;
        }
        Ok(())
    }

    async fn compare(&self, turn: &mut Turn) -> Result<Compared, CheckError> {
        let jetstream = jetstream::new(self.client.clone());
        let mark = stream_marks::get(turn.connection()).await?;
        if mark.is_some_and(|mark| mark.is_healing) {
            // Another recorder died while it made the consumer anew.
            self.renew(&jetstream).await?;
            return Ok(Compared::Healed);
        }
        let look = async || standing(&jetstream, mark.map(|mark| mark.sequence)).await;
        let mut standing = look().await?;
        if standing.problem(mark.as_ref()).is_some() {
            sleep(SECOND_LOOK).await;
            standing = look().await?;
        }
        let Some(problem) = standing.problem(mark.as_ref()) else { return Ok(Compared::Sound(mark, standing)) };
        let Standing { last, delivered, .. } = standing;
        tracing::error!(problem, last, delivered, "the broker went back in time: every event is delivered again");
        self.metrics.broker_regressions.inc();
        // Written down first: without its consumer, no recorder would know that another is only making it anew.
        let healing = Mark { is_healing: true, ..standing.mark() };
        stream_marks::put(&mut *self.pool.acquire().await?, &healing).await?;
        self.renew(&jetstream).await?;
        Ok(Compared::Healed)
    }

    async fn renew(&self, jetstream: &jetstream::Context) -> Result<(), CheckError> {
        renew_consumer(jetstream).await?;
        let standing = standing(jetstream, None).await?;
        Ok(stream_marks::put(&mut *self.pool.acquire().await?, &standing.mark()).await?)
    }

    fn connection(&self) -> Option<Connection> {
        let info = self.client.server_info();
        is_connected(&self.client).then_some(Connection { server: info.server_id, number: info.client_id })
    }

    fn is_looked_through(&self, connection: &Connection) -> bool {
        *self.looked_through.borrow() == *connection
    }
}

enum Compared {
    Sound(Option<Mark>, Standing),
    Healed,
}

// === impl Standing ===

impl Standing {
    /// What is wrong with it, seen from the mark.
    fn problem(&self, mark: Option<&Mark>) -> Option<&'static str> {
        if self.delivered > self.last {
            return Some("the consumer is ahead of the stream");
        }
        let mark = mark.filter(|mark| mark.stream_created == self.created)?;
        if mark.sequence > self.last {
            return Some("the stream is shorter than it was");
        }
        // An event that is gone says nothing: it was too old, or deleted.
        let is_another = self.at_mark.is_some() && mark.taken_in.is_some() && self.at_mark != mark.taken_in;
        is_another.then_some("another event stands where the mark is")
    }

    /// The mark to be left here.
    fn mark(&self) -> Mark {
        Mark {
            stream_created: self.created,
            sequence: self.acknowledged,
            taken_in: self.at_acknowledged,
            is_healing: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broker_that_went_back_in_time_is_told_from_one_that_did_not() {
        let sound = Standing {
            created: 1,
            first: 1,
            last: 100,
            delivered: 90,
            acknowledged: 80,
            at_acknowledged: Some(8000),
            at_mark: Some(7000),
        };
        let mark = Mark { stream_created: 1, sequence: 70, taken_in: Some(7000), is_healing: false };
        let problem = |standing: Standing, mark: Mark| standing.problem(Some(&mark)).is_some();
        assert_eq!(sound.problem(None), None);
        assert!(!problem(sound, mark));
        assert!(!problem(Standing { at_mark: None, first: 75, ..sound }, mark), "too old, and gone");
        assert!(!problem(Standing { created: 2, last: 90, at_mark: None, ..sound }, mark), "another stream");
        assert!(problem(Standing { at_mark: Some(9000), ..sound }, mark), "its place was given out again");
        assert!(problem(sound, Mark { sequence: 101, ..mark }));
        assert!(problem(Standing { delivered: 101, created: 2, ..sound }, mark));
        assert_eq!(sound.mark(), Mark { sequence: 80, taken_in: Some(8000), ..mark });
    }
}
