//! The command line: parses the arguments, reads the settings and runs the command. Results go to standard output; an
//! error is one line on standard error.

mod api_keys;
mod connect;
mod consume;
mod doctor;
mod health;
mod invites;
mod keys;
mod limits;
mod output;
mod prices;
mod progress;
mod projects;
mod quarantine;
mod rebuild;
mod replay;
mod restore_events;
mod serve;
mod stream;
mod token;
mod users;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use shared::config::{ConfigError, EXIT_USAGE, Environment};

use crate::config::Config;
use crate::rebuild::error::ReprojectionError;
use crate::store;
use connect::pool;
use output::print;

/// The exit status of `recorder verify` if the tables differ from the log.
const EXIT_DIFFERENT: u8 = 3;
/// The exit status of `recorder rebuild` and `recorder restore-events` if the log lacks rows of the tables.
const EXIT_WOULD_LOSE: u8 = 4;

/// The exit status of `recorder doctor` if something is wrong.
const EXIT_WRONG: u8 = 5;

/// Projects the events of the gateways into PostgreSQL.
#[derive(Debug, Parser)]
#[command(name = "recorder", version, about)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Create or upgrade the database's tables to this version.
    Migrate,
    /// Create and check the broker's stream, consumer and buckets.
    #[command(subcommand)]
    Stream(stream::StreamCommand),
    /// Record events into the database until stopped.
    Consume,
    /// List, retry or delete events that could not be projected.
    #[command(subcommand)]
    Quarantine(quarantine::QuarantineCommand),
    /// Build the tables again from the log while everything runs, and replace the present tables. Exit status 4 if the
    /// log lacks rows of the present tables.
    Rebuild(rebuild::RebuildArguments),
    /// Compare the tables with the log, row by row, while everything runs. Exit status 3 if the tables differ.
    Verify(rebuild::VerifyArguments),
    RestoreEvents(restore_events::RestoreArguments),
    Replay(Box<replay::ReplayArguments>),
    /// Serve the HTTP API over the recorded chats until stopped.
    Serve,
    /// Examine the broker, the database, the keys and the gateways of a deployment, and say what is wrong and what to do.
    /// Nothing is changed. Exit status 5 if something is wrong.
    Doctor(doctor::DoctorArguments),
    /// Ask a running process for its readiness. The exit status is 0 if the process is ready, otherwise 1.
    Health(health::HealthArguments),
    /// Create, list and revoke invite codes.
    #[command(subcommand)]
    Invites(invites::InvitesCommand),
    /// Create and change accounts.
    #[command(subcommand)]
    Users(users::UsersCommand),
    /// Print a session token for an account.
    Token(token::TokenArguments),
    /// Issue, list and revoke API keys.
    #[command(subcommand)]
    ApiKeys(api_keys::ApiKeysCommand),
    /// List, set and clear limits of scopes: how much a user, project, key, model or all together may use.
    #[command(subcommand)]
    Limits(limits::LimitsCommand),
    /// List, create and change projects: groups of users whose keys are counted together.
    #[command(subcommand)]
    Projects(projects::ProjectsCommand),
    /// Publish and list price lists.
    #[command(subcommand)]
    Prices(prices::PricesCommand),
    /// Compute the costs of past calls again, with the price lists that were published until now.
    Reprice(prices::RepriceArguments),
    /// Print what calls would cost with other prices. Nothing is changed.
    Costs(prices::CostsArguments),
    /// Create and rotate the keys for signing session tokens and API keys.
    #[command(subcommand)]
    Keys(keys::KeysCommand),
}

/// Runs the command. Malformed settings are an error before any command starts.
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
        Command::Rebuild(arguments) => rebuild::run_rebuild(arguments, config).await,
        Command::Verify(arguments) => rebuild::run_verify(arguments, config).await,
        Command::RestoreEvents(arguments) => restore_events::run(arguments, config).await,
        Command::Replay(arguments) => replay::run(*arguments, config).await,
        Command::Serve => serve::run(config).await,
        Command::Doctor(arguments) => doctor::run(arguments, &config).await,
        Command::Health(arguments) => health::run(&arguments, &config).await,
        Command::Invites(command) => invites::run(command, &config).await,
        Command::Users(command) => users::run(command, &config).await,
        Command::Token(arguments) => token::run(&arguments, &config).await,
        Command::ApiKeys(command) => api_keys::run(command, &config).await,
        Command::Limits(command) => limits::run(command, &config).await,
        Command::Projects(command) => projects::run(command, &config).await,
        Command::Prices(command) => prices::run(command, &config).await,
        Command::Reprice(arguments) => prices::run_reprice(arguments, &config).await,
        Command::Costs(arguments) => prices::run_costs(arguments, &config).await,
        Command::Keys(command) => keys::run(&command),
    }
}

/// Returns the exit status for an error: 64 for a setting, 3 for tables that differ from the log, 4 for a rebuild that
/// would lose rows, and for lost events that cannot be made again, 5 for a deployment in which something is wrong, 1 for every other error.
pub fn exit_status(error: &anyhow::Error) -> u8 {
    match error {
        error if error.is::<ConfigError>() => EXIT_USAGE,
        error if error.is::<rebuild::TablesDiffer>() => EXIT_DIFFERENT,
        error if matches!(error.downcast_ref(), Some(ReprojectionError::WouldLose(_))) => EXIT_WOULD_LOSE,
        error if error.is::<restore_events::NotAllRestored>() => EXIT_WOULD_LOSE,
        error if error.is::<doctor::SomethingIsWrong>() => EXIT_WRONG,
        _ => 1,
    }
}
