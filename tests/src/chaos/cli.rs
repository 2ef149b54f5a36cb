//! The command line of the chaos program.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;

use crate::chaos::outage::{Outage, outage};
use crate::chaos::plan::{Broker, JournalSize};
use crate::chaos::round::{Settings, round};

/// Plays rounds of load under faults. After each round, checks that the record equals the clients' observations.
#[derive(Debug, Parser)]
#[command(name = "chaos")]
pub struct Cli {
    /// Seed of the first round; each next round counts up by one. Random unless given.
    #[arg(long)]
    seed: Option<u64>,
    /// Number of rounds to run.
    #[arg(long, default_value_t = 10)]
    rounds: u64,
    /// Time limit, such as 1h: no round begins later.
    #[arg(long, value_parser = humantime::parse_duration)]
    within: Option<Duration>,
    /// Duration of the load of a round.
    #[arg(long, default_value = "6s", value_parser = humantime::parse_duration)]
    span: Duration,
    /// Average time from one fault to the next.
    #[arg(long, default_value = "700ms", value_parser = humantime::parse_duration)]
    every: Duration,
    /// Number of concurrent clients.
    #[arg(long, default_value_t = 16)]
    clients: usize,
    /// Use a cluster of three nodes with three copies of the stream, instead of one node.
    #[arg(long)]
    cluster: bool,
    /// Limit the gateways' journals to the smallest size, and fill the journals once in each round.
    #[arg(long)]
    small_journals: bool,
    /// Setting of the gateways, such as `GATEWAY_DURABILITY=journal`. Can be given more than once.
    #[arg(long, value_parser = setting)]
    gateway: Vec<(String, String)>,
    /// Play one outage of the broker or the database under load instead of rounds, and report latencies, memory and the time to
    /// catch up.
    #[arg(long, value_enum, conflicts_with_all = ["seed", "rounds", "within", "span", "every", "cluster", "small_journals"])]
    outage: Option<Outage>,
    /// Duration of the outage.
    #[arg(long, default_value = "5m", value_parser = humantime::parse_duration, requires = "outage")]
    lasting: Duration,
    /// Continue after a failed round.
    #[arg(long)]
    keep_going: bool,
}

fn setting(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

impl Cli {
    /// Plays the rounds and prints a report. The exit code is 1 if a round failed.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(self.play())
    }

    async fn play(self) -> anyhow::Result<ExitCode> {
        let mut out = std::io::stdout();
        if let Some(kind) = self.outage {
            let report = outage(kind, self.lasting, self.clients, &self.gateway).await?;
            writeln!(out, "{report}")?;
            return Ok(ExitCode::SUCCESS);
        }
        let began = Instant::now();
        let first = self.seed.unwrap_or_else(|| rand::random_range(0..1_000_000_000));
        let (mut rounds, mut failed, mut chats, mut seen, mut events) = (0, 0, 0, 0, 0);
        let mut faults: BTreeMap<&'static str, usize> = BTreeMap::new();
        for seed in first..first + self.rounds {
            if self.within.is_some_and(|within| began.elapsed() >= within) {
                break;
            }
            rounds += 1;
            match round(&self.settings(seed)).await {
                Ok(report) => {
                    let counts = report.counts;
                    writeln!(
                        out,
                        "seed {seed}: held; {} asked, {} seen to the end, {} broken, {} left, {} refused; {} recorded, {} events",
                        counts.asked,
                        counts.seen,
                        counts.broken,
                        counts.left,
                        counts.refused,
                        counts.recorded,
                        counts.events
                    )?;
                    chats += counts.recorded;
                    seen += counts.seen;
                    events += counts.events;
                    for (kind, count) in report.faults {
                        *faults.entry(kind).or_default() += count;
                    }
                }
                Err(error) => {
                    failed += 1;
                    writeln!(out, "seed {seed}: FAILED: {error:#}")?;
                    if !self.keep_going {
                        break;
                    }
                }
            }
            out.flush()?;
        }
        writeln!(out, "\n{rounds} rounds in {:.0?}, {failed} failed", began.elapsed())?;
        writeln!(out, "{chats} chats recorded, {seen} of them seen to the end, {events} events")?;
        for (kind, count) in faults {
            writeln!(out, "{count:>6}  {kind}")?;
        }
        Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    fn settings(&self, seed: u64) -> Settings {
        Settings {
            seed,
            broker: if self.cluster { Broker::Cluster } else { Broker::Single },
            journals: if self.small_journals { JournalSize::Small } else { JournalSize::Large },
            span: self.span,
            every: self.every,
            clients: self.clients,
            gateway: self.gateway.clone(),
        }
    }
}
