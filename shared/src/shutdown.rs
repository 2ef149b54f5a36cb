//! Two-stage shutdown: the first termination signal requests a graceful stop, the second signal ends the process at
//! once.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// The termination signals, SIGTERM and SIGINT, which are kept from the moment of their registration on.
///
/// A service registers before it says that it listens, because a signal that comes earlier ends the process at once.
#[derive(Debug)]
pub struct TerminationSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl TerminationSignals {
    /// Registers the signals. Fails if the handlers cannot be installed.
    pub fn register() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Waits for the first signal since the registration. After the return, a second signal ends the process at once with
    /// status 130.
    pub async fn first(mut self) {
        self.next().await;
        tokio::spawn(async move {
            self.next().await;
            tracing::error!(
                "second termination signal: exiting at once with status 130, without waiting for open work"
            );
            std::process::exit(130);
        });
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Registers the termination signals, and waits as [`TerminationSignals::first`] does.
///
/// Fails if the signal handlers cannot be installed.
pub async fn requested() -> std::io::Result<()> {
    TerminationSignals::register()?.first().await;
    Ok(())
}
