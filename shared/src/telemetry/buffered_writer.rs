//! The buffered writer of the log. Lines that are logged within a short time are written to standard output together,
//! because a separate write for each line would cost a busy gateway more than formatting the line.
//!
//! The first line after an idle period is written at once; later lines wait for at most [`FLUSH_INTERVAL`]. The buffer
//! is bounded by [`MAX_PENDING_BYTES`]: a thread that logs into a full buffer writes the buffer out itself. An ERROR
//! line is written at once, together with all earlier lines.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

/// The maximum time that a line waits for further lines.
const FLUSH_INTERVAL: Duration = Duration::from_millis(20);

/// The maximum size of the buffer, in bytes.
const MAX_PENDING_BYTES: usize = 256 << 10;

/// A shared handle to the log buffer and the output. Clones write to the same buffer.
#[derive(Debug)]
pub(super) struct BufferedWriter<W>(Arc<BufferState<W>>);

#[derive(Debug)]
struct BufferState<W> {
    pending: Mutex<PendingLines>,
    line_added: Condvar,
    /// The lock is taken before `pending` is emptied, so that lines are written in order.
    output: Mutex<W>,
}

#[derive(Debug, Default)]
struct PendingLines {
    bytes: Vec<u8>,
    thread_is_idle: bool,
}

/// The writer for a single log line. An urgent line (level ERROR) is written out at once.
#[derive(Debug)]
pub(super) struct LineWriter<'a, W: io::Write> {
    buffer: &'a BufferedWriter<W>,
    is_urgent: bool,
}

/// A guard that writes the buffered log lines when dropped, at the end of the process.
#[must_use]
#[derive(Debug)]
pub struct LogGuard(BufferedWriter<io::Stdout>);

impl BufferedWriter<io::Stdout> {
    /// Returns a writer to standard output and starts the thread `log`, which writes the buffer out.
    pub(super) fn start() -> (Self, LogGuard) {
        let writer = Self::new(io::stdout());
        let background = writer.clone();
        let thread = std::thread::Builder::new().name("log".to_owned()).spawn(move || background.flush_for_ever());
        if let Err(error) = thread {
            // Without the thread, lines are written when the buffer is full or an ERROR line is logged.
            writer.append(
                format!("{{\"level\":\"ERROR\",\"message\":\"cannot start the log thread: {error}\"}}\n").as_bytes(),
            );
            writer.flush();
        }
        (writer.clone(), LogGuard(writer))
    }
}

impl<W: io::Write> BufferedWriter<W> {
    fn new(output: W) -> Self {
        Self(Arc::new(BufferState {
            pending: Mutex::default(),
            line_added: Condvar::new(),
            output: Mutex::new(output),
        }))
    }

    fn flush_for_ever(&self) {
        loop {
            let mut pending = self.lock_pending();
            while pending.bytes.is_empty() {
                pending.thread_is_idle = true;
                pending = self.0.line_added.wait(pending).unwrap_or_else(PoisonError::into_inner);
            }
            pending.thread_is_idle = false;
            drop(pending);
            self.flush();
            std::thread::sleep(FLUSH_INTERVAL);
        }
    }

    fn append(&self, line: &[u8]) {
        let mut pending = self.lock_pending();
        while !pending.bytes.is_empty() && pending.bytes.len() + line.len() > MAX_PENDING_BYTES {
            drop(pending);
            self.flush();
            pending = self.lock_pending();
        }
        pending.bytes.extend_from_slice(line);
        if pending.thread_is_idle {
            pending.thread_is_idle = false;
            self.0.line_added.notify_one();
        }
    }

    /// Writes the buffered lines to the output.
    fn flush(&self) {
        let mut output = self.0.output.lock().unwrap_or_else(PoisonError::into_inner);
        let lines = std::mem::take(&mut self.lock_pending().bytes);
        // An error is ignored: there is no other place to report that the log cannot be written.
        let _ = output.write_all(&lines).and_then(|()| output.flush());
    }

    fn lock_pending(&self) -> MutexGuard<'_, PendingLines> {
        self.0.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<W> Clone for BufferedWriter<W> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<'a, W: io::Write + 'a> MakeWriter<'a> for BufferedWriter<W> {
    type Writer = LineWriter<'a, W>;

    fn make_writer(&'a self) -> LineWriter<'a, W> {
        LineWriter { buffer: self, is_urgent: false }
    }

    fn make_writer_for(&'a self, metadata: &Metadata<'_>) -> LineWriter<'a, W> {
        LineWriter { buffer: self, is_urgent: *metadata.level() == Level::ERROR }
    }
}

impl<W: io::Write> io::Write for LineWriter<'_, W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.buffer.append(line);
        if self.is_urgent {
            self.buffer.flush();
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

    /// An output that collects the bytes and counts the writes.
    #[derive(Clone, Debug, Default)]
    struct CountingOutput {
        bytes: Arc<Mutex<Vec<u8>>>,
        writes: Arc<AtomicUsize>,
    }

    impl io::Write for CountingOutput {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.writes.fetch_add(1, Ordering::Relaxed);
            self.bytes.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_are_written_together_in_order_and_an_error_at_once() {
        let output = CountingOutput::default();
        let writer = BufferedWriter::new(output.clone());
        let write =
            |line: &str, is_urgent| LineWriter { buffer: &writer, is_urgent }.write_all(line.as_bytes()).unwrap();
        write("a\n", false);
        write("b\n", false);
        assert_eq!(output.writes.load(Ordering::Relaxed), 0, "the thread that logs writes nothing to the output");
        write("c\n", true);
        assert_eq!(output.writes.load(Ordering::Relaxed), 1);
        assert_eq!(*output.bytes.lock().unwrap(), b"a\nb\nc\n");
    }

    #[test]
    fn pending_bytes_are_bounded_and_no_line_is_lost() {
        let output = CountingOutput::default();
        let writer = BufferedWriter::new(output.clone());
        let line = [b'x'; 1000];
        for _ in 0..1000 {
            writer.append(&line);
            assert!(writer.lock_pending().bytes.len() <= MAX_PENDING_BYTES);
        }
        writer.flush();
        assert_eq!(output.bytes.lock().unwrap().len(), 1000 * 1000);
        assert!(output.writes.load(Ordering::Relaxed) < 10);
    }

    #[test]
    fn the_background_thread_writes_lines_that_are_not_urgent() {
        let output = CountingOutput::default();
        let writer = BufferedWriter::new(output.clone());
        let background = writer.clone();
        std::thread::spawn(move || background.flush_for_ever());
        for number in 0..3 {
            writer.append(b"x\n");
            let deadline = std::time::Instant::now() + Duration::from_secs(60);
            while output.bytes.lock().unwrap().len() < (number + 1) * 2 {
                assert!(std::time::Instant::now() < deadline, "line {number} was not written");
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }
}
