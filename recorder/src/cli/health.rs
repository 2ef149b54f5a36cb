//! `recorder health`: a health check for containers and supervisors, which need no HTTP client of their own.

use clap::{Args, ValueEnum};

use super::output::print;
use crate::config::Config;

/// The arguments of `recorder health`.
#[derive(Debug, Args)]
pub(super) struct HealthArguments {
    /// The process to ask: `consume` listens at RECORDER_LISTEN, `serve` at RECORDER_SERVE_HEALTH_LISTEN.
    #[arg(value_enum, default_value_t = Process::Consume)]
    process: Process,
}

/// A process of the recorder that runs until stopped.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Process {
    Consume,
    Serve,
}

/// Prints `ready`, or fails with the reason of the process.
pub(super) async fn run(arguments: &HealthArguments, config: &Config) -> anyhow::Result<()> {
    let listen = match arguments.process {
        Process::Consume => config.listen,
        Process::Serve => config.serve.health_listen,
    };
    shared::http_client::check_readiness(listen).await?;
    print("ready")
}
