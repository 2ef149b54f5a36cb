//! The load program: see `tests::load`.

use std::process::ExitCode;

use clap::Parser as _;
use tests::load::cli::Cli;

#[cfg(not(feature = "system-allocator"))]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const ALLOCATOR_NAME: &str = if cfg!(feature = "system-allocator") { "the system's" } else { "mimalloc" };

fn main() -> anyhow::Result<ExitCode> {
    Cli::parse().run(ALLOCATOR_NAME)
}
