//! The oracle: what must be true whenever everything has come to rest.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::time::Duration;

use anyhow::ensure;
use async_nats::jetstream;
use recorder::projection::tables::{Table, Tables};
use recorder::source::log::{LogRange, LogReader, RangeEnd, RangeStart};
use shared::event::Event;
use tokio::time::{Instant, sleep};

/// How many differing rows of a table are told.
const TOLD: usize = 5;

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

    /// Waits until nothing is pending and the tables are what the stream says; fails if they do not become that.
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
        let pool = sqlx::PgPool::connect(database_url).await?;
        let deadline = Instant::now() + within;
        loop {
            Self::drained(nats_url, deadline.saturating_duration_since(Instant::now())).await?;
            let (events, unreadable) = read(nats_url).await?;
            ensure!(unreadable <= most, "{unreadable} deliveries are no events, {most} may be");
            let mut expected = Tables::default();
            expected.apply(&events);
            let tables = recorder::store::read_all(&pool).await?;
            let wrong = differences(&tables, &expected);
            if !wrong.is_empty() {
                // Not a verdict yet. The consumer may be on a node that is behind, and know of nothing more; recorders may have to
                // read the end again, after a broker that went back in time; and they end lost chats by events of their own.
                let words = wrong.join("\n");
                ensure!(Instant::now() < deadline, "the tables are not what {} events say:\n{words}", events.len());
                sleep(Duration::from_millis(200)).await;
                continue;
            }
            let quarantined: i64 = sqlx::query_scalar("SELECT count(*) FROM quarantine").fetch_one(&pool).await?;
            ensure!(usize::try_from(quarantined)? <= most, "{quarantined} events are in quarantine, {most} may be");
            for ((user, date), counts) in &tables.usage_stats {
                let whole = counts.successful_calls + counts.failed_calls;
                ensure!(counts.api_calls == whole, "{user} on {date}: {counts:?}");
            }
            return Ok(Self { tables, events });
        }
    }

    /// How many events the stream holds.
    pub async fn events(nats_url: &str) -> anyhow::Result<u64> {
        Ok(stream(nats_url).await?.info().await?.state.messages)
    }
}

/// What differs, a line for each row, of every table the first few.
fn differences(tables: &Tables, expected: &Tables) -> Vec<String> {
    let Tables { chats, conversations, messages, usage_stats, usage_slots } = tables;
    let mut lines = Vec::new();
    lines.extend(rows(Table::Chats, chats, &expected.chats));
    lines.extend(rows(Table::Conversations, conversations, &expected.conversations));
    lines.extend(rows(Table::Messages, messages, &expected.messages));
    lines.extend(rows(Table::UsageStats, usage_stats, &expected.usage_stats));
    lines.extend(rows(Table::UsageSlots, usage_slots, &expected.usage_slots));
    lines
}

fn rows<K: Ord + Debug, V: PartialEq + Debug>(
    table: Table,
    found: &BTreeMap<K, V>,
    expected: &BTreeMap<K, V>,
) -> Vec<String> {
    let keys: BTreeSet<_> = found.keys().chain(expected.keys()).collect();
    let wrong: Vec<_> = keys.into_iter().filter(|key| found.get(key) != expected.get(key)).collect();
    let line =
        |key: &&K| format!("{} {key:?}: found {:?}, expected {:?}", table.name(), found.get(key), expected.get(key));
    let more = wrong.len().saturating_sub(TOLD);
    let more = (more > 0).then(|| format!("{}: and {more} more rows", table.name()));
    wrong.iter().take(TOLD).map(line).chain(more).collect()
}

async fn stream(nats_url: &str) -> anyhow::Result<jetstream::stream::Stream> {
    let jetstream = jetstream::new(recorder::source::connect(nats_url).await?);
    Ok(jetstream.get_stream(shared::stream::NAME).await?)
}

/// Every event in the stream, from the first, read without disturbing the recorders' consumer, as every reader of the log does.
/// With them, how many deliveries are no events.
async fn read(nats_url: &str) -> anyhow::Result<(Vec<Event>, usize)> {
    let client = recorder::source::connect(nats_url).await?;
    let span = LogRange { from: RangeStart::Beginning, to: None, subjects: Vec::new(), end: RangeEnd::Stop };
    let mut log = LogReader::open(client, span).await?;
    let (mut events, mut unreadable) = (Vec::new(), 0);
    while let Some(delivery) = log.next().await? {
        match delivery.decode() {
            Ok(event) => events.push(event),
            Err(_) => unreadable += 1,
        }
    }
    Ok((events, unreadable))
}
