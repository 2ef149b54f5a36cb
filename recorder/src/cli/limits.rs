//! `recorder limits`: lists, sets and clears the limits of scopes, for operators with access to the database and the broker.

use std::sync::Arc;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use shared::access::LimitState;
use shared::event::{LimitScope, UsageLimits};
use shared::id::UserId;
use shared::nanodollars::to_dollars;
use shared::nats::BrokerRole;
use time::format_description::well_known::Rfc3339;

use super::connect::pool;
use super::output::print;
use crate::access::bucket::AccessBucket;
use crate::access::budget_input::NewBudget;
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
    /// Print the scopes that have limits: scope, requests per minute, tokens per minute, concurrent chats, budget, time and author of
    /// the last change.
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
#[derive(Clone, Debug, Args)]
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
    /// Amount in dollars that the calls may cost in a period, such as 25.00.
    #[arg(long, requires = "budget_period")]
    budget: Option<String>,
    /// Period after which the budget begins again: hour, day, week (from Monday on), month or total.
    #[arg(long, requires = "budget")]
    budget_period: Option<String>,
    /// Time zone in which the periods of the budget begin. Default: UTC.
    #[arg(long, requires = "budget")]
    budget_time_zone: Option<String>,
    /// Effect of the budget: finish (a call begins if its probable cost fits), cut (a streamed answer is ended when the budget is used up),
    /// strict (a call begins if its greatest possible cost fits) or soft (no call is refused). Default: finish.
    #[arg(long, requires = "budget")]
    budget_policy: Option<String>,
    /// Calls of models without a known price: allow (they count as free of charge) or refuse. Default: allow.
    #[arg(long, requires = "budget")]
    budget_unpriced: Option<String>,
    /// Amount in dollars that each gateway may spend in a period while the broker is away. Without it, calls are refused then.
    #[arg(long, requires = "budget")]
    budget_allowance: Option<String>,
}

impl LimitOptions {
    fn read(self) -> anyhow::Result<UsageLimits> {
        let budget = self.budget.zip(self.budget_period).map(|(amount, period)| {
            let new = NewBudget::from_texts(amount, period);
            new.with(self.budget_time_zone, self.budget_policy, self.budget_unpriced, self.budget_allowance).read()
        });
        Ok(UsageLimits {
            requests_per_minute: self.requests_per_minute,
            tokens_per_minute: self.tokens_per_minute,
            concurrent_chats: self.concurrent_chats,
            budget: budget.transpose()?.map(Box::new),
        })
    }
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
            let new = limits.read()?;
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
        limits.budget.as_ref().map_or("-".to_owned(), |budget| {
            format!(
                "${} a {} ({})",
                to_dollars(budget.amount_nanodollars),
                budget.period.as_str(),
                budget.policy.as_str()
            )
        }),
        state.changed.at.format(&Rfc3339)?,
        state.changed.by.clone(),
    ]
    .join("\t"))
}

async fn connect(config: &Config, pool: sqlx::PgPool) -> anyhow::Result<AccessLimits> {
    let client = source::connect_now(config.broker()?, BrokerRole::Serve).await?;
    Ok(AccessLimits::new(pool, Arc::new(AccessBucket::new(client))))
}
