//! `down`: stops all services and keeps the data.

use std::process::ExitCode;

use crate::directory::Directory;
use crate::failure::Outcome;
use crate::service::Service;
use crate::{lock, output, process};

/// Stops all services; without a running service prints that nothing runs.
pub(crate) async fn down(directory: &Directory) -> Outcome {
    let _lock = lock::take(directory)?;
    if !Service::ALL.iter().any(|service| directory.process_file(*service).exists()) {
        output::line("Nothing is running.");
        return Ok(ExitCode::SUCCESS);
    }
    process::stop_all(directory).await?;
    output::line("Stopped. The data is kept; deploy/local.sh reset deletes it.");
    Ok(ExitCode::SUCCESS)
}
