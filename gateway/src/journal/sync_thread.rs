//! The sync thread: syncs the log for many events at once, and retries failed writes.

use std::sync::{Arc, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::log::Log;
use super::store::{Lifecycle, Store, SyncThreadState};

/// The maximum time for which events stay unsynced if no caller waits for a sync.
const SYNC_INTERVAL: Duration = Duration::from_secs(1);

/// The interval between attempts to write the entries held only in memory.
const WRITE_RETRY_INTERVAL: Duration = Duration::from_secs(1);

enum SyncTask {
    Sync,
    RetryWrite,
    Stop,
}

/// The last execution time of each periodic task.
struct LastRuns {
    sync: Instant,
    write_retry: Instant,
}

/// Starts the sync thread. The thread ends after the writer thread, or when the last handle to the journal is gone.
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
        SyncTask::Sync => {
            sync(&store);
            last_runs.sync = Instant::now();
        }
        SyncTask::RetryWrite => {
            retry_write(&store);
            last_runs.write_retry = Instant::now();
        }
        SyncTask::Stop => {
            if store.lock().view.has_unwritten {
                retry_write(&store);
            }
            sync(&store);
            store.change_log(Log::close);
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
        if state.lifecycle == Lifecycle::Written {
            break Some(SyncTask::Stop);
        }
        let is_writable = state.view.is_writable;
        store.metrics.journal_writable.set(i64::from(state.is_writable(now)));
        let has_unsynced = is_writable && state.view.has_unsynced;
        // Queued events are not in the log, so no sync covers them.
        let queued_from = state.queue.first_number();
        if is_writable {
            // Events that are on the disk already satisfy waiters whose acknowledgement timeout has passed since the
            // sync.
            let synced_below = if has_unsynced { state.view.synced_below } else { u64::MAX };
            if state.waiters.resolve_synced(synced_below.min(queued_from).saturating_sub(1), now) {
                store.broker_health.mark_slow();
            }
        }
        let write_at = (!is_writable || state.view.has_unwritten).then(|| last_runs.write_retry + WRITE_RETRY_INTERVAL);
        if write_at.is_some_and(|at| at <= now) {
            break Some(SyncTask::RetryWrite);
        }
        let sync_at = [state.waiters.sync_at(queued_from), has_unsynced.then(|| last_runs.sync + SYNC_INTERVAL)];
        let sync_at = sync_at.into_iter().flatten().min().filter(|_| is_writable);
        if has_unsynced && sync_at.is_some_and(|at| at <= now) {
            break Some(SyncTask::Sync);
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
    let unwritten = store.change_log(|log| {
        log.write_unwritten();
        log.unwritten_numbers()
    });
    let mut state = store.lock();
    state.waiters.mark_written(&unwritten);
    store.metrics.journal_writable.set(i64::from(state.is_writable(Instant::now())));
}

fn sync(store: &Store) {
    let Some(batch) = store.lock_disk().log.sync_batch() else { return };
    let began = Instant::now();
    let synced = batch.segments.iter().try_for_each(|segment| segment.sync());
    store.metrics.journal_fsyncs.inc();
    store.metrics.journal_fsync_seconds.observe(began.elapsed().as_secs_f64());
    match synced {
        Ok(()) => {
            // The writer thread may hold the disk for long. No caller waits for that.
            if store.lock().waiters.resolve_synced(batch.last_number, Instant::now()) {
                store.broker_health.mark_slow();
            }
            store.change_log(|log| log.mark_synced(&batch));
        }
        Err(error) => {
            store.metrics.journal_fsync_failures.inc();
            tracing::error!(
                %error,
                "the journal could not be synced; its unsynced events are written again to a new segment"
            );
            store.change_log(Log::handle_failed_sync);
        }
    }
}
