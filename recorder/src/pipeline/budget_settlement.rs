//! Settles the parts of budgets that runs of gateways were granted: the part of a run that is over is replaced by the costs on the record.
//!
//! The sum on the record is computed from the `chats` table, without the calls that a run of the entry counts itself, so it is exact
//! whatever was lost, and may be computed any number of times. Any number of recorders may settle: a lock lets one at a time, and an entry
//! is changed by compare-and-set alone.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use async_nats::Client;
use async_nats::jetstream::{self, kv};
use futures_util::StreamExt as _;
use shared::budget_ledger::{self, BUCKET, LedgerEntry, LedgerRun};
use shared::budget_window::BudgetWindow;
use shared::event::LimitScope;
use shared::lease::{self, Lease};
use shared::stream::{CONSUMER, NAME};
use sqlx::{PgConnection, PgPool};
use time::OffsetDateTime;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::store::budget_spend::{self, CountedElsewhere};
use crate::store::{self, LeaderLock};

/// The longest pause between two looks.
const MAX_LOOK_INTERVAL: Duration = Duration::from_secs(10);
/// The pause after the bucket could not be followed.
const RETRY_DELAY: Duration = Duration::from_secs(5);
/// The age at which the sum of an entry is computed again: costs change by repricing, and by ends that arrive late.
const MAX_SUM_AGE: Duration = Duration::from_secs(600);
/// The time after a settlement for which the sum is computed at every look, for ends that a gateway publishes after its next start.
const LATE_ENDS: Duration = Duration::from_secs(120);
/// The time after the end of a period in which its entry is kept, and its sum computed again: calls that run at the end count in it.
const KEPT_SECONDS: i64 = 2 * 24 * 3600;
/// The maximum number of entries that are settled at a look.
const MAX_ENTRIES: usize = 1000;
/// The number of times that an entry is tried against the changes of gateways.
const MAX_CONFLICTS: usize = 20;

/// A worker that settles budgets.
#[derive(Debug)]
pub struct BudgetSettler {
    client: Client,
    pool: PgPool,
    /// The time for which a gateway's lease must be missing.
    grace: Duration,
    entries: HashMap<String, FollowedEntry>,
    /// The runs without a lease.
    over: HashMap<Uuid, OverRun>,
}

/// An entry, as last seen.
#[derive(Debug)]
struct FollowedEntry {
    scope: LimitScope,
    window: BudgetWindow,
    entry: LedgerEntry,
    /// The time at which this recorder last computed the sum.
    summed_at: Option<Instant>,
    /// The time at which this recorder last settled a run.
    settled_at: Option<Instant>,
}

/// A run whose lease is gone, or is that of another run.
#[derive(Clone, Copy, Debug)]
struct OverRun {
    since: Instant,
    /// True if a later run of the gateway has a lease: the gateway cannot be cut off.
    has_successor: bool,
    /// The sequence up to which the tables must be complete.
    required_sequence: u64,
}

impl BudgetSettler {
    /// Creates a settler. `grace` is the time for which a gateway's lease must be missing before its part is settled.
    pub fn new(client: Client, pool: PgPool, grace: Duration) -> Self {
        Self { client, pool, grace, entries: HashMap::new(), over: HashMap::new() }
    }

    /// Follows the bucket and settles, until told to stop.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut has_reported = false;
        loop {
            let Some(Err(error)) = stop.run_until_cancelled(self.follow(&mut has_reported)).await else { return };
            // Without an observation, a lease may have been there.
            self.over.clear();
            self.entries.clear();
            if !std::mem::replace(&mut has_reported, true) {
                let error = format!("{error:#}");
                tracing::warn!(
                    error,
                    "budgets cannot be settled: what lost gateways were granted stays spent until they can"
                );
            }
            if stop.run_until_cancelled(sleep(RETRY_DELAY)).await.is_none() {
                return;
            }
        }
    }

    async fn follow(&mut self, has_reported: &mut bool) -> anyhow::Result<std::convert::Infallible> {
        let jetstream = jetstream::new(self.client.clone());
        let bucket = jetstream.get_key_value(BUCKET).await;
        let bucket = bucket.context("bucket BUDGETS, expected a bucket made by `recorder stream create`")?;
        let mut watch = bucket.watch_with_history(">").await.context("the bucket BUDGETS could not be followed")?;
        let mut looks = interval((self.grace / 4).min(MAX_LOOK_INTERVAL));
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                entry = watch.next() => {
                    let entry = entry.context("the watch of the bucket BUDGETS ended")?;
                    self.note(&entry.context("the watch of the bucket BUDGETS failed")?);
                }
                _ = looks.tick() => {
                    self.look(&jetstream, &bucket).await?;
                    if std::mem::take(has_reported) {
                        tracing::info!("budgets are settled again");
                    }
                }
            }
        }
    }

    fn note(&mut self, entry: &kv::Entry) {
        if entry.operation != kv::Operation::Put {
            self.entries.remove(&entry.key);
            return;
        }
        let Some((scope, window)) = budget_ledger::parse_name(&entry.key) else { return };
        let Ok(value) = serde_json::from_slice::<LedgerEntry>(&entry.value) else { return };
        let new = || FollowedEntry { scope, window, entry: LedgerEntry::default(), summed_at: None, settled_at: None };
        let followed = self.entries.entry(entry.key.clone()).or_insert_with(new);
        // A run that was taken for lost counts its earlier calls again: the sum must be without them.
        let before = at_micros(OffsetDateTime::now_utc() - MAX_LOOK_INTERVAL);
        let is_back = |(id, run): (&Uuid, &LedgerRun)| run.since < before && !followed.entry.runs.contains_key(id);
        if value.runs.iter().any(is_back) {
            followed.summed_at = None;
        }
        followed.entry = value;
    }

    /// Looks for runs that are over and for sums that are old, and settles them.
    async fn look(&mut self, jetstream: &jetstream::Context, bucket: &kv::Store) -> anyhow::Result<()> {
        if self.entries.is_empty() {
            return Ok(());
        }
        let over = self.runs_over(jetstream).await?;
        let now = OffsetDateTime::now_utc().unix_timestamp();
        let due = self.entries.iter().filter(|(_, followed)| followed.is_due(now, &over));
        let due: Vec<String> = due.map(|(name, _)| name.clone()).take(MAX_ENTRIES).collect();
        if due.is_empty() {
            return Ok(());
        }
        let Some(mut lock) = LeaderLock::try_acquire(&self.pool, store::BUDGETS_LOCK).await? else { return Ok(()) };
        for name in due {
            let Some(followed) = self.entries.get_mut(&name) else { continue };
            if followed.is_old(now) {
                bucket.purge(&name).await.context("an entry could not be removed")?;
                continue;
            }
            followed.settle(&name, bucket, lock.connection(), &over).await?;
        }
        lock.commit().await?;
        Ok(())
    }

    /// Returns the runs that are over and whose events are all in the tables.
    async fn runs_over(&mut self, jetstream: &jetstream::Context) -> anyhow::Result<BTreeSet<Uuid>> {
        let mut gateways = BTreeMap::<&str, BTreeSet<Uuid>>::new();
        for followed in self.entries.values() {
            for (id, run) in &followed.entry.runs {
                gateways.entry(&run.gateway).or_default().insert(*id);
            }
        }
        if gateways.is_empty() {
            return Ok(BTreeSet::new());
        }
        let stream = jetstream.get_stream(NAME).await.context("the stream could not be read")?;
        let last_sequence = stream.cached_info().state.last_sequence;
        let leases =
            jetstream.get_key_value(lease::BUCKET).await.context("the bucket of leases could not be opened")?;
        let mut seen = HashMap::new();
        for (gateway, runs) in gateways {
            let present = lease_of(&leases, gateway).await?;
            for run in runs.into_iter().filter(|run| Some(*run) != present) {
                let new = OverRun { since: Instant::now(), has_successor: false, required_sequence: last_sequence };
                let known = self.over.get(&run).copied().unwrap_or(new);
                seen.insert(run, OverRun { has_successor: present.is_some(), ..known });
            }
        }
        self.over = seen;
        let acknowledged = stream.consumer_info(CONSUMER).await.context("the consumer could not be read")?;
        let acknowledged = acknowledged.ack_floor.stream_sequence;
        let is_over = |run: &OverRun| {
            let is_lost = run.has_successor || run.since.elapsed() >= self.grace;
            is_lost && (run.required_sequence <= acknowledged || run.required_sequence > last_sequence)
        };
        Ok(self.over.iter().filter(|(_, run)| is_over(run)).map(|(id, _)| *id).collect())
    }
}

impl FollowedEntry {
    /// Returns true if the entry has to be settled, summed again or removed.
    fn is_due(&self, now: i64, over: &BTreeSet<Uuid>) -> bool {
        let is_summed_lately = |age| self.summed_at.is_some_and(|at: Instant| at.elapsed() < age);
        let is_settled_lately = self.settled_at.is_some_and(|at| at.elapsed() < LATE_ENDS);
        !self.entry.is_recorded
            || self.is_old(now)
            || self.entry.runs.keys().any(|run| over.contains(run))
            || is_settled_lately
            || !is_summed_lately(MAX_SUM_AGE)
    }

    fn is_old(&self, now: i64) -> bool {
        now > self.window.end.saturating_add(KEPT_SECONDS)
    }

    /// Replaces the parts of the runs that are over by the costs on the record, and computes the sum.
    async fn settle(
        &mut self,
        name: &str,
        bucket: &kv::Store,
        connection: &mut PgConnection,
        over: &BTreeSet<Uuid>,
    ) -> anyhow::Result<()> {
        let mut summed: Option<(BTreeMap<Uuid, LedgerRun>, u64)> = None;
        for _ in 0..MAX_CONFLICTS {
            let Some(found) = bucket.entry(name).await.context("an entry could not be read")? else { return Ok(()) };
            let Ok(present) = serde_json::from_slice::<LedgerEntry>(&found.value) else { return Ok(()) };
            let mut kept = present.runs.clone();
            for (id, run) in &present.runs {
                if over.contains(id) && !has_open_chats(connection, run, &present.runs).await? {
                    kept.remove(id);
                }
            }
            let is_of_kept = |sum: &BTreeMap<Uuid, LedgerRun>| sum.keys().eq(kept.keys());
            let recorded = match &summed {
                Some((runs, recorded)) if is_of_kept(runs) => *recorded,
                _ => {
                    let elsewhere: Vec<_> = kept.values().map(counted_by).collect();
                    budget_spend::recorded(connection, &self.scope, self.window, &elsewhere).await?
                }
            };
            let settled = present.runs.len() - kept.len();
            let new = LedgerEntry { recorded, is_recorded: true, runs: kept.clone() };
            summed = Some((kept, recorded));
            if new != present {
                let value = serde_json::to_vec(&new)?;
                match bucket.update(name, value.into(), found.revision).await {
                    Ok(_) => {}
                    Err(error) if error.kind() == kv::UpdateErrorKind::WrongLastRevision => continue,
                    Err(error) => return Err(error).context("an entry could not be written"),
                }
            }
            self.summed_at = Some(Instant::now());
            if settled > 0 {
                self.settled_at = self.summed_at;
                tracing::info!(runs = settled, "what lost gateways had of a budget is settled from the record");
            }
            return Ok(());
        }
        // Gateways change the entry all the time: the next look tries again.
        Ok(())
    }
}

/// Returns true if a run that is over has chats whose ends are not on the record.
async fn has_open_chats(
    connection: &mut PgConnection,
    run: &LedgerRun,
    runs: &BTreeMap<Uuid, LedgerRun>,
) -> Result<bool, sqlx::Error> {
    // The chats from the next run of the gateway on are its own.
    let later = runs.values().filter(|other| other.gateway == run.gateway && other.since > run.since);
    let until = later.map(|other| at(other.since)).min();
    budget_spend::has_open_chats(connection, &run.gateway, at(run.since), until).await
}

fn counted_by(run: &LedgerRun) -> CountedElsewhere {
    CountedElsewhere { gateway: run.gateway.clone(), since: at(run.since) }
}

fn at_micros(at: OffsetDateTime) -> i64 {
    i64::try_from(at.unix_timestamp_nanos() / 1000).unwrap_or(i64::MAX)
}

fn at(micros: i64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(micros) * 1000).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

/// Returns the run that holds the lease of a gateway.
async fn lease_of(leases: &kv::Store, gateway: &str) -> anyhow::Result<Option<Uuid>> {
    let Some(key) = lease::key(gateway) else { return Ok(None) };
    let entry = leases.entry(key).await.context("a lease could not be read")?;
    let Some(entry) = entry.filter(|entry| entry.operation == kv::Operation::Put) else { return Ok(None) };
    let lease: Lease = serde_json::from_slice(&entry.value).context("a lease could not be parsed")?;
    Ok(Some(lease.incarnation))
}
