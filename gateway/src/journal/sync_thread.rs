//! The sync thread: syncs the log for many events at once, and retries failed writes.

use std::sync::{Arc, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::log::SyncBatch;
use super::store::{Store, SyncThreadState};

/// The maximum time for which events stay unsynced if no caller waits for a sync.
const SYNC_INTERVAL: Duration = Duration::from_secs(1);

/// The interval between attempts to write the entries held only in memory.
const WRITE_RETRY_INTERVAL: Duration = Duration::from_secs(1);

enum SyncTask {
    Sync(SyncBatch),
    RetryWrite,
    Stop,
}

/// The last execution time of each periodic task.
struct LastRuns {
    sync: Instant,
    write_retry: Instant,
}

/// Starts the sync thread. The thread ends when the journal is closed, or when the last handle to the journal is gone.
pub(super) fn start(store: &Arc<Store>) -> std::io::Result<JoinHandle<()>> {
    let store = Arc::downgrade(store);
    std::thread::Builder::new().name("journal-sync".into()).spawn(move || {
        let mut last_runs = LastRuns { sync: Instant::now(), write_retry: Instant::now() };
        while step(&store, &mut last_runs) {}
    })
}

/// Waits for a task and executes the task. Returns false when the thread must end.
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

/// Blocks until there is a task. Returns `None` after five seconds without a task, so that the thread notices when the
/// journal no longer exists.
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
            // Events that are on the disk already satisfy waiters whose acknowledgement timeout has passed since the
            // sync.
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

/// Writes the entries held only in memory, as far as the disk accepts them.
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
            tracing::error!(
                %error,
                "the journal could not be synced; its unsynced events are written again to a new segment"
            );
            state.log.handle_failed_sync();
        }
    }
}
