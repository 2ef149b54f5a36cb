//! A second gateway with the name of another gateway, which is refused at the start while the other one runs.

use std::path::Path;
use std::time::Duration;

use harness::process::Process;
use harness::services::Gateway;
use harness::services::gateway::GatewaySettings;
use tokio::time::timeout;

/// Starts a second gateway with the name of these settings and a directory of its own, and kills the gateway when the time
/// is over. Returns true if the gateway was refused for its name.
pub(super) async fn start_and_kill(
    program: &Path,
    settings: &GatewaySettings,
    directory: &Path,
    within: Duration,
) -> anyhow::Result<bool> {
    let twin = GatewaySettings {
        listen: "127.0.0.1:0".to_owned(),
        data_dir: directory.join(format!("{}-twin", settings.instance)),
        ..settings.clone()
    };
    let log = directory.join(format!("{}-twin.log", settings.instance));
    match timeout(within, Gateway::start(program, &twin, &log)).await {
        Ok(Ok(started)) => {
            // The other gateway is down, or its lease has expired.
            Process::kill9(started.process()).await;
            Ok(false)
        }
        Ok(Err(error)) if format!("{error:#}").contains("GATEWAY_INSTANCE: another gateway") => Ok(true),
        Ok(Err(error)) => Err(error),
        // Dropping the start has killed the process.
        Err(_) => Ok(false),
    }
}
