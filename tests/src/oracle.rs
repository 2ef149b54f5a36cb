//! The oracle: what must be true whenever everything has come to rest.

use std::time::Duration;

use anyhow::ensure;
use async_nats::jetstream;
use recorder::projection::tables::Tables;
use recorder::source::log::{Ending, Log, Span, Start};
use shared::event::Event;
use tokio::time::{Instant, sleep};

/// A record at rest: the tables, which equal a fresh projection of the stream.
#[derive(Debug)]
pub struct Oracle {
    /// Every row of the projected tables.
    pub tables: Tables,
    /// Every event of the stream, repeated ones included.
    pub events: Vec<Event>,
}

impl Oracle {
    /// Waits until nothing is pending: every event is in the tables or in quarantine.
    pub async fn drained(nats_url: &str, within: Duration) -> anyhow::Result<()> {
        let stream = stream(nats_url).await?;
        let deadline = Instant::now() + within;
        loop {
            // It is missing for a moment while a recorder makes it anew.
            let Ok(info) = stream.consumer_info(shared::stream::CONSUMER).await else {
                ensure!(Instant::now() < deadline, "the consumer is missing after {within:?}");
                sleep(Duration::from_millis(20)).await;
                continue;
            };
            if info.num_pending == 0 && info.num_ack_pending == 0 {
                return Ok(());
            }
            let (pending, unacked) = (info.num_pending, info.num_ack_pending);
            ensure!(Instant::now() < deadline, "still {pending} pending and {unacked} unacknowledged after {within:?}");
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until nothing is pending, and compares.
    pub async fn settled(nats_url: &str, database_url: &str, within: Duration) -> anyhow::Result<Self> {
        Self::settled_with_quarantine(nats_url, database_url, within, 0).await
    }

    /// The same, where so many deliveries, and no more, may have had to be put into quarantine.
    pub async fn settled_with_quarantine(
        nats_url: &str,
        database_url: &str,
        within: Duration,
        most: usize,
    ) -> anyhow::Result<Self> {
        Self::drained(nats_url, within).await?;
        let (events, unreadable) = read(nats_url).await?;
        ensure!(unreadable <= most, "{unreadable} deliveries are no events, {most} may be");
        let mut expected = Tables::default();
        expected.apply(&events);
        let pool = sqlx::PgPool::connect(database_url).await?;
        let tables = recorder::store::read_all(&pool).await?;
        ensure!(tables == expected, "the tables are not what the stream says:\n{tables:#?}\nexpected:\n{expected:#?}");
        let quarantined: i64 = sqlx::query_scalar("SELECT count(*) FROM quarantine").fetch_one(&pool).await?;
        ensure!(usize::try_from(quarantined)? <= most, "{quarantined} events are in quarantine, {most} may be");
        for ((user, date), counts) in &tables.usage_stats {
            let whole = counts.successful_calls + counts.failed_calls;
            ensure!(counts.api_calls == whole, "{user} on {date}: {counts:?}");
        }
        Ok(Self { tables, events })
    }

    /// How many events the stream holds.
    pub async fn events(nats_url: &str) -> anyhow::Result<u64> {
        Ok(stream(nats_url).await?.info().await?.state.messages)
    }
}

async fn stream(nats_url: &str) -> anyhow::Result<jetstream::stream::Stream> {
    let jetstream = jetstream::new(recorder::source::connect(nats_url).await?);
    Ok(jetstream.get_stream(shared::stream::NAME).await?)
}

/// Every event in the stream, from the first, read without disturbing the recorders' consumer, as every reader of the log does.
/// With them, how many deliveries are no events.
async fn read(nats_url: &str) -> anyhow::Result<(Vec<Event>, usize)> {
    let client = recorder::source::connect(nats_url).await?;
    let span = Span { from: Start::Beginning, to: None, subjects: Vec::new(), ending: Ending::Stop };
    let mut log = Log::open(client, span).await?;
    let (mut events, mut unreadable) = (Vec::new(), 0);
    while let Some(delivery) = log.next().await? {
        match delivery.read() {
            Ok(event) => events.push(event),
            Err(_) => unreadable += 1,
        }
    }
    Ok((events, unreadable))
}
