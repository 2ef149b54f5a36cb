//! The `recorder` binary: parses the command line, runs the command, and turns an error into an exit status.

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;
use recorder::cli::{Cli, exit_status, run};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    shared::core_dumps::forbid();
    match run(Cli::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // One line with the error and all its causes. A failed write to standard error is ignored: no other channel
            // is left.
            drop(writeln!(std::io::stderr(), "recorder: {error:#}"));
            ExitCode::from(exit_status(&error))
        }
    }
}
