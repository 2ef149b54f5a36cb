//! `recorder stream create`.

use std::time::Duration;

use anyhow::{Context as _, bail};
use async_nats::jetstream;
use clap::Subcommand;
use shared::lease::MIN_LIFETIME;
use tokio::time::{Instant, sleep};

use super::output::print;
use crate::config::Config;
use crate::source::setup::{self, SetupError, SetupOutcome, StreamOptions};
use crate::source::{self};

const BROKER_TIMEOUT: Duration = Duration::from_secs(30);
const RETRY_INTERVAL: Duration = Duration::from_millis(250);

#[derive(Debug, Subcommand)]
pub(super) enum StreamCommand {
    /// Make the stream and its consumer; where they are there already, say whether they are as they should be.
    Create {
        /// Copies of the stream in a cluster.
        #[arg(long)]
        replicas: Option<usize>,
        /// How large the stream may grow, in bytes: past that, new chats are refused rather than old ones dropped.
        #[arg(long)]
        max_bytes: Option<i64>,
        /// How long events are kept, such as 365d. For ever unless given.
        #[arg(long, value_parser = humantime::parse_duration)]
        max_age: Option<Duration>,
        /// How long a gateway's lease lives unless it is renewed, such as 1m.
        #[arg(long, value_parser = lifetime)]
        lease_lifetime: Option<Duration>,
    },
}

pub(super) async fn run(command: StreamCommand, config: &Config) -> anyhow::Result<()> {
    let StreamCommand::Create { replicas, max_bytes, max_age, lease_lifetime } = command;
    let options = StreamOptions { replicas, max_bytes, max_age, lease_lifetime };
    let client = source::connect(config.nats_url()?).await.context("NATS_URL cannot be used")?;
    let jetstream = jetstream::new(client);
    let deadline = Instant::now() + BROKER_TIMEOUT;
    loop {
        match setup::create(&jetstream, options).await {
            Ok(SetupOutcome::Created) => {
                return print(
                    "made stream CHATS, its consumer recorder, or its buckets GATEWAYS, BODIES and IDEMPOTENCY",
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
