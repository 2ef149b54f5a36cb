//! The recorder's binary.

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;
use recorder::cli::{Cli, exit_status, run};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    match run(Cli::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // One line, causes included. Nobody is left to tell if standard error is gone.
            drop(writeln!(std::io::stderr(), "recorder: {error:#}"));
            ExitCode::from(exit_status(&error))
        }
    }
}
