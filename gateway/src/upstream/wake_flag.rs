//! A wake flag for a connection: set when the connection is woken, cleared when a poll of the connection made no progress.
//!
//! A task is run for many reasons and then polls all of its futures, but driving a connection is useful only after the
//! connection was woken. Most of these wake-ups come from the task itself: taking a chunk from hyper's channel wakes the
//! sender, the sender is the connection, and the connection is driven by the task that took the chunk. If the wake-ups went
//! on to the task, every chunk would cost a second run of the task, and the connection would be driven five times instead
//! of twice.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Wake, Waker};

use futures_util::task::AtomicWaker;

/// No wake-up since the last poll without progress.
const CLEARED: u8 = 0;
/// The connection may have made progress since the last poll.
const WOKEN: u8 = 1;
/// The connection is being polled.
const POLLING: u8 = 2;

/// The wake flag of one connection, with the waker that sets the flag.
#[derive(Debug)]
pub(super) struct WakeFlag {
    shared: Arc<WakeState>,
    waker: Waker,
}

#[derive(Debug)]
struct WakeState {
    state: AtomicU8,
    /// The waker of the task that waits for the connection.
    task: AtomicWaker,
}

impl Wake for WakeState {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // During a poll the task is not woken here: `clear` sees the wake-up after the poll.
        if self.state.swap(WOKEN, Ordering::AcqRel) == CLEARED {
            self.task.wake();
        }
    }
}

impl WakeFlag {
    /// Creates a flag that is set, so that the connection is driven at least once.
    pub(super) fn new() -> Self {
        let shared = Arc::new(WakeState { state: AtomicU8::new(WOKEN), task: AtomicWaker::new() });
        Self { waker: Waker::from(Arc::clone(&shared)), shared }
    }

    /// Sets the flag, so that the next poll drives the connection.
    pub(super) fn set(&self) {
        self.shared.state.store(WOKEN, Ordering::Release);
    }

    /// Removes the registered task. A wake-up of the connection then wakes no task.
    pub(super) fn unregister(&self) {
        drop(self.shared.task.take());
    }

    /// Returns true if the connection may have made progress. Otherwise the task of `cx` is woken at the next wake-up of
    /// the connection.
    pub(super) fn is_set(&self, cx: &Context<'_>) -> bool {
        self.shared.task.register(cx.waker());
        self.shared.state.load(Ordering::Acquire) != CLEARED
    }

    /// Starts a poll. Returns the context for polling the connection; wake-ups from now on set the flag again.
    pub(super) fn begin_poll(&self) -> Context<'_> {
        self.shared.state.swap(POLLING, Ordering::AcqRel);
        Context::from_waker(&self.waker)
    }

    /// Ends a poll that made no progress. Clears the flag, or wakes the task of `cx` if the connection was woken during the
    /// poll.
    pub(super) fn clear(&self, cx: &Context<'_>) {
        if self.shared.state.compare_exchange(POLLING, CLEARED, Ordering::AcqRel, Ordering::Acquire).is_err() {
            cx.waker().wake_by_ref();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[derive(Debug, Default)]
    struct Task(AtomicUsize);

    impl Wake for Task {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::AcqRel);
        }
    }

    fn task() -> (Arc<Task>, Waker) {
        let task = Arc::<Task>::default();
        (Arc::clone(&task), Waker::from(task))
    }

    /// Polls once if the flag is set, and calls `happens` during the poll.
    fn poll_once(flag: &WakeFlag, cx: &Context<'_>, happens: impl FnOnce(&Waker)) -> bool {
        let is_polled = flag.is_set(cx);
        if is_polled {
            happens(flag.begin_poll().waker());
            flag.clear(cx);
        }
        is_polled
    }

    #[test]
    fn a_connection_is_not_polled_twice_without_a_wake_up() {
        let (flag, (task, waker)) = (WakeFlag::new(), task());
        let cx = Context::from_waker(&waker);
        assert!(poll_once(&flag, &cx, |_| {}), "a new flag is set");
        assert!(!poll_once(&flag, &cx, |_| {}));
        flag.waker.wake_by_ref();
        flag.waker.wake_by_ref();
        assert_eq!(task.0.load(Ordering::Acquire), 1);
        assert!(poll_once(&flag, &cx, |_| {}));
        assert!(!poll_once(&flag, &cx, |_| {}));
        flag.set();
        assert!(poll_once(&flag, &cx, |_| {}));
    }

    #[test]
    fn a_wake_up_during_a_poll_is_not_lost() {
        let (flag, (task, waker)) = (WakeFlag::new(), task());
        let cx = Context::from_waker(&waker);
        assert!(poll_once(&flag, &cx, Waker::wake_by_ref));
        assert_eq!(task.0.load(Ordering::Acquire), 1);
        assert!(poll_once(&flag, &cx, |_| {}));
        assert!(!poll_once(&flag, &cx, |_| {}));
    }

    #[test]
    fn a_poll_that_wakes_itself_and_is_ready_does_not_wake_the_task() {
        let (flag, (task, waker)) = (WakeFlag::new(), task());
        let cx = Context::from_waker(&waker);
        assert!(flag.is_set(&cx));
        flag.begin_poll().waker().wake_by_ref();
        // The first poll returned a chunk; the second poll finds none.
        assert!(poll_once(&flag, &cx, |_| {}));
        assert_eq!(task.0.load(Ordering::Acquire), 0);
        assert!(!poll_once(&flag, &cx, |_| {}));
    }

    #[test]
    fn the_last_task_that_polled_is_woken() {
        let (flag, (first, first_waker), (second, second_waker)) = (WakeFlag::new(), task(), task());
        assert!(poll_once(&flag, &Context::from_waker(&first_waker), |_| {}));
        assert!(!poll_once(&flag, &Context::from_waker(&second_waker), |_| {}));
        flag.waker.wake_by_ref();
        let woken = |task: &Arc<Task>| task.0.load(Ordering::Acquire);
        assert_eq!((woken(&first), woken(&second)), (0, 1));
    }

    #[test]
    fn no_wake_up_is_lost_between_threads() {
        let flag = Arc::new(WakeFlag::new());
        let count = Arc::new(AtomicUsize::new(0));
        let (theirs, counted) = (flag.waker.clone(), Arc::clone(&count));
        let other = std::thread::spawn(move || {
            for _ in 0..100_000 {
                counted.fetch_add(1, Ordering::AcqRel);
                theirs.wake_by_ref();
            }
        });
        let this = std::thread::current();
        struct Unpark(std::thread::Thread);
        impl Wake for Unpark {
            fn wake(self: Arc<Self>) {
                self.0.unpark();
            }
        }
        let waker = Waker::from(Arc::new(Unpark(this)));
        let cx = Context::from_waker(&waker);
        let mut seen = 0;
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while seen < 100_000 {
            if flag.is_set(&cx) {
                flag.begin_poll();
                seen = count.load(Ordering::Acquire);
                flag.clear(&cx);
            } else {
                std::thread::park_timeout(std::time::Duration::from_secs(70));
                assert!(std::time::Instant::now() < deadline, "only {seen} of 100000 wake-ups were seen within 60 s");
            }
        }
        other.join().unwrap();
    }
}
