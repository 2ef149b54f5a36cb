//! `status`: prints a line for each service with state, address and process id.

use std::process::ExitCode;

use crate::directory::Directory;
use crate::failure::Outcome;
use crate::ports::Ports;
use crate::{output, process, readiness};

/// Exit code where a service that ought to run does not, or is not ready.
const NOT_READY: u8 = 3;

/// Prints the state of every service.
pub(crate) async fn status(directory: &Directory) -> Outcome {
    let ports = Ports::read(directory);
    let client = harness::http::client();
    let mut all_ready = true;
    for service in process::expected(directory) {
        let Some(pid) = process::pid(directory, service) else {
            output::line(&format!("{service:<9} stopped"));
            all_ready = false;
            continue;
        };
        let port = ports.of(service).unwrap_or_default();
        let state = match service.has_health() {
            false => "running",
            true if readiness::is_healthy(&client, port).await => "ready",
            true => "not ready",
        };
        all_ready &= state != "not ready";
        output::line(&format!("{service:<9} {state:<10} 127.0.0.1:{port}  pid {pid}"));
    }
    Ok(if all_ready { ExitCode::SUCCESS } else { ExitCode::from(NOT_READY) })
}
