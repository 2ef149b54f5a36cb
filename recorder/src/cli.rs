//! The command line. Prints what was asked for on standard output; errors are one line on standard error.

mod connect;
mod consume;
mod invites;
mod keys;
mod output;
mod progress;
mod quarantine;
mod rebuild;
mod replay;
mod serve;
mod stream;
mod token;
mod users;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use shared::config::{ConfigError, EXIT_USAGE, Environment};

use crate::config::Config;
use crate::store;
use connect::pool;
use output::print;

/// The tables are not what the log says.
const EXIT_DIFFERENT: u8 = 3;

/// Projects the events of the gateways into PostgreSQL.
#[derive(Debug, Parser)]
#[command(name = "recorder", version, about)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Bring the database's tables to this version.
    Migrate,
    /// The stream that holds the record.
    #[command(subcommand)]
    Stream(stream::StreamCommand),
    /// Record events until stopped.
    Consume,
    /// Events that could not be projected, kept whole.
    #[command(subcommand)]
    Quarantine(quarantine::QuarantineCommand),
    /// Make the tables anew from the log while everything runs, and put them in the place of the old ones.
    Rebuild(rebuild::RebuildArguments),
    /// Compare the tables with the log, row by row, while everything runs. Exit status 3: they differ.
    Verify(rebuild::VerifyArguments),
    Replay(Box<replay::ReplayArguments>),
    /// Serve the HTTP API over the record until stopped.
    Serve,
    /// Invite codes.
    #[command(subcommand)]
    Invites(invites::InvitesCommand),
    /// Accounts.
    #[command(subcommand)]
    Users(users::UsersCommand),
    /// Print a session token for a user.
    Token(token::TokenArguments),
    /// The keys that sign and verify session tokens.
    #[command(subcommand)]
    Keys(keys::KeysCommand),
}

/// Runs a command.
pub async fn run(cli: Cli) -> anyhow::Result<()> {
    let config = Config::read(&Environment::from_process())?;
    match cli.command {
        Command::Migrate => {
            let pool = pool(&config)?;
            store::migrate(&pool).await.context("the database could not be migrated")?;
            print("the database is up to date")
        }
        Command::Stream(command) => stream::run(command, &config).await,
        Command::Consume => consume::run(config).await,
        Command::Quarantine(command) => quarantine::run(command, &config).await,
        Command::Rebuild(arguments) => rebuild::run_rebuild(arguments, &config).await,
        Command::Verify(arguments) => rebuild::run_verify(arguments, &config).await,
        Command::Replay(arguments) => replay::run(*arguments, config).await,
        Command::Serve => serve::run(config).await,
        Command::Invites(command) => invites::run(command, &config).await,
        Command::Users(command) => users::run(command, &config).await,
        Command::Token(arguments) => token::run(&arguments, &config).await,
        Command::Keys(command) => keys::run(&command),
    }
}

/// The status with which the process ends for an error.
pub fn exit_status(error: &anyhow::Error) -> u8 {
    match error {
        error if error.is::<ConfigError>() => EXIT_USAGE,
        error if error.is::<rebuild::TablesDiffer>() => EXIT_DIFFERENT,
        _ => 1,
    }
}
