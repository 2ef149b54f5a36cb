//! A timer with exact ticks. The async runtime's timers are accurate to a millisecond, ten times the measured differences.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};
use tokio::io::unix::AsyncFd;
use tokio::time::Instant;

/// A kernel timer (timerfd) with a fixed period.
#[derive(Debug)]
pub struct Pacer {
    timer: AsyncFd<OwnedFd>,
    start: Instant,
    period: Duration,
    ticks: u32,
    /// Ticks counted by the kernel and not yet returned.
    waiting: u64,
}

impl Pacer {
    /// Starts the timer. The first tick is one period away.
    pub fn start(period: Duration) -> io::Result<Self> {
        let timer =
            rustix::time::timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        let interval = Timespec::try_from(period).map_err(io::Error::other)?;
        let start = Instant::now();
        let every = Itimerspec { it_interval: interval, it_value: interval };
        rustix::time::timerfd_settime(&timer, TimerfdTimerFlags::empty(), &every)?;
        #[expect(
            deprecated,
            reason = "the replacement is unsafe; the doubt is about types that are not an owned descriptor"
        )]
        let timer = AsyncFd::new(timer)?;
        Ok(Self { timer, start, period, ticks: 0, waiting: 0 })
    }

    /// Waits for the next tick and returns the due time of the tick. After a delay of the caller, overdue ticks are returned
    /// without a wait, and none is left out.
    pub async fn tick(&mut self) -> io::Result<Instant> {
        while self.waiting == 0 {
            let mut ready = self.timer.readable().await?;
            let mut count = [0; 8];
            if let Ok(read) = ready.try_io(|timer| Ok(rustix::io::read(timer, &mut count)?)) {
                read?;
                self.waiting = u64::from_ne_bytes(count);
            }
        }
        self.waiting -= 1;
        self.ticks += 1;
        Ok(self.start + self.period * self.ticks)
    }
}
