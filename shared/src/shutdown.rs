//! Two-stage shutdown: the first termination signal requests a graceful stop, the second signal ends the process at
//! once.

use tokio::signal::unix::{SignalKind, signal};

/// Waits for the first SIGTERM or SIGINT. After the return, a second signal ends the process at once with status 130.
///
/// Fails if the signal handlers cannot be installed.
pub async fn requested() -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::error!("second termination signal: exiting at once with status 130, without waiting for open work");
        std::process::exit(130);
    });
    Ok(())
}
