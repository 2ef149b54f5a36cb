//! `recorder limits`: lists, sets and clears the limits of scopes, for operators with access to the database and the broker.

use std::sync::Arc;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use shared::access::LimitState;
use shared::event::{LimitScope, UsageLimits};
use shared::id::UserId;
use shared::nats::BrokerRole;
use time::format_description::well_known::Rfc3339;

use super::connect::pool;
use super::output::print;
use crate::access::bucket::AccessBucket;
use crate::access::limits::AccessLimits;
use crate::config::Config;
use crate::source;
use crate::store::limits;

/// The author of changes of the command line, in events.
const AUTHOR: &str = "cli";
/// The number of rows read per query.
const PAGE_ROWS: i64 = 100;

#[derive(Debug, Subcommand)]
pub(super) enum LimitsCommand {
    /// Print the scopes that have limits: scope, requests per minute, tokens per minute, concurrent chats, time and author of the
    /// last change.
    List,
    /// Replace all limits of a scope. A limit that is not given does not exist any more.
    Set {
        /// deployment, everyone (the default of each user), user:ID, project:ID, key:ID or model:NAME. The user, project or key need
        /// not exist.
        scope: LimitScope,
        #[command(flatten)]
        limits: LimitOptions,
    },
    /// Remove all limits of a scope.
    Clear {
        /// The scope, as printed by `list`.
        scope: LimitScope,
    },
}

/// The limits of `set`; at least one.
#[derive(Clone, Copy, Debug, Args)]
#[group(required = true, multiple = true)]
pub(super) struct LimitOptions {
    /// Maximum number of calls that begin in a minute of the clock (UTC).
    #[arg(long, value_parser = clap::value_parser!(u64).range(..=UsageLimits::MAX))]
    requests_per_minute: Option<u64>,
    /// Maximum number of tokens, of prompts and answers together, in a minute of the clock (UTC).
    #[arg(long, value_parser = clap::value_parser!(u64).range(..=UsageLimits::MAX))]
    tokens_per_minute: Option<u64>,
    /// Maximum number of calls that run at the same time.
    #[arg(long, value_parser = clap::value_parser!(u64).range(..=UsageLimits::MAX))]
    concurrent_chats: Option<u64>,
}

pub(super) async fn run(command: LimitsCommand, config: &Config) -> anyhow::Result<()> {
    let pool = pool(config)?;
    let author: UserId = AUTHOR.parse()?;
    match command {
        LimitsCommand::List => {
            let mut after = String::new();
            loop {
                let page =
                    limits::page_in_force(&pool, &after, PAGE_ROWS).await.context("the limits could not be read")?;
                let Some(last) = page.last() else { return Ok(()) };
                after = last.scope.to_string();
                for state in page {
                    print(&line(&state)?)?;
                }
            }
        }
        LimitsCommand::Set { scope, limits } => {
            let LimitOptions { requests_per_minute, tokens_per_minute, concurrent_chats } = limits;
            let new = UsageLimits { requests_per_minute, tokens_per_minute, concurrent_chats };
            connect(config, pool).await?.set(&scope, &author, new).await?;
            print("set")
        }
        LimitsCommand::Clear { scope } => {
            connect(config, pool).await?.clear(&scope, &author).await?;
            print("cleared")
        }
    }
}

fn line(state: &LimitState) -> anyhow::Result<String> {
    let number = |limit: Option<u64>| limit.map_or("-".to_owned(), |limit| limit.to_string());
    let limits = &state.limits;
    Ok([
        state.scope.to_string(),
        number(limits.requests_per_minute),
        number(limits.tokens_per_minute),
        number(limits.concurrent_chats),
        state.changed.at.format(&Rfc3339)?,
        state.changed.by.clone(),
    ]
    .join("\t"))
}

async fn connect(config: &Config, pool: sqlx::PgPool) -> anyhow::Result<AccessLimits> {
    let client = source::connect_now(config.broker()?, BrokerRole::Serve).await?;
    Ok(AccessLimits::new(pool, Arc::new(AccessBucket::new(client))))
}
