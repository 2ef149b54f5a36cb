//! The recorder's binary.

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;
use recorder::cli::{Cli, is_config_error, run};
use shared::config::EXIT_USAGE;

#[tokio::main]
async fn main() -> ExitCode {
    match run(Cli::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // One line, causes included. Nobody is left to tell if standard error is gone.
            drop(writeln!(std::io::stderr(), "recorder: {error:#}"));
            if is_config_error(&error) { ExitCode::from(EXIT_USAGE) } else { ExitCode::FAILURE }
        }
    }
}
