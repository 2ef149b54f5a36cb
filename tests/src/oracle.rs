//! The oracle: checks the invariants of the whole system after all events have been processed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::time::Duration;

use anyhow::ensure;
use async_nats::jetstream;
use futures_util::TryStreamExt as _;
use recorder::projection::admin_rows::AdminRows;
use recorder::projection::tables::{Table, Tables};
use recorder::source::log::{LogRange, LogReader, RangeEnd, RangeStart};
use shared::event::Event;
use shared::nats::BrokerConfig;
use tokio::time::{Instant, sleep};

/// Upper bound of the differing rows that are shown for each table.
const TOLD: usize = 5;

/// A settled record: tables that equal a fresh projection of the stream.
#[derive(Debug)]
pub struct Oracle {
    /// All rows of the projected tables.
    pub tables: Tables,
    /// All events of the stream, duplicates included.
    pub events: Vec<Event>,
}

impl Oracle {
    /// Waits until no event is pending: all events are in the tables or in quarantine. Fails after `within`.
    pub async fn drained(nats_url: &str, within: Duration) -> anyhow::Result<()> {
        let stream = stream(nats_url).await?;
        let deadline = Instant::now() + within;
        loop {
            // The consumer is missing for a moment while a recorder creates a new one.
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

    /// Waits until no event is pending and the tables equal a fresh projection of the stream. Fails after `within`.
    pub async fn settled(nats_url: &str, database_url: &str, within: Duration) -> anyhow::Result<Self> {
        Self::settled_with_quarantine(nats_url, database_url, within, 0).await
    }

    /// Like [`Self::settled`], with at most `most` deliveries in quarantine.
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
            ensure!(unreadable <= most, "{unreadable} deliveries are not readable events, at most {most} are allowed");
            let mut expected = Tables::default();
            expected.apply(&events);
            let tables = recorder::store::read_all(&pool).await?;
            let wrong = differences(&tables, &expected);
            if !wrong.is_empty() {
                // A difference is final only at the deadline, for three reasons: the consumer's information may come
                // from a node that is behind; recorders may have to read the end of the stream again after a broker
                // went back in time; and recorders may still publish end events for lost chats.
                let words = wrong.join("\n");
                ensure!(
                    Instant::now() < deadline,
                    "the tables differ from the projection of {} events:\n{words}",
                    events.len()
                );
                sleep(Duration::from_millis(200)).await;
                continue;
            }
            let quarantined: i64 = sqlx::query_scalar("SELECT count(*) FROM quarantine").fetch_one(&pool).await?;
            ensure!(
                usize::try_from(quarantined)? <= most,
                "{quarantined} events are in quarantine, at most {most} are allowed"
            );
            for ((user, date), counts) in &tables.usage_stats {
                let whole = counts.successful_calls + counts.failed_calls;
                ensure!(counts.api_calls == whole, "{user} on {date}: {counts:?}");
            }
            return Ok(Self { tables, events });
        }
    }

    /// Number of events in the stream. Entries of the audit log do not count: the API publishes them when it comes to it.
    pub async fn events(nats_url: &str) -> anyhow::Result<u64> {
        let stream = stream(nats_url).await?;
        let mut audited = stream.info_with_subjects("chats.audit_recorded.*").await?;
        let mut events = audited.info.state.messages;
        while let Some((_, entries)) = audited.try_next().await? {
            events = events.saturating_sub(u64::try_from(entries)?);
        }
        Ok(events)
    }
}

/// Differences between the tables: a line for each differing row, with an upper bound for each table.
fn differences(tables: &Tables, expected: &Tables) -> Vec<String> {
    let Tables {
        chats,
        conversations,
        messages,
        usage_stats,
        usage_slots,
        operation_slots,
        key_slots,
        admin: AdminRows { api_keys, limits, projects, price_lists, repricings, audit_log },
    } = tables;
    let mut lines = Vec::new();
    lines.extend(rows(Table::Chats, chats, &expected.chats));
    lines.extend(rows(Table::Conversations, conversations, &expected.conversations));
    lines.extend(rows(Table::Messages, messages, &expected.messages));
    lines.extend(rows(Table::UsageStats, usage_stats, &expected.usage_stats));
    lines.extend(rows(Table::UsageSlots, usage_slots, &expected.usage_slots));
    lines.extend(rows(Table::OperationSlots, operation_slots, &expected.operation_slots));
    lines.extend(rows(Table::KeySlots, key_slots, &expected.key_slots));
    lines.extend(rows(Table::ApiKeys, api_keys, &expected.admin.api_keys));
    lines.extend(rows(Table::Limits, limits, &expected.admin.limits));
    lines.extend(rows(Table::Projects, projects, &expected.admin.projects));
    lines.extend(rows(Table::PriceLists, price_lists, &expected.admin.price_lists));
    lines.extend(rows(Table::Repricings, repricings, &expected.admin.repricings));
    lines.extend(rows(Table::AuditLog, audit_log, &expected.admin.audit_log));
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

/// Connects with the user and the password of the URL, if the URL has them.
pub async fn client(nats_url: &str) -> anyhow::Result<async_nats::Client> {
    Ok(recorder::source::connect(&BrokerConfig::from_url(nats_url)?).await?)
}

async fn stream(nats_url: &str) -> anyhow::Result<jetstream::stream::Stream> {
    let jetstream = jetstream::new(client(nats_url).await?);
    Ok(jetstream.get_stream(shared::stream::NAME).await?)
}

/// Reads all events of the stream, without the recorders' consumer. Returns the events, and the number of deliveries that are
/// no events.
async fn read(nats_url: &str) -> anyhow::Result<(Vec<Event>, usize)> {
    let client = client(nats_url).await?;
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
