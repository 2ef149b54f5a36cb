//! Log lines on their way to standard output. Lines that come close together are written together: one write for each
//! would cost a busy gateway more than making the line.
//!
//! The first line after a pause is written at once; those after it wait for [`PAUSE`] at most. What waits is bounded: past
//! the bound whoever logs writes it out. An error is written at once, with all that came before it.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

/// How long lines may wait for others.
const PAUSE: Duration = Duration::from_millis(20);

/// How many bytes may wait.
const MAX_WAITING: usize = 256 << 10;

/// Where lines go.
#[derive(Debug)]
pub(super) struct Lines<W>(Arc<Shared<W>>);

#[derive(Debug)]
struct Shared<W> {
    waiting: Mutex<Waiting>,
    arrived: Condvar,
    /// Locked before `waiting` is emptied, so that lines stay in order.
    out: Mutex<W>,
}

#[derive(Debug, Default)]
struct Waiting {
    lines: Vec<u8>,
    writer_sleeps: bool,
}

/// Writes one line.
#[derive(Debug)]
pub(super) struct Line<'a, W: io::Write> {
    lines: &'a Lines<W>,
    is_urgent: bool,
}

/// Writes what still waits when it is dropped, at the end of the process.
#[must_use]
#[derive(Debug)]
pub struct LogGuard(Lines<io::Stdout>);

impl Lines<io::Stdout> {
    /// Lines to standard output, written by a thread of their own.
    pub(super) fn start() -> (Self, LogGuard) {
        let lines = Self::new(io::stdout());
        let written = lines.clone();
        let thread = std::thread::Builder::new().name("log".to_owned()).spawn(move || written.write_for_ever());
        if let Err(error) = thread {
            // Without it lines wait until there are many, or an error comes.
            lines
                .append(format!("{{\"level\":\"ERROR\",\"message\":\"no thread for the log: {error}\"}}\n").as_bytes());
            lines.flush();
        }
        (lines.clone(), LogGuard(lines))
    }
}

impl<W: io::Write> Lines<W> {
    fn new(out: W) -> Self {
        Self(Arc::new(Shared { waiting: Mutex::default(), arrived: Condvar::new(), out: Mutex::new(out) }))
    }

    fn write_for_ever(&self) {
        loop {
            let mut waiting = self.waiting();
            while waiting.lines.is_empty() {
                waiting.writer_sleeps = true;
                waiting = self.0.arrived.wait(waiting).unwrap_or_else(PoisonError::into_inner);
            }
            waiting.writer_sleeps = false;
            drop(waiting);
            self.flush();
            std::thread::sleep(PAUSE);
        }
    }

    fn append(&self, line: &[u8]) {
        let mut waiting = self.waiting();
        while !waiting.lines.is_empty() && waiting.lines.len() + line.len() > MAX_WAITING {
            drop(waiting);
            self.flush();
            waiting = self.waiting();
        }
        waiting.lines.extend_from_slice(line);
        if waiting.writer_sleeps {
            waiting.writer_sleeps = false;
            self.0.arrived.notify_one();
        }
    }

    /// Writes what waits.
    fn flush(&self) {
        let mut out = self.0.out.lock().unwrap_or_else(PoisonError::into_inner);
        let lines = std::mem::take(&mut self.waiting().lines);
        // Where a log cannot be written, there is nowhere to say so.
        let _ = out.write_all(&lines).and_then(|()| out.flush());
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<W> Clone for Lines<W> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<'a, W: io::Write + 'a> MakeWriter<'a> for Lines<W> {
    type Writer = Line<'a, W>;

    fn make_writer(&'a self) -> Line<'a, W> {
        Line { lines: self, is_urgent: false }
    }

    fn make_writer_for(&'a self, metadata: &Metadata<'_>) -> Line<'a, W> {
        Line { lines: self, is_urgent: *metadata.level() == Level::ERROR }
    }
}

impl<W: io::Write> io::Write for Line<'_, W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.lines.append(line);
        if self.is_urgent {
            self.lines.flush();
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for LogGuard {
    fn drop(&mut self) {
        self.0.flush();
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// Counts writes.
    #[derive(Clone, Debug, Default)]
    struct Out(Arc<Mutex<Vec<u8>>>, Arc<AtomicUsize>);

    impl io::Write for Out {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.1.fetch_add(1, Ordering::Relaxed);
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_are_written_together_in_order_and_an_error_at_once() {
        let out = Out::default();
        let lines = Lines::new(out.clone());
        let write = |line: &str, is_urgent| Line { lines: &lines, is_urgent }.write_all(line.as_bytes()).unwrap();
        write("a\n", false);
        write("b\n", false);
        assert_eq!(out.1.load(Ordering::Relaxed), 0, "nothing is written by whoever logs");
        write("c\n", true);
        assert_eq!(out.1.load(Ordering::Relaxed), 1);
        assert_eq!(*out.0.lock().unwrap(), b"a\nb\nc\n");
    }

    #[test]
    fn what_waits_is_bounded_and_nothing_is_lost() {
        let out = Out::default();
        let lines = Lines::new(out.clone());
        let line = [b'x'; 1000];
        for _ in 0..1000 {
            lines.append(&line);
            assert!(lines.waiting().lines.len() <= MAX_WAITING);
        }
        lines.flush();
        assert_eq!(out.0.lock().unwrap().len(), 1000 * 1000);
        assert!(out.1.load(Ordering::Relaxed) < 10);
    }

    #[test]
    fn the_thread_writes_what_nobody_else_does() {
        let out = Out::default();
        let lines = Lines::new(out.clone());
        let written = lines.clone();
        std::thread::spawn(move || written.write_for_ever());
        for number in 0..3 {
            lines.append(b"x\n");
            let deadline = std::time::Instant::now() + Duration::from_secs(60);
            while out.0.lock().unwrap().len() < (number + 1) * 2 {
                assert!(std::time::Instant::now() < deadline, "line {number} was not written");
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }
}
