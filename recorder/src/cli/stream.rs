//! `recorder stream create`: creates the stream, its consumer and the buckets, or compares existing ones with the
//! expected configuration.

use std::time::Duration;

use anyhow::bail;
use async_nats::jetstream;
use clap::Subcommand;
use shared::lease::MIN_LIFETIME;
use shared::nats::BrokerRole;
use tokio::time::{Instant, sleep};

use super::output::print;
use crate::config::Config;
use crate::source::setup::{self, SetupError, SetupOutcome, StreamOptions};
use crate::source::{self};

const BROKER_TIMEOUT: Duration = Duration::from_secs(30);
const RETRY_INTERVAL: Duration = Duration::from_millis(250);

#[derive(Debug, Subcommand)]
pub(super) enum StreamCommand {
    /// Create the stream, its consumer and the buckets, or check existing ones for differences.
    Create {
        /// Number of replicas in a cluster.
        #[arg(long)]
        replicas: Option<usize>,
        /// Maximum size of the stream in bytes: above it, new chats are refused; old events are never dropped.
        #[arg(long)]
        max_bytes: Option<i64>,
        /// Maximum age of events, such as 365d. Without it, events are kept for ever.
        #[arg(long, value_parser = humantime::parse_duration)]
        max_age: Option<Duration>,
        /// Lifetime of a gateway's lease without renewal, such as 1m.
        #[arg(long, value_parser = lifetime)]
        lease_lifetime: Option<Duration>,
    },
}

pub(super) async fn run(command: StreamCommand, config: &Config) -> anyhow::Result<()> {
    let StreamCommand::Create { replicas, max_bytes, max_age, lease_lifetime } = command;
    let options = StreamOptions { replicas, max_bytes, max_age, lease_lifetime };
    let client = source::connect_now(config.broker()?, BrokerRole::Operator).await?;
    let jetstream = jetstream::new(client);
    let deadline = Instant::now() + BROKER_TIMEOUT;
    loop {
        match setup::create(&jetstream, options).await {
            Ok(SetupOutcome::Created) => {
                return print(
                    "made stream CHATS, its consumer recorder, or its buckets GATEWAYS, BODIES, IDEMPOTENCY, ACCESS, GRANTS and BUDGETS",
                );
            }
            Ok(SetupOutcome::AlreadyExists) => {
                return print(
                    "stream CHATS, its consumer recorder and its buckets are there already, as they should be",
                );
            }
            Err(SetupError::Unavailable(_)) if Instant::now() < deadline => sleep(RETRY_INTERVAL).await,
            Err(error) => bail!(error),
        }
    }
}

fn lifetime(text: &str) -> anyhow::Result<Duration> {
    let lifetime = humantime::parse_duration(text)?;
    anyhow::ensure!(lifetime >= MIN_LIFETIME, "expected at least {MIN_LIFETIME:?}");
    Ok(lifetime)
}
