//! Whether anything has happened to a connection since it was last driven to no avail.
//!
//! A task is run for many reasons, and polls all that it has; a connection is worth driving for one alone, that it was woken.
//! And most of what it wakes is ourselves: a chunk that is taken from hyper's channel wakes whoever put it in, which is the
//! connection, which is driven by who took it. Passed on, that would make every chunk cost a second run of the task, and
//! driving the connection five times where two do.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Wake, Waker};

use futures_util::task::AtomicWaker;

/// Nothing has happened.
const CLEARED: u8 = 0;
/// Something may have.
const WOKEN: u8 = 1;
/// It is being looked at.
const POLLING: u8 = 2;

/// What has happened to a connection.
#[derive(Debug)]
pub(super) struct WakeFlag {
    shared: Arc<WakeState>,
    waker: Waker,
}

#[derive(Debug)]
struct WakeState {
    state: AtomicU8,
    /// Who waits for news.
    task: AtomicWaker,
}

impl Wake for WakeState {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // While it is looked at, whoever does so finds this when done.
        if self.state.swap(WOKEN, Ordering::AcqRel) == CLEARED {
            self.task.wake();
        }
    }
}

impl WakeFlag {
    /// There may be some.
    pub(super) fn new() -> Self {
        let shared = Arc::new(WakeState { state: AtomicU8::new(WOKEN), task: AtomicWaker::new() });
        Self { waker: Waker::from(Arc::clone(&shared)), shared }
    }

    /// There may be some, whatever was found before.
    pub(super) fn set(&self) {
        self.shared.state.store(WOKEN, Ordering::Release);
    }

    /// Nobody waits for any.
    pub(super) fn unregister(&self) {
        drop(self.shared.task.take());
    }

    /// Whether there may be any. If not, whoever asks is woken when there is.
    pub(super) fn is_set(&self, cx: &Context<'_>) -> bool {
        self.shared.task.register(cx.waker());
        self.shared.state.load(Ordering::Acquire) != CLEARED
    }

    /// What to look with: what it wakes from now on is news.
    pub(super) fn begin_poll(&self) -> Context<'_> {
        self.shared.state.swap(POLLING, Ordering::AcqRel);
        Context::from_waker(&self.waker)
    }

    /// It was looked at, and there was nothing to be had. Whoever did so is woken again if something happened meanwhile.
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

    /// Looks once: `happens` is what happens meanwhile.
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
        assert!(poll_once(&flag, &cx, |_| {}), "who knows");
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
        // A chunk was had, and more is asked for; this time there is none.
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
                assert!(std::time::Instant::now() < deadline, "{seen} seen, and nobody said that there is more");
            }
        }
        other.join().unwrap();
    }
}
