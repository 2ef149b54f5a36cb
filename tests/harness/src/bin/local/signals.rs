//! The signals that stop `up`.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Receivers of SIGINT, SIGTERM, SIGHUP and SIGPIPE. SIGPIPE means that the reader of the output has gone.
#[derive(Debug)]
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
    broken_pipe: Signal,
}

impl Signals {
    /// Registers the receivers. From then on the signals do not end the process.
    pub(crate) fn listen() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
            broken_pipe: signal(SignalKind::pipe())?,
        })
    }

    /// Waits for the next signal, and returns the exit code that a shell reports for the signal.
    pub(crate) async fn next(&mut self) -> u8 {
        let number = tokio::select! {
            _ = self.interrupt.recv() => SignalKind::interrupt(),
            _ = self.hangup.recv() => SignalKind::terminate(),
            _ = self.terminate.recv() => SignalKind::terminate(),
            _ = self.broken_pipe.recv() => SignalKind::pipe(),
        };
        128_u8.saturating_add(u8::try_from(number.as_raw_value()).unwrap_or(0))
    }
}
