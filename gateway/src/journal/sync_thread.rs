//! The sync thread: a thread that syncs the log, many events at once, and tries to write again when that had failed.

use std::sync::{Arc, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::log::SyncBatch;
use super::store::{Store, SyncThreadState};

/// How long anything is left unsynced that nobody waits for.
const SYNC_INTERVAL: Duration = Duration::from_secs(1);

/// How often writing is tried again.
const WRITE_RETRY_INTERVAL: Duration = Duration::from_secs(1);

enum SyncTask {
    Sync(SyncBatch),
    RetryWrite,
    Stop,
}

/// When the sync thread last did what it does now and then.
struct LastRuns {
    sync: Instant,
    write_retry: Instant,
}

/// Starts the thread. It ends when the journal is closed, or nobody has it any more.
pub(super) fn start(store: &Arc<Store>) -> std::io::Result<JoinHandle<()>> {
    let store = Arc::downgrade(store);
    std::thread::Builder::new().name("journal-sync".into()).spawn(move || {
        let mut last_runs = LastRuns { sync: Instant::now(), write_retry: Instant::now() };
        while step(&store, &mut last_runs) {}
    })
}

/// Waits for work, and does it. False when there will be no more.
fn step(store: &Weak<Store>, last_runs: &mut LastRuns) -> bool {
    let Some(store) = store.upgrade() else { return false };
    let Some(task) = wait_for_task(&store, last_runs) else { return true };
    match task {
        SyncTask::Sync(batch) => {
            sync(&store, &batch);
            last_runs.sync = Instant::now();
        }
        SyncTask::RetryWrite => {
            retry_write(&store);
            last_runs.write_retry = Instant::now();
        }
        SyncTask::Stop => {
            if store.lock().log.has_unwritten() {
                retry_write(&store);
            }
            let left = store.lock().log.sync_batch();
            if let Some(batch) = left {
                sync(&store, &batch);
            }
            store.lock().log.close();
            return false;
        }
    }
    true
}

/// `None` now and then, so that a journal that nobody has any more is noticed.
fn wait_for_task(store: &Store, last_runs: &LastRuns) -> Option<SyncTask> {
    let mut state = store.lock();
    let task = loop {
        state.sync_thread_state = SyncThreadState::Working;
        let now = Instant::now();
        if state.is_closed {
            break Some(SyncTask::Stop);
        }
        let is_writable = state.log.is_writable();
        store.metrics.journal_writable.set(i64::from(is_writable));
        let batch = if is_writable { state.log.sync_batch() } else { None };
        if is_writable {
            // What is on the disk already is enough for those whose patience has run out only now.
            let synced = batch.as_ref().map_or(u64::MAX, |_| state.log.synced_below().saturating_sub(1));
            if state.waiters.resolve_synced(synced, now) {
                store.broker_health.mark_slow();
            }
        }
        let write_at =
            (!is_writable || state.log.has_unwritten()).then(|| last_runs.write_retry + WRITE_RETRY_INTERVAL);
        if write_at.is_some_and(|at| at <= now) {
            break Some(SyncTask::RetryWrite);
        }
        let sync_at = [state.waiters.sync_at(), batch.as_ref().map(|_| last_runs.sync + SYNC_INTERVAL)];
        let sync_at = sync_at.into_iter().flatten().min().filter(|_| is_writable);
        if let Some(batch) = batch
            && sync_at.is_some_and(|at| at <= now)
        {
            break Some(SyncTask::Sync(batch));
        }
        if let Some(at) = sync_at.into_iter().chain(write_at).min() {
            state.sync_thread_state = SyncThreadState::SleepingUntil(at);
            let left = at.saturating_duration_since(now);
            let waited = store.sync_thread_wake.wait_timeout(state, left.max(Duration::from_micros(1)));
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        } else {
            state.sync_thread_state = SyncThreadState::Sleeping;
            let waited = store.sync_thread_wake.wait_timeout(state, Duration::from_secs(5));
            let (woken, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
            state = woken;
            if timeout.timed_out() {
                break None;
            }
        }
    };
    state.sync_thread_state = SyncThreadState::Working;
    task
}

/// Writes what is in memory alone, as far as the disk takes it.
fn retry_write(store: &Store) {
    let mut state = store.lock();
    state.log.write_unwritten();
    let unwritten = state.log.unwritten_numbers();
    state.waiters.mark_written(&unwritten);
    store.metrics.journal_writable.set(i64::from(state.log.is_writable()));
}

fn sync(store: &Store, batch: &SyncBatch) {
    let began = Instant::now();
    let synced = batch.segments.iter().try_for_each(|segment| segment.sync());
    store.metrics.journal_fsyncs.inc();
    store.metrics.journal_fsync_seconds.observe(began.elapsed().as_secs_f64());
    let mut state = store.lock();
    match synced {
        Ok(()) => {
            state.log.mark_synced(batch);
            if state.waiters.resolve_synced(batch.last_number, Instant::now()) {
                store.broker_health.mark_slow();
            }
        }
        Err(error) => {
            store.metrics.journal_fsync_failures.inc();
            tracing::error!(%error, "the journal could not be synced; what it held is written again elsewhere");
            state.log.handle_failed_sync();
        }
    }
}
