//! The chaos program: see `tests::chaos`.

use std::process::ExitCode;

use clap::Parser as _;
use tests::chaos::cli::Cli;

fn main() -> anyhow::Result<ExitCode> {
    Cli::parse().run()
}
