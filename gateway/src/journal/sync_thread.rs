//! The keeper: a thread that syncs the log, many events at once, and tries to write again when that had failed.

use std::sync::{Arc, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::log::ToSync;
use super::store::{Doing, Store};

/// How long anything is left unsynced that nobody waits for.
const SYNC_INTERVAL: Duration = Duration::from_secs(1);

/// How often writing is tried again.
const RETRY: Duration = Duration::from_secs(1);

enum Work {
    Sync(ToSync),
    Write,
    Stop,
}

/// When the keeper last did what it does now and then.
struct Last {
    sync: Instant,
    write: Instant,
}

/// Starts the thread. It ends when the journal is closed, or nobody has it any more.
pub(super) fn start(store: &Arc<Store>) -> std::io::Result<JoinHandle<()>> {
    let store = Arc::downgrade(store);
    std::thread::Builder::new().name("journal-keeper".into()).spawn(move || {
        let mut last = Last { sync: Instant::now(), write: Instant::now() };
        while step(&store, &mut last) {}
    })
}

/// Waits for work, and does it. False when there will be no more.
fn step(store: &Weak<Store>, last: &mut Last) -> bool {
    let Some(store) = store.upgrade() else { return false };
    let Some(work) = await_work(&store, last) else { return true };
    match work {
        Work::Sync(to_sync) => {
            sync(&store, &to_sync);
            last.sync = Instant::now();
        }
        Work::Write => {
            write(&store);
            last.write = Instant::now();
        }
        Work::Stop => {
            if store.lock().log.holds_any() {
                write(&store);
            }
            let left = store.lock().log.to_sync();
            if let Some(to_sync) = left {
                sync(&store, &to_sync);
            }
            store.lock().log.close();
            return false;
        }
    }
    true
}

/// `None` now and then, so that a journal that nobody has any more is noticed.
fn await_work(store: &Store, last: &Last) -> Option<Work> {
    let mut state = store.lock();
    let work = loop {
        state.keeper = Doing::Work;
        let now = Instant::now();
        if state.is_closed {
            break Some(Work::Stop);
        }
        let is_writable = state.log.is_writable();
        store.metrics.journal_writable.set(i64::from(is_writable));
        let to_sync = if is_writable { state.log.to_sync() } else { None };
        if is_writable {
            // What is on the disk already is enough for those whose patience has run out only now.
            let synced = to_sync.as_ref().map_or(u64::MAX, |_| state.log.synced_below().saturating_sub(1));
            if state.waiters.synced(synced, now) {
                store.health.was_too_slow();
            }
        }
        let write_at = (!is_writable || state.log.holds_any()).then(|| last.write + RETRY);
        if write_at.is_some_and(|at| at <= now) {
            break Some(Work::Write);
        }
        let sync_at = [state.waiters.sync_at(), to_sync.as_ref().map(|_| last.sync + SYNC_INTERVAL)];
        let sync_at = sync_at.into_iter().flatten().min().filter(|_| is_writable);
        if let Some(to_sync) = to_sync
            && sync_at.is_some_and(|at| at <= now)
        {
            break Some(Work::Sync(to_sync));
        }
        if let Some(at) = sync_at.into_iter().chain(write_at).min() {
            state.keeper = Doing::Nap(at);
            let left = at.saturating_duration_since(now);
            let waited = store.work.wait_timeout(state, left.max(Duration::from_micros(1)));
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        } else {
            state.keeper = Doing::Sleep;
            let waited = store.work.wait_timeout(state, Duration::from_secs(5));
            let (woken, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
            state = woken;
            if timeout.timed_out() {
                break None;
            }
        }
    };
    state.keeper = Doing::Work;
    work
}

/// Writes what is in memory alone, as far as the disk takes it.
fn write(store: &Store) {
    let mut state = store.lock();
    state.log.try_to_write();
    let held = state.log.held();
    state.waiters.written(&held);
    store.metrics.journal_writable.set(i64::from(state.log.is_writable()));
}

fn sync(store: &Store, to_sync: &ToSync) {
    let began = Instant::now();
    let synced = to_sync.segments.iter().try_for_each(|segment| segment.sync());
    store.metrics.journal_fsyncs.inc();
    store.metrics.journal_fsync_seconds.observe(began.elapsed().as_secs_f64());
    let mut state = store.lock();
    match synced {
        Ok(()) => {
            state.log.synced(to_sync);
            if state.waiters.synced(to_sync.up_to, Instant::now()) {
                store.health.was_too_slow();
            }
        }
        Err(error) => {
            store.metrics.journal_fsync_failures.inc();
            tracing::error!(%error, "the journal could not be synced; what it held is written again elsewhere");
            state.log.sync_failed();
        }
    }
}
