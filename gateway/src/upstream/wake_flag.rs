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
const NONE: u8 = 0;
/// Something may have.
const SOME: u8 = 1;
/// It is being looked at.
const LOOKED_AT: u8 = 2;

/// What has happened to a connection.
#[derive(Debug)]
pub(super) struct News {
    shared: Arc<Shared>,
    waker: Waker,
}

#[derive(Debug)]
struct Shared {
    state: AtomicU8,
    /// Who waits for news.
    task: AtomicWaker,
}

impl Wake for Shared {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // While it is looked at, whoever does so finds this when done.
        if self.state.swap(SOME, Ordering::AcqRel) == NONE {
            self.task.wake();
        }
    }
}

impl News {
    /// There may be some.
    pub(super) fn new() -> Self {
        let shared = Arc::new(Shared { state: AtomicU8::new(SOME), task: AtomicWaker::new() });
        Self { waker: Waker::from(Arc::clone(&shared)), shared }
    }

    /// There may be some, whatever was found before.
    pub(super) fn expect(&self) {
        self.shared.state.store(SOME, Ordering::Release);
    }

    /// Nobody waits for any.
    pub(super) fn forget(&self) {
        drop(self.shared.task.take());
    }

    /// Whether there may be any. If not, whoever asks is woken when there is.
    pub(super) fn are_there(&self, cx: &Context<'_>) -> bool {
        self.shared.task.register(cx.waker());
        self.shared.state.load(Ordering::Acquire) != NONE
    }

    /// What to look with: what it wakes from now on is news.
    pub(super) fn look(&self) -> Context<'_> {
        self.shared.state.swap(LOOKED_AT, Ordering::AcqRel);
        Context::from_waker(&self.waker)
    }

    /// It was looked at, and there was nothing to be had. Whoever did so is woken again if something happened meanwhile.
    pub(super) fn none_left(&self, cx: &Context<'_>) {
        if self.shared.state.compare_exchange(LOOKED_AT, NONE, Ordering::AcqRel, Ordering::Acquire).is_err() {
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
    fn look(news: &News, cx: &Context<'_>, happens: impl FnOnce(&Waker)) -> bool {
        let is_looked_at = news.are_there(cx);
        if is_looked_at {
            happens(news.look().waker());
            news.none_left(cx);
        }
        is_looked_at
    }

    #[test]
    fn nothing_is_looked_at_twice_without_a_reason() {
        let (news, (task, waker)) = (News::new(), task());
        let cx = Context::from_waker(&waker);
        assert!(look(&news, &cx, |_| {}), "who knows");
        assert!(!look(&news, &cx, |_| {}));
        news.waker.wake_by_ref();
        news.waker.wake_by_ref();
        assert_eq!(task.0.load(Ordering::Acquire), 1);
        assert!(look(&news, &cx, |_| {}));
        assert!(!look(&news, &cx, |_| {}));
        news.expect();
        assert!(look(&news, &cx, |_| {}));
    }

    #[test]
    fn what_happens_meanwhile_is_not_lost() {
        let (news, (task, waker)) = (News::new(), task());
        let cx = Context::from_waker(&waker);
        assert!(look(&news, &cx, Waker::wake_by_ref));
        assert_eq!(task.0.load(Ordering::Acquire), 1);
        assert!(look(&news, &cx, |_| {}));
        assert!(!look(&news, &cx, |_| {}));
    }

    #[test]
    fn who_wakes_itself_and_has_something_is_not_woken() {
        let (news, (task, waker)) = (News::new(), task());
        let cx = Context::from_waker(&waker);
        assert!(news.are_there(&cx));
        news.look().waker().wake_by_ref();
        // A chunk was had, and more is asked for; this time there is none.
        assert!(look(&news, &cx, |_| {}));
        assert_eq!(task.0.load(Ordering::Acquire), 0);
        assert!(!look(&news, &cx, |_| {}));
    }

    #[test]
    fn whoever_asks_last_is_woken() {
        let (news, (first, first_waker), (second, second_waker)) = (News::new(), task(), task());
        assert!(look(&news, &Context::from_waker(&first_waker), |_| {}));
        assert!(!look(&news, &Context::from_waker(&second_waker), |_| {}));
        news.waker.wake_by_ref();
        let woken = |task: &Arc<Task>| task.0.load(Ordering::Acquire);
        assert_eq!((woken(&first), woken(&second)), (0, 1));
    }

    #[test]
    fn no_news_is_lost_between_threads() {
        let news = Arc::new(News::new());
        let count = Arc::new(AtomicUsize::new(0));
        let (theirs, counted) = (news.waker.clone(), Arc::clone(&count));
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
            if news.are_there(&cx) {
                news.look();
                seen = count.load(Ordering::Acquire);
                news.none_left(&cx);
            } else {
                std::thread::park_timeout(std::time::Duration::from_secs(70));
                assert!(std::time::Instant::now() < deadline, "{seen} seen, and nobody said that there is more");
            }
        }
        other.join().unwrap();
    }
}
